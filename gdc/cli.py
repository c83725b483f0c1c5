"""The ``gdc`` command. What is heavy is imported inside the command that needs it."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import os
import signal
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gdc.environment import checkpoint_seconds, device, never_fail_to_print
from gdc.errors import EXIT_CODES, ConfigError, DataError, GdcError
from gdc.workspace import project, run_lock, source_option

if TYPE_CHECKING:
    from gdc.commands.plan import PlanSummary
    from gdc.report.map_report import MapReport

app = typer.Typer(
    help="Which training samples does my model memorize, what should I do, and did it work?",
    epilog="Exit codes: " + "; ".join(f"{code} {why}" for code, why in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

AUDIT: Final = Path("reports/audit")
MAP: Final = Path("reports/map")
NIGHTLY: Final = "0 3 * * *"

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead.")]
MaxWorkers = Annotated[int | None, typer.Option(min=1, help="Models trained at the same time.")]


def main() -> None:
    """Run the command line; a user's mistake is one message and its exit code."""
    never_fail_to_print()
    # Unless who started us has us ignore it. An exit tells no traceback, whatever is imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        _require_utf8(sys.argv[1:])
        app(prog_name="gdc")
    except GdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


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


def _print_json(value: object) -> None:
    # ASCII: an output that lacks a character gets an escape of JSON, not of Python.
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


# ---- commands


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one argument for each option
    source: Annotated[
        str | None, typer.Option(help="Your text: a file, a folder, or python-docs.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    max_workers: MaxWorkers = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Push the data, commit dvc.lock, judge the model.")
    ] = False,
    ray: Annotated[
        str | None, typer.Option(help="Train on a Ray cluster: its address, auto or local.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the pipeline in this folder; what is up to date is not done again."""
    from gdc import scores

    project.require_workspace()
    run_lock.require_free()
    # What a stage would refuse only after those before it.
    checkpoint_seconds()
    device()
    if source is not None:
        source_option.write_source(source_option.describe_source(source, text_field))
    scores.require_registered(project.load_params().score.enabled)
    from flows import curate

    curate.run(max_workers, publish=publish, ray=ray)
    _show_arms(as_json=as_json)


def _show_arms(*, as_json: bool) -> None:
    from gdc.report import console
    from gdc.report.model import read_report, to_json
    from gdc.workspace import paths

    report = read_report()
    if as_json:
        _print_json({"arms": to_json(report)["arms"]})
        return
    console.render(console.arms_table(report))
    typer.echo(
        f"report        {paths.PAGE.resolve()}\ncurated data  {paths.CURATED_FOLDER.resolve()}"
    )
    typer.echo("more          gdc show (hotspots), gdc ui (report and runs)")


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
    from gdc.workspace import files, half_models

    project.require_workspace()
    run_lock.require_free()
    half_models.require_num_models(num_models)
    from flows import leaderboard as flow

    flow.run(num_models, max_workers, window_tokens)
    if as_json:
        _print_json(files.read_json(half_models.LEADERBOARD))
    else:
        typer.echo(files.read_text(half_models.TABLE))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage, or one cell of it: retrain@none-1.")],
) -> None:
    """Run one stage, if its inputs changed."""
    project.require_workspace()
    project.load_params()
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
        _print_json({**parts, "hotspots": content["hotspots"][:limit], "findings": findings})
    elif markdown:
        typer.echo(console.markdown(report))
    else:
        console.render(console.quadrants_table(report))
        if report.calibration:
            typer.echo(report.calibration.verdict)
        console.render(console.hotspots_table(report, limit))
        for sentence in findings:
            typer.echo(f"\n{sentence}")


@app.command()
def plan(  # noqa: PLR0913, PLR0917 - one argument for each option
    arm: Annotated[
        str | None, typer.Argument(help="An arm; else the one that made the curated data.")
    ] = None,
    max_extraction: Annotated[
        float | None,
        typer.Option(help="Share of the planted secrets that may be extracted, 0 to 1."),
    ] = None,
    max_perplexity: Annotated[
        float | None,
        typer.Option(help="Percent that perplexity may rise over the arm that keeps all."),
    ] = None,
    map_folder: Annotated[
        Path | None, typer.Option("--map", help="What `gdc map` wrote: plan it by --rule.")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="top-fraction, random, quadrants, weight-by-score, dedup, cap-copies, mask-spans, "
            "shuffled or none."
        ),
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="The score that orders samples; else the axis of the map.")
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Share of the samples that are changed.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of the samples that are changed; 0, unless given, drops.")
    ] = None,
    max_copies: Annotated[int | None, typer.Option(help="Kept of a group of near copies.")] = None,
    of: Annotated[
        Path | None, typer.Option(help="The plan whose actions `shuffled` gives to others.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of random and shuffled.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the plan; else plan.parquet in the map's folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Plan what to do with each sample of a map; or print what an arm of the last run does.

    With --max-extraction and --max-perplexity: the plan of the last run that reaches both with the
    fewest samples changed.
    """
    if map_folder is not None:
        from gdc.commands import plan_map

        asked = plan_map.Request(rule or "", score, fraction, weight, max_copies, of, seed)
        path = out or map_folder / "plan.parquet"
        _show_summary(plan_map.plan_map(asked, map_folder, path), path, as_json=as_json)
        return
    if rule is not None or out is not None:
        raise ConfigError("gdc plan: --rule and --out are of a map: name its folder with --map.")
    if max_extraction is None and max_perplexity is None:
        _show_plan(arm, as_json=as_json)
        return
    if arm is not None or max_extraction is None or max_perplexity is None:
        raise ConfigError(
            "gdc plan: expected an arm, or both --max-extraction and --max-perplexity, got other "
            "arguments. Give one or the other."
        )
    _recommend(max_extraction, max_perplexity, as_json=as_json)


def _show_summary(summary: "PlanSummary", path: Path | None, *, as_json: bool) -> None:
    from gdc.commands import plan
    from gdc.report import console

    if as_json:
        _print_json(asdict(summary))
        return
    console.render(plan.plan_table(summary))
    if path is not None:
        typer.echo(f"plan          {path.resolve()}")


def _show_plan(arm: str | None, *, as_json: bool) -> None:
    from gdc.commands import plan

    _show_summary(plan.summarize_plan(project.load_params(), arm), None, as_json=as_json)


def _recommend(max_extraction: float, max_perplexity: float, *, as_json: bool) -> None:
    from gdc.comparison import recommendation
    from gdc.report.model import read_report

    target = recommendation.target_of(max_extraction, max_perplexity)
    found = recommendation.recommend(read_report().pareto_front, target)
    if as_json:
        _print_json(asdict(found) | {"target": target.model_dump()})
    else:
        typer.echo(found.sentence)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the pages.")] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Serve the report, all texts and the runs of this folder until Ctrl-C, and open them."""
    from gdc.commands.ui import open_pages

    raise SystemExit(open_pages(port, str if no_open else webbrowser.open))


@app.command()
def audit(  # noqa: PLR0913, PLR0917 - one argument for each option
    model: Annotated[str, typer.Option(help="A causal language model: a folder or a Hub name.")],
    corpus: Annotated[str, typer.Option(help="Text it was trained on: a file or folder.")],
    heldout: Annotated[
        str | None, typer.Option(help="Text of the same kind that it was not trained on.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Planted secrets and twins: Parquet or JSON lines.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub name; else the model's own.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    out: Annotated[Path, typer.Option(help="Folder of the tables and the report.")] = AUDIT,
    block_size: Annotated[
        int | None, typer.Option(min=2, help="Tokens of a window; else what the model sees.")
    ] = None,
    num_members: Annotated[int, typer.Option(min=1, help="Training texts asked at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of that choice and of intervals.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit any model and text, without the pipeline: tables and a report."""
    from gdc.commands import audit
    from gdc.report.model import to_json

    request = audit.Request(
        model=model,
        tokenizer=tokenizer or audit.tokenizer_of(model),
        corpus=source_option.source_of(corpus, text_field, "--corpus"),
        heldout=None
        if heldout is None
        else source_option.source_of(heldout, text_field, "--heldout"),
        canaries=canaries,
        block_size=block_size,
        seed=seed,
    )
    report = audit.run_audit(request, num_members, out)
    if as_json:
        _print_json(to_json(report))
        return
    for sentence in [*report.summary, *audit.findings(report), *report.warnings]:
        typer.echo(sentence)
    typer.echo(f"report        {(out / 'report.html').resolve()}")


@app.command()
def certify(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of an audit; else the run in this folder.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="A private key of OpenSSH, to sign with ssh-keygen.")
    ] = None,
) -> None:
    """Write a certificate: hashes of all that was audited, the results, how to repeat them."""
    from gdc.commands import audit_certificate, certificate, verification
    from gdc.workspace import signatures

    if key is not None:
        signatures.require_key(key)
    if folder is None:
        made, path = certificate.certificate_of_run(), certificate.RUN
    else:
        made = audit_certificate.certificate_of_audit(folder)
        path = folder / certificate.NAME
    verification.require_results(made)
    certificate.write(made, path)
    typer.echo(f"certificate   {path.resolve()}")
    if key is not None:
        typer.echo(f"signature     {signatures.sign(path, key).resolve()}")


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="What gdc certify wrote.")],
    signer: Annotated[
        Path | None, typer.Option(help="The public key that has to have signed it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a certificate: files against their hashes, the results against the tables.

    Run it in the folder in which the certificate was made, or in a clone of it with its data.
    """
    from gdc.commands import verification

    different, notes = verification.verify(certificate, signer)
    if as_json:
        _print_json({"differences": different, "notes": notes})
    else:
        for line in [*notes, *different]:
            typer.echo(line)
    if different:
        raise DataError(
            f"{certificate}: expected all as it was certified, got {len(different)} differences."
        )
    if not as_json:
        typer.echo("All files are as they were certified, and give the certified results.")


@app.command("map")
def map_trace(  # noqa: PLR0913, PLR0917 - one argument for each option
    trace: Annotated[Path, typer.Argument(help="A trace folder: losses of a run of yours.")],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = MAP,
    corpus: Annotated[
        str | None, typer.Option(help="The texts that it trained on; with them, a page is made.")
    ] = None,
    heldout: Annotated[
        str | None, typer.Option(help="The texts of the held-out losses in the trace.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="What `gdc plant` put into the training file.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    id_field: Annotated[
        str | None,
        typer.Option(help="The field with the ids of the trace; else id or row numbers."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The trained model: it says which canaries are memorized.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub name, for memorized spans.")
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="Score of the memorization axis; auto: as canaries say.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Samples listed.")] = 30,
    mode: Annotated[str | None, typer.Option(help="Checkpoints read: online or probe.")] = None,
    score: Annotated[
        list[str] | None, typer.Option(help="A further score of the losses; may be repeated.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare its files with their checksums.")] = False,
    ray: Annotated[
        str | None, typer.Option(help="Map shards on a Ray cluster: its address, auto or local.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score and map a trace, without the pipeline, by the rules of params.yaml.

    With --corpus: which samples are memorized, with texts, causes and a page. Without, the trace
    may be of any size.
    """
    from gdc.commands import map
    from gdc.workspace import traces

    if verify:
        told = f"{traces.verify(trace)} files are as they were written"
        typer.echo(told, err=as_json)
    scores = tuple(score or ())
    if corpus is None:
        given = {"--heldout": heldout, "--canaries": canaries, "--id-field": id_field}
        map.require_none({**given, "--model": model, "--tokenizer": tokenizer})
        _show_map(map.run(map.Request(trace, out, axis, mode, scores), ray), out, as_json=as_json)
        return
    from gdc.commands import map_corpus

    request = map_corpus.Request(
        trace=trace, corpus=corpus, heldout=heldout, canaries=canaries, text_field=text_field,
        id_field=id_field, axis=axis or "auto", mode=mode, scores=scores, model=model,
        tokenizer=tokenizer,
    )  # fmt: skip
    _show_corpus_map(map_corpus.run(request, out, limit, ray), out, limit, as_json=as_json)


def _show_map(summary: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        _print_json(summary)
        return
    for name, num_samples in summary["counts"].items():
        typer.echo(f"{name:<18} {num_samples:,}")
    for warning in summary["warnings"]:
        typer.echo(warning)
    for name in ("scores", "quadrants"):
        path = out / name
        typer.echo(f"{name:<13} {(path if path.is_dir() else out / f'{name}.parquet').resolve()}")


def _show_corpus_map(report: "MapReport", out: Path, limit: int, *, as_json: bool) -> None:
    from gdc.report import console

    if as_json:
        _print_json(report.model_dump(mode="json"))
        return
    for sentence in [*report.summary, *report.warnings]:
        typer.echo(sentence)
    console.render(console.highest_table(report, limit))
    typer.echo(f"report        {(out / 'report.html').resolve()}")
    typer.echo(f"samples       {(out / 'samples.parquet').resolve()}")
    typer.echo(f"next          gdc plan --map {out} --rule top-fraction --fraction 0.05")


@app.command()
def plant(  # noqa: PLR0913, PLR0917 - one argument for each option
    corpus: Annotated[Path, typer.Argument(help="Your training file: JSON lines.")],
    out: Annotated[Path, typer.Option(help="The training file with canaries.")],
    canaries: Annotated[
        Path, typer.Option(help="The Parquet file of the canaries and their twins.")
    ],
    families: Annotated[str, typer.Option(help="Of digits,words.")] = "digits,words",
    repeats: Annotated[str, typer.Option(help="Times that a canary is planted.")] = "1,4,16",
    per_level: Annotated[int, typer.Option(min=1, help="Canaries of each level and family.")] = 5,
    num_twins: Annotated[int, typer.Option(min=0, help="Of each family, never planted.")] = 100,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    id_field: Annotated[
        str | None, typer.Option(help="The field with the ids; else sample_id or id.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all choices.")] = 0,
    as_json: Json = False,
) -> None:
    """Put canaries into a training file, for a model that is trained elsewhere.

    The lines of the file stay as they are; the canaries follow them. Afterwards `gdc audit
    --canaries` says which the model knows, and `gdc map --canaries` which score finds them.
    """
    from gdc.commands import plant as planting

    done = planting.plant(
        planting.Request(
            corpus, out, canaries, planting.names_of(families), planting.numbers_of(repeats),
            per_level, num_twins, text_field, id_field, seed,
        )
    )  # fmt: skip
    if as_json:
        _print_json(planting.as_plain(done))
        return
    for sentence in planting.sentences(done):
        typer.echo(sentence)


@app.command()
def export(  # noqa: PLR0913, PLR0917 - one argument for each option
    plan: Annotated[Path, typer.Argument(help="What `gdc plan` wrote.")],
    corpus: Annotated[Path, typer.Argument(help="The mapped file: JSON lines or Parquet.")],
    out: Annotated[Path, typer.Option(help="The file to train on.")],
    removed: Annotated[
        Path | None, typer.Option(help="The file of what is left out; else beside --out.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="What `gdc plant` put into the file: left out.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    id_field: Annotated[
        str | None, typer.Option(help="The field with the ids; else sample_id, id or row numbers.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of the names of the fields that are added.")] = "",
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Write a row as often as it is to be trained on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write your own rows by a plan: with all their fields, and what to do with each.

    Added are weight, copies, masked (spans of characters) and reason. What is removed goes to a
    file of its own, with the kept row that it repeats.
    """
    from gdc.commands import export as exporting

    done = exporting.export(
        exporting.Request(
            plan, corpus, out, removed, canaries, text_field, id_field, prefix, repeat
        )
    )
    if as_json:
        _print_json(exporting.as_plain(done))
        return
    for sentence in exporting.sentences(done):
        typer.echo(sentence)


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
