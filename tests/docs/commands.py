"""Whether the terminal would take a command."""

from collections.abc import Sequence
from typing import Any

import typer

from gdc import cli


def check_gdc(arguments: Sequence[str]) -> None:
    """Parse the arguments of ``gdc`` as the terminal does, without running anything."""
    command: Any = typer.main.get_command(cli.app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        assert rest, "expected a command"
        assert rest[0] in command.commands, f"no command {rest[0]}"
        command = command.commands[rest.pop(0)]
        assert not command.hidden, "a former name"
    command.make_context("gdc", rest)
