"""The application that the commands belong to, and what they share."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from gdc.cli import forked
from gdc.environment import never_fail_to_print
from gdc.errors import EXIT_CODES, ConfigError, GdcError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.system_errors import wording_system_errors

app = typer.Typer(
    help="Which training samples does my model memorize, what should I do, and did it work?",
    epilog="Exit codes: " + "; ".join(f"{code} {why}" for code, why in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")]
TextField = Annotated[
    str, typer.Option(help="The field of the text or the turns; or templates, '{ask}=>{answer}'.")
]

# These read files of the user's with libraries that may abort the process that they are in.
_FORKED: Final = frozenset(
    {"audit", "certify", "verify", "import", "map", "plan", "plant", "export"}
)


def main() -> None:
    """Run the command line; a user's mistake is one message and its exit code."""
    never_fail_to_print()
    # Unless who started us has us ignore it. An exit tells no traceback, whatever is imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        _require_utf8(sys.argv[1:])
        if _is_forked(sys.argv[1:]):
            forked.wait_for_child()
        with wording_system_errors():
            app(prog_name="gdc")
    except GdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


def _is_forked(arguments: Sequence[str]) -> bool:
    is_named = sys.platform.startswith("linux") and not _FORKED.isdisjoint(arguments[:1])
    # Locks that another thread holds stay locked in a child: a program that calls us has threads.
    return is_named and len(list(Path("/proc/self/task").iterdir())) == 1


def _require_utf8(arguments: Sequence[str]) -> None:
    """Refuse a name that could stand in no file of ours; Python takes it in all the same."""
    for argument in arguments:
        shown = os.fsencode(argument).decode(errors="backslashreplace")
        if shown != argument:
            raise ConfigError(f"{shown}: expected a name in UTF-8, got other bytes. Rename it.")


def _show_version(wanted: bool) -> None:
    if wanted:
        from gdc import __version__

        typer.echo(f"gdc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def print_json(value: JsonObject) -> None:
    """Print an object as JSON, for programs."""
    # ASCII: an output that lacks a character gets an escape of JSON, not of Python.
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


# ---- former names

_FORMER: Final = {"benchmark": "gdc leaderboard", "recommend": "gdc plan"}


def _refuse_former(context: typer.Context) -> None:
    former = context.info_name or ""
    raise ConfigError(
        f"gdc {former}: expected {_FORMER[former]}, got its former name. Run: {_FORMER[former]}"
    )


for _name in _FORMER:
    app.command(
        _name,
        hidden=True,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(_refuse_former)
