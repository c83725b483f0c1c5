"""Commands that look at the current folder and change nothing."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import time
from dataclasses import asdict

import typer

from gdc.cli.application import Json, app, print_json


@app.command()
def status(as_json: Json = False) -> None:
    """Print what runs in this folder, how far it is and what is left; disturbs nothing."""
    from gdc.commands.status import as_plain, sentences
    from gdc.workspace.progress import read_progress

    run = read_progress()
    if as_json:
        print_json(as_plain(run, time.time()))
    else:
        typer.echo("\n".join(sentences(run, time.time())))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look in seconds for what would keep a run from its end: machine, folder, params, source."""
    from gdc.commands.doctor import examine, exit_code, lines

    findings = examine()
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        typer.echo("\n".join(lines(findings)))
    raise SystemExit(exit_code(findings))
