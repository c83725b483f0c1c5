"""The ``gdc`` command. What is heavy is imported inside the command that needs it."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gdc.errors import ConfigError, DataError, GdcError

app = typer.Typer(
    help="Which training samples does my model memorize, what should I do, and did it work?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PARAMS: Final = Path("params.yaml")
GRAPH: Final = Path("dvc.yaml")
REPORT: Final = Path("reports/report.json")
PAGE: Final = Path("reports/report.html")
CURATED: Final = Path("data/curated")
# Digests of gdc's modules, for workspaces that do not hold its source.
CODE: Final = Path("code.json")
IGNORED: Final = (
    "/data/", "/lineage/", "/metrics/", "/reports/", "/work/", "/mlflow.db*", "/mlartifacts/",
)  # fmt: skip
# What a folder may hold, and the source that reads it.
FOLDERS: Final[Mapping[str, str]] = {"*.jsonl": "jsonl", "*.parquet": "parquet", "*.txt": "text"}
FILES: Final[Mapping[str, str]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
SERVER_SECONDS: Final = 60.0
# Seven worker processes for jobs that we never start.
SERVER_ENVIRONMENT: Final[Mapping[str, str]] = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main() -> None:
    """Run the command line; a user's mistake is one message and its exit code."""
    try:
        app()
    except GdcError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from None


# ---- commands


@app.command()
def run(
    source: Annotated[
        str | None, typer.Option(help="Your text: a file, a folder, or python-docs.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text.")] = "text",
    max_workers: Annotated[int | None, typer.Option(min=1, help="Models trained at once.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Push, commit and judge.")] = False,
) -> None:
    """Run the pipeline in this folder; what is up to date is not done again."""
    from gdc import console, store

    _require_workspace()
    if source is not None:
        write_source(describe_source(source, text_field))
    store.load_params()
    write_code_digests()
    options = ["--max-workers", str(max_workers)] if max_workers else []
    options += ["--publish"] if publish else []
    # -P: a folder called `flows` in the workspace must not take the place of ours.
    _start([sys.executable, "-P", "-m", "flows.curate", *options])
    console.render(console.arms_table(store.read_json(REPORT)))
    typer.echo(f"report        {PAGE.resolve()}\ncurated data  {CURATED.resolve()}")
    typer.echo("more          gdc show (hotspots), gdc ui (report and runs)")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="A stage, or one cell of it: retrain@none-1.")],
) -> None:
    """Run one stage, if its inputs changed."""
    _require_workspace()
    names = list(_read_yaml(GRAPH)["stages"])
    if name.partition("@")[0] not in names:
        raise ConfigError(f"stage: expected one of {', '.join(names)}, got {name!r}.")
    write_code_digests()
    _start([sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name])


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="docs, own-data, ...")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite params.yaml.")] = False,
) -> None:
    """Write params.yaml from a preset, and make this folder a workspace if it is none."""
    names = preset_names()
    if preset not in names:
        raise ConfigError(f"preset: expected one of {', '.join(names)}, got {preset!r}.")
    if PARAMS.exists() and not force:
        raise ConfigError(f"{PARAMS}: exists already. Add --force to overwrite it.")
    text = (files("gdc") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    PARAMS.write_text(text, encoding="utf-8")
    if not GRAPH.exists():
        make_workspace()
    typer.echo(f"Wrote {PARAMS} from preset {preset}. Next: gdc run")


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, help="Hotspots listed.")] = 20,
) -> None:
    """Print the quadrants and the worst hotspots of the last run."""
    from gdc import console, store

    report = store.read_json(REPORT)
    console.render(console.quadrants_table(report))
    console.render(console.hotspots_table(report, limit))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port of the MLflow pages.")] = 5000,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Open the report and serve the MLflow pages of this folder until Ctrl-C."""
    from gdc import tracking

    open_page = typer.echo if no_open else webbrowser.open
    if PAGE.exists():
        open_page(PAGE.resolve().as_uri())
    uri = tracking.tracking_uri()
    if uri.startswith("http"):
        open_page(uri)
        return
    _serve(uri, port, open_page)


# ---- gdc run --source


def describe_source(source: str, text_field: str) -> dict[str, Any]:
    """The value of ``ingest.source`` that reads a file or folder.

    Raises:
        DataError: Nothing is there, or nothing that can be read.
    """
    if source == "python-docs":
        return {"kind": "python-docs"}
    path = Path(source)
    if path.is_dir():
        kinds = [kind for pattern, kind in FOLDERS.items() if next(path.rglob(pattern), None)]
        found = f"a folder with {' and '.join(kinds) or 'none of them'}"
    else:
        kinds = [FILES[path.suffix.lower()]] if path.suffix.lower() in FILES else []
        found = f"{path.suffix or 'no suffix'}" if path.exists() else "nothing there"
    if not path.exists() or len(kinds) != 1:
        raise DataError(
            f"--source {source}: expected a file ({', '.join(FILES)}), a folder of one kind "
            f"({', '.join(FOLDERS)}) or python-docs, got {found}. Other sources: ingest.source "
            f"in {PARAMS}."
        )
    if kinds == ["text"]:
        return {"kind": "text", "path": source, "unit": "paragraph"}
    return {"kind": kinds[0], "path": source, "text_field": text_field, "key_field": None}


def write_source(source: Mapping[str, Any]) -> None:
    """Put ``source`` into params.yaml; every other line stays as it is, with its comments.

    Raises:
        ConfigError: The file would not be valid with it; it is left as it was.
    """
    from gdc import store
    from gdc.config import parse_params

    text = _read_text(PARAMS)
    spliced = splice_source(text, source)
    parse_params(_parse_yaml(spliced, PARAMS), name=str(PARAMS))
    if spliced != text:
        store.write_text(PARAMS, spliced)


def splice_source(text: str, source: Mapping[str, Any]) -> str:
    """Replace the block ``ingest.source`` of a params.yaml; keys that stay keep their comment."""
    from ruamel.yaml import YAML

    document = YAML().load(text)
    lines = text.splitlines()
    ingest = document["ingest"]
    row, column = ingest.lc.key("source")
    after = [ingest.lc.key(key)[0] for key in ingest] + [document.lc.key(k)[0] for k in document]
    end = min((other for other in after if other > row), default=len(lines))
    # The comments above the next key are its own.
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    comments = {line.split(":")[0].strip(): line for line in lines[row + 1 : end] if " #" in line}
    block = [lines[row] if lines[row].rstrip().endswith("source:") else f"{' ' * column}source:"]
    for key, value in source.items():
        entry = f"{' ' * (column + 2)}{key}: {_scalar(value)}"
        old = comments.get(key, "")
        block.append(f"{entry:{max(old.find(' #'), 0)}}{old[old.find(' #') :]}" if old else entry)
    return "\n".join([*lines[:row], *block, *lines[end:]]) + "\n"


# ---- gdc init


def preset_names() -> list[str]:
    """Names that ``gdc init`` knows."""
    folder = files("gdc") / "presets"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def make_workspace() -> None:
    """Make a folder without gdc's source a git and DVC workspace with our graph."""
    from ruamel.yaml import YAML

    graph = _read_yaml(_packaged_graph())
    for entry in graph["stages"].values():
        modules = [dep for dep in entry["deps"] if dep.startswith("gdc/")]
        entry["deps"] = [dep for dep in entry["deps"] if dep not in modules]
        entry.setdefault("params", []).append({str(CODE): [_code_key(m) for m in modules]})
    with GRAPH.open("w", encoding="utf-8") as file:
        YAML(typ="rt").dump(graph, file)
    write_code_digests()
    if not Path(".gitignore").exists():
        Path(".gitignore").write_text("\n".join(IGNORED) + "\n", encoding="utf-8")
    _init_git_and_dvc()


def write_code_digests() -> None:
    """Bring code.json up to date, so that a new version of gdc runs its changed stages again."""
    if CODE.name not in _read_text(GRAPH):
        return
    package = _package_root() / "gdc"
    digests = {
        _code_key(path.relative_to(package.parent).as_posix()): _digest(path)
        for path in package.rglob("*")
        if "__pycache__" not in path.parts
    }
    CODE.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _package_root() -> Path:
    return Path(__file__).resolve().parent.parent


def _packaged_graph() -> Path:
    installed = _package_root() / "gdc" / GRAPH
    return installed if installed.exists() else _package_root() / GRAPH


def _code_key(dependency: str) -> str:
    # A dot would be a level of the file for DVC.
    return dependency.removeprefix("gdc/").removesuffix(".py").replace(".", "_")


def _digest(path: Path) -> str:
    members = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = sha256()
    for member in members:
        if member.is_file() and "__pycache__" not in member.parts:
            digest.update(member.name.encode() + member.read_bytes())
    return digest.hexdigest()[:16]


def _init_git_and_dvc() -> None:
    program = shutil.which("git")
    options = ["--no-scm"]
    if program is not None:
        if _quiet([program, "rev-parse", "--git-dir"]) != 0:
            _quiet([program, "init"])
        options = [] if Path(".git").exists() else ["--subdir"]
    if not Path(".dvc").exists() and _quiet([sys.executable, "-m", "dvc", "init", *options]) != 0:
        raise ConfigError(f"{Path.cwd()}: `dvc init` failed. Run it by hand to see why.")


# ---- what we start


def _start(command: Sequence[str]) -> None:
    """Run a program to its end, and leave with its exit code if it failed."""
    from gdc import tracking

    process = subprocess.Popen(command, env=tracking.child_environment())  # noqa: S603  # no shell
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        code = _wait(process)
    except KeyboardInterrupt:
        # Ctrl-C reached it too, and it ends its stages before it stops.
        code = _wait(process)
    finally:
        signal.signal(signal.SIGTERM, before)
    if code != 0:
        raise SystemExit(code if code > 0 else 128 - code)


def _serve(uri: str, port: int, open_page: Callable[[str], object]) -> None:
    from gdc import tracking

    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**tracking.child_environment(), **SERVER_ENVIRONMENT}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
    try:
        if _answers(process, port):
            typer.echo(f"runs    {address}   (Ctrl-C ends)")
            open_page(address)
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


def _quiet(command: Sequence[str]) -> int:
    from gdc import tracking

    environment = tracking.child_environment()
    return subprocess.run(  # noqa: S603  # no shell, arguments are ours
        command, env=environment, capture_output=True, check=False
    ).returncode


# ---- files


def _require_workspace() -> None:
    for path in (PARAMS, GRAPH):
        if not path.exists():
            raise ConfigError(f"{path}: not found in {Path.cwd()}. Write it: gdc init docs")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found in {Path.cwd()}. Write it: gdc init docs") from None


def _parse_yaml(text: str, path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(value).__name__}")
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    return _parse_yaml(_read_text(path), path)


def _scalar(value: str | None) -> str:
    plain = value is not None and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    keyword = value is not None and value.lower() in ("null", "true", "false")
    return value if value is not None and plain and not keyword else json.dumps(value)
