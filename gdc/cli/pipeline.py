"""Commands of the pipeline in the current folder."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import webbrowser
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gdc.cli.application import Json, TextField, app, print_json
from gdc.environment import require_address_space, require_sound
from gdc.errors import ConfigError
from gdc.workspace import project, run_lock, source_option

if TYPE_CHECKING:
    from gdc.config import Params

NIGHTLY: Final = "0 3 * * *"
MaxWorkers = Annotated[int | None, typer.Option(min=1, help="Models trained at the same time.")]


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one argument for each option
    source: Annotated[
        str | None, typer.Option(help="Your text: a file, a folder, or python-docs.")
    ] = None,
    text_field: TextField = "text",
    max_workers: MaxWorkers = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Push the data, commit dvc.lock, judge the model.")
    ] = False,
    ray: Annotated[
        str | None, typer.Option(help="Train on a Ray cluster: its address, auto or local.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would run, and what it costs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline in this folder; what is up to date is not done again."""
    require_address_space()
    project.require_workspace()
    from gdc import scores
    from gdc.corpus.sources import require_usable

    if not dry_run:
        run_lock.require_free()
    require_sound()
    params = _params(source, text_field, is_written=not dry_run)
    scores.require_registered(params.score.enabled)
    require_usable(params.ingest, seed=params.seed)
    if dry_run:
        _show_dry_run(params, max_workers, as_json=as_json)
        return
    from flows import start

    start.run(max_workers, publish=publish, ray=ray)
    _show_verdict(as_json=as_json)


def _params(source: str | None, text_field: str, *, is_written: bool) -> "Params":
    """Those of params.yaml, in which the source may be replaced, there or only here."""
    if source is not None:
        described = source_option.describe_source(source, text_field)
        if not is_written:
            return source_option.params_with(described)
        source_option.write_source(described)
    return project.load_params()


def _show_dry_run(params: "Params", max_workers: int | None, *, as_json: bool) -> None:
    from flows import dry_run

    found = dry_run.dry_run(params, max_workers)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo("\n".join(found.sentences()))


def _show_verdict(*, as_json: bool) -> None:
    from gdc.report.model import read_report, to_json
    from gdc.report.verdict import verdict
    from gdc.workspace import paths

    report = read_report()
    if as_json:
        print_json({"arms": to_json(report)["arms"]})
        return
    for heading, sentence in verdict(report).lines:
        typer.echo(f"{heading:13} {sentence}")
    if report.warnings:
        typer.echo(f"warnings      {len(report.warnings)}, at the top of the report")
    typer.echo(
        f"report        {paths.PAGE.resolve()}\ncurated data  {paths.CURATED_FOLDER.resolve()}"
    )
    typer.echo("more          gdc show (hotspots and arms), gdc ui (report and runs)")


@app.command()
def serve(
    cron: Annotated[
        str, typer.Option(help="Minute, hour, day, month and weekday of the runs.")
    ] = NIGHTLY,
    timezone: Annotated[str, typer.Option(help="Of the schedule, such as Europe/Berlin.")] = "UTC",
    publish: Annotated[
        bool, typer.Option(help="Push, commit and judge the result of every run.")
    ] = True,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a Prefect server that starts.")
    ] = 90.0,
) -> None:
    """Run the pipeline in this folder at the times of a schedule, until Ctrl-C."""
    require_sound()
    from flows import serve as schedule

    schedule.serve(cron, timezone=timezone, publish=publish, server_seconds=wait)


@app.command()
def leaderboard(
    num_models: Annotated[
        int, typer.Option(help="Half-models to train: an even number, at least 4.")
    ] = 16,
    max_workers: MaxWorkers = None,
    window_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a sample's worst window. Default: those of a secret."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare every score with memorization measured by half-models: reports/leaderboard.*."""
    require_address_space()
    project.require_workspace()
    from gdc.workspace import files, half_models

    run_lock.require_free()
    half_models.require_num_models(num_models)
    require_sound()
    from flows import leaderboard as flow

    flow.run(num_models, max_workers, window_tokens)
    if as_json:
        print_json(files.read_json(half_models.LEADERBOARD))
    else:
        typer.echo(files.read_text(half_models.TABLE))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage, or one cell of it: retrain@none-1.")],
) -> None:
    """Run one stage, if its inputs changed."""
    require_address_space()
    project.require_workspace()
    project.load_params()
    require_sound()
    from flows import single_stage

    raise SystemExit(single_stage.run(name))


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="docs, own-data, ...")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace params.yaml; keep a copy.")
    ] = False,
) -> None:
    """Write params.yaml from a preset, and make this folder a workspace if it is none."""
    from gdc.workspace import paths

    names = project.preset_names()
    if preset not in names:
        raise ConfigError(f"preset: expected one of {', '.join(names)}, got {preset!r}.")
    text = (resources.files("gdc") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    try:
        backup = project.init(text, force=force)
    except OSError as error:
        raise ConfigError(
            f"{Path.cwd()}: expected a folder to write into, got: {error.strerror}."
        ) from None
    if backup is not None:
        typer.echo(f"The {paths.PARAMS} that was here is now {backup}.")
    typer.echo(f"Wrote {paths.PARAMS} from preset {preset}. Next: gdc run")


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, help="Hotspots listed.")] = 20,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Arms and the paper's claims as Markdown instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the quadrants, what their axis is worth, and the worst hotspots of the last run."""
    from gdc.report import console
    from gdc.report.model import read_report, to_json

    report = read_report()
    findings = console.findings(report)
    if as_json:
        content = to_json(report)
        parts = {name: content[name] for name in ("quadrants", "calibration")}
        print_json({**parts, "hotspots": content["hotspots"][:limit], "findings": findings})
    elif markdown:
        typer.echo(console.markdown(report))
    else:
        console.render(console.quadrants_table(report))
        if report.calibration:
            typer.echo(report.calibration.verdict)
        console.render(console.hotspots_table(report, limit))
        console.render(console.arms_table(report))
        for sentence in findings:
            typer.echo(f"\n{sentence}")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the pages.")] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Serve the report, all texts and the runs of this folder until Ctrl-C, and open them."""
    from gdc.commands.ui import open_pages

    raise SystemExit(open_pages(port, str if no_open else webbrowser.open))
