"""The ``gdc`` command. What is heavy is imported inside the command that needs it."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gdc.environment import checkpoint_seconds, child_environment, device, never_fail_to_print
from gdc.errors import ConfigError, DataError, GdcError
from gdc.workspace import project, run_lock

app = typer.Typer(
    help="Which training samples does my model memorize, what should I do, and did it work?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AUDIT: Final = Path("reports/audit")
MAP: Final = Path("reports/map")
SERVER_SECONDS: Final = 60.0
STOPS: Final = (signal.SIGINT, signal.SIGTERM)
STOP_SECONDS: Final = 9.5  # a flow needs up to 8
WAIT_SECONDS: Final = 0.1
# Seven worker processes for jobs that we never start.
SERVER_ENVIRONMENT: Final[Mapping[str, str]] = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main() -> None:
    """Run the command line; a user's mistake is one message and its exit code."""
    never_fail_to_print()
    # Unless who started us has us ignore it. An exit tells no traceback, whatever is imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    try:
        _require_utf8(sys.argv[1:])
        app()
    except GdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


def _require_utf8(arguments: Sequence[str]) -> None:
    """Refuse a name that could stand in no file of ours; Python takes it in all the same."""
    for argument in arguments:
        shown = os.fsencode(argument).decode(errors="backslashreplace")
        if shown != argument:
            raise ConfigError(f"{shown}: expected a name in UTF-8, got other bytes. Rename it.")


# ---- commands


@app.command()
def run(
    source: Annotated[
        str | None, typer.Option(help="Your text: a file, a folder, or python-docs.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    max_workers: Annotated[int | None, typer.Option(min=1, help="Models trained at once.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Push, commit and judge.")] = False,
    ray: Annotated[
        str | None, typer.Option(help="Train on a Ray cluster: its address, auto or local.")
    ] = None,
) -> None:
    """Run the pipeline in this folder; what is up to date is not done again."""
    from gdc import scores
    from gdc.report import console
    from gdc.workspace import files, paths

    project.require_workspace()
    run_lock.require_free()
    # What a stage would refuse only after those before it.
    checkpoint_seconds()
    device()
    if source is not None:
        project.write_source(project.describe_source(source, text_field))
    scores.require_registered(project.load_params().score.enabled)
    options = ["--max-workers", str(max_workers)] if max_workers else []
    options += ["--publish"] if publish else []
    options += ["--ray", ray] if ray else []
    # -P: a folder called `flows` in the workspace must not take the place of ours.
    _start([sys.executable, "-P", "-m", "flows.curate", *options])
    console.render(console.arms_table(files.read_json(paths.REPORT)))
    typer.echo(
        f"report        {paths.PAGE.resolve()}\ncurated data  {paths.CURATED_FOLDER.resolve()}"
    )
    typer.echo("more          gdc show (hotspots), gdc ui (report and runs)")


@app.command()
def leaderboard(
    num_models: Annotated[
        int, typer.Option(help="Half-models to train: an even number, at least 4.")
    ] = 16,
    max_workers: Annotated[int | None, typer.Option(min=1, help="Models trained at once.")] = None,
) -> None:
    """Compare every score with memorization measured by half-models: reports/leaderboard.*."""
    from gdc.workspace import files, half_models

    project.require_workspace()
    run_lock.require_free()
    half_models.require_num_models(num_models)
    options = ["--num-models", str(num_models)]
    options += ["--max-workers", str(max_workers)] if max_workers else []
    # -P: a folder called `flows` in the workspace must not take the place of ours.
    _start([sys.executable, "-P", "-m", "flows.leaderboard", *options])
    typer.echo(files.read_text(half_models.TABLE))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage, or one cell of it: retrain@none-1.")],
) -> None:
    """Run one stage, if its inputs changed."""
    from gdc.workspace import dvc_files

    project.require_workspace()
    project.load_params()
    names = list(project.read_yaml(project.GRAPH)["stages"])
    phase = name.partition("@")[0]
    if phase not in names:
        raise ConfigError(f"stage: expected one of {', '.join(names)}, got {name!r}.")
    targets = [name]
    if phase in project.edited_stages():
        # It brings the digests of the code up to date.
        targets.insert(0, "manifest")
    if told := dvc_files.mend():
        typer.echo(told, err=True)
    try:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
        _start([*command, *targets], guarded=True)
    finally:
        dvc_files.keep_copy()


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
) -> None:
    """Print the quadrants, what their axis is worth, and the worst hotspots of the last run."""
    from gdc.report import console

    # Nothing is printed of a report that lacks something.
    with _report() as report:
        tables = console.quadrants_table(report), console.hotspots_table(report, limit)
        verdict, findings = report["calibration"]["verdict"], console.findings(report)
        text = console.markdown(report)
    if markdown:
        typer.echo(text)
        return
    console.render(tables[0])
    typer.echo(verdict)
    console.render(tables[1])
    for sentence in findings:
        typer.echo(f"\n{sentence}")


@app.command()
def recommend(
    max_extraction: Annotated[
        float, typer.Option(help="Share of the planted secrets that may be extracted, 0 to 1.")
    ],
    max_perplexity: Annotated[
        float, typer.Option(help="Percent that perplexity may rise over the arm that keeps all.")
    ],
) -> None:
    """Name the plan of the last run that reaches a target with the fewest samples changed."""
    from gdc.comparison import recommendation

    target = recommendation.target_of(max_extraction, max_perplexity)
    with _report() as report:
        typer.echo(recommendation.recommend(report["front"], target)["sentence"])


@contextmanager
def _report() -> Iterator[dict[str, Any]]:
    """The report of the last run; what it lacks becomes a ``DataError``."""
    from rich.errors import ConsoleError

    from gdc.workspace import files, paths

    report = files.read_json(paths.REPORT)
    try:
        yield report
    except KeyError as error:
        raise DataError(
            f"{paths.REPORT}: expected key {error}, got a report of an older version. "
            "Make it again: gdc run."
        ) from None
    except GdcError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        ConsoleError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(
            f"{paths.REPORT}: expected a report as gdc run writes it, got {type(error).__name__}: "
            f"{error}. Make it again: gdc run."
        ) from None


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port of the MLflow pages.")] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Open the report and serve the MLflow pages of this folder until Ctrl-C."""
    from gdc.workspace import paths, tracking

    open_page = typer.echo if no_open else webbrowser.open
    if paths.PAGE.exists():
        open_page(paths.PAGE.resolve().as_uri())
    uri = tracking.tracking_uri()
    if uri.startswith("http"):
        open_page(uri)
        return
    _serve(uri, port, open_page)


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
) -> None:
    """Audit any model and text, without the pipeline: tables and a report."""
    from gdc.commands import audit

    request = audit.Request(
        model=model,
        tokenizer=tokenizer or audit.tokenizer_of(model),
        corpus=project.source_of(corpus, text_field, "--corpus"),
        heldout=None if heldout is None else project.source_of(heldout, text_field, "--heldout"),
        canaries=canaries,
        block_size=block_size,
        seed=seed,
    )
    built = audit.run_audit(request, num_members, out)
    for sentence in [*built["summary"], *audit.findings(built), *built["warnings"]]:
        typer.echo(sentence)
    typer.echo(f"report        {(out / 'report.html').resolve()}")


@app.command("map")
def map_trace(  # noqa: PLR0913, PLR0917 - one argument for each option
    trace: Annotated[Path, typer.Argument(help="A trace folder: losses of a run of yours.")],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = MAP,
    mode: Annotated[str | None, typer.Option(help="Checkpoints read: online or probe.")] = None,
    score: Annotated[
        list[str] | None, typer.Option(help="A further score of the losses; may be repeated.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare its files with their checksums.")] = False,
    ray: Annotated[
        str | None, typer.Option(help="Map shards on a Ray cluster: its address, auto or local.")
    ] = None,
) -> None:
    """Score and map a trace of any size, without the pipeline, by the rules of params.yaml."""
    from gdc.commands import map
    from gdc.workspace import ray_cluster, traces

    params = project.params_or_preset("docs")
    rules = params.score.model_copy(
        update={"enabled": tuple(score or ()), "mode": mode or params.score.mode}
    )
    if verify:
        typer.echo(f"{traces.verify(trace)} files are as they were written")
    if ray is None:
        summary = map.map_trace(trace, out, rules, params.partition)
    else:
        with ray_cluster.connected(ray):
            summary = map.map_on_cluster(trace, out, rules, params.partition)
    for name, num_samples in summary["counts"].items():
        typer.echo(f"{name:<18} {num_samples:,}")
    for warning in summary["warnings"]:
        typer.echo(warning)
    ending = "" if ray else ".parquet"
    typer.echo(f"scores        {(out / f'scores{ending}').resolve()}")
    typer.echo(f"quadrants     {(out / f'quadrants{ending}').resolve()}")


# ---- what we start


def _start(command: Sequence[str], *, guarded: bool = False) -> None:
    """Run a program to its end, and leave with its exit code if it failed.

    Args:
        command: Its command line.
        guarded: Under ``tasks.guard``, which ends all that the program starts.
    """
    stops: list[int] = []
    before = [(number, signal.getsignal(number)) for number in STOPS]
    # It, and what it starts, never meets Ctrl-C: we ask it by SIGTERM, which it may expect or not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if guarded:
        # -P: a folder called `tasks` in the workspace must not take the place of ours.
        command = [sys.executable, "-P", "-m", "tasks.guard", *command]
    process = subprocess.Popen(  # noqa: S603  # no shell
        command,
        env=child_environment(),
        stdin=subprocess.PIPE if guarded else None,
        start_new_session=guarded,
    )
    for number in STOPS:
        signal.signal(number, lambda number, _: stops.append(number))
    try:
        code = _wait_or_stop(process, stops)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if code != 0:
        raise SystemExit(128 + stops[0] if stops else code if code > 0 else 128 - code)


def _wait_or_stop(process: subprocess.Popen[bytes], stops: Sequence[int]) -> int:
    while not stops and process.poll() is None:
        time.sleep(WAIT_SECONDS)
    process.terminate()
    try:
        return process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # A guard stands over what a flow started; one that is killed itself takes its group along.
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        return process.wait()


def _serve(uri: str, port: int, open_page: Callable[[str], object]) -> None:
    from gdc.workspace import tracking

    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**child_environment(), **SERVER_ENVIRONMENT}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
    try:
        if _answers(process, port):
            # Its front page is for something else.
            page = f"{address}/#/experiments/{tracking.experiment_id()}/runs"
            typer.echo(f"runs    {page}   (Ctrl-C ends)")
            open_page(page)
        code = _wait(process)
    except KeyboardInterrupt:
        code = 0
    finally:
        # The server's own children outlive it otherwise.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        _wait(process)
    raise SystemExit(code)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        # In short steps: a Ctrl-C that a thread of polars gets would not end a long wait.
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.2)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + SERVER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.2)
    return False
