"""The command line: what it starts, what it prints, how it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import dry_run, start
from gdc.commands import ui
from gdc.comparison.results import FrontPoint
from gdc.config import Params
from gdc.errors import EXIT_CODES
from gdc.report import verdict
from gdc.statistics.bootstrap import Measured
from gdc.workspace import files, mlflow_store, paths, run_lock
from gdc.workspace.code_digests import code_digests
from gdc.workspace.project import TEMPORARIES
from tasks import guard
from tests.builders import (
    OWN_TEXTS,
    REPOSITORY,
    Call,
    command_line,
    free_port,
    preset_text,
    stopped_by_ctrl_c,
)
from tests.report.builders import params_of, report_of, tables_of


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is no DVC workspace yet, as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def call(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Run the command line in the workspace: exit code, output, errors."""
    assert workspace.is_dir()
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(("seed: 0 ", "seed: 0\t"), "that can be replaced", id="a tab at an end"),
        pytest.param(("seed: 0 ", "\tseed: 0 "), "not valid YAML", id="a tab before a key"),
        pytest.param(("seed: 0 ", "seed: 0\nseed: 0 "), "not valid YAML", id="a key twice"),
        pytest.param(("\nmodel:", "\n---\nmodel:"), "not valid YAML", id="two documents"),
        pytest.param(("ingest:", "ingst:"), "ingest: Field required", id="a misspelt section"),
        pytest.param(("  source:", "  origin:"), "ingest.origin: Extra", id="another block"),
        pytest.param(("kind: lstm ", 'kind: "\\q" '), "not valid YAML", id="a bad escape"),
    ],
)
def test_params_that_cannot_be_edited_are_left_and_said_to_be_so(
    workspace: Path,
    call: Call,
    change: tuple[str, str],
    message: str,
) -> None:
    broken = preset_text("docs").replace(*change, 1)
    assert broken != preset_text("docs")
    (workspace / "params.yaml").write_text(broken)
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    (workspace / "mine.jsonl").touch()
    code, _, errors = call("run", "--source", "mine.jsonl")
    assert code == 2
    assert errors.startswith("error: params.yaml: ")
    assert message in errors
    assert (workspace / "params.yaml").read_text() == broken


def test_a_name_that_is_not_utf8_is_refused_by_its_bytes(
    call: Call,
) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    Path(name).touch()
    assert call("run", "--source", name)[2] == (
        "error: caf\\xe9.jsonl: expected a name in UTF-8, got other bytes. Rename it.\n"
    )


def test_run_writes_the_source_starts_the_flow_and_says_what_came_out(
    workspace: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    (workspace / "mine.jsonl").write_text('{"body": "a text"}\n')
    (workspace / "work").mkdir()  # a run was here
    files.write_json(paths.REPORT, report_of(tables_of(), params_of()))
    started: list[object] = []
    monkeypatch.setattr(start, "run", lambda *given, **named: started.append((given, named)))
    lines = (("Found", "2 texts"), ("Next", "read them"))
    monkeypatch.setattr(verdict, "verdict", lambda _report: SimpleNamespace(lines=lines))
    code, output, _ = call("run", "--source", "mine.jsonl", "--text-field", "body",
                           "--max-workers", "2", "--publish")  # fmt: skip
    assert code == 0
    assert started == [((2,), {"publish": True, "ray": None})]
    assert files.load_params().ingest.source.model_dump() == {**OWN_TEXTS, "path": "mine.jsonl"}
    assert output.startswith("Found         2 texts\nNext          read them\n")
    assert len(output.splitlines()) <= 8
    assert str(workspace / "reports" / "report.html") in output


def test_a_dry_run_over_a_source_looks_at_it_and_writes_nothing(
    workspace: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    (workspace / "mine.jsonl").write_text('{"body": "a text"}\n')
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    asked: list[dict[str, object]] = []

    def see(params: Params, _max_workers: int | None) -> dry_run.DryRun:
        asked.append(params.ingest.source.model_dump())
        return dry_run.DryRun([], None, None)

    monkeypatch.setattr(dry_run, "dry_run", see)
    options = ("--source", "mine.jsonl", "--text-field", "body")
    assert call("run", "--dry-run", *options)[0] == 0
    assert asked == [{**OWN_TEXTS, "path": "mine.jsonl"}]
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before


def test_a_source_that_is_away_is_refused_before_anything_starts(
    workspace: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "run", lambda *_, **__: pytest.fail("a run was started"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    source = "kind: jsonl\n    path: away.jsonl\n    text_field: text\n    key_field: null"
    params = preset_text("docs").replace("kind: python-library", source)
    (workspace / "params.yaml").write_text(params)
    code, _, errors = call("run")
    assert code == 2
    assert errors.startswith("error: ingest.source.path: expected a file or folder, got 'away.json")
    os.mkfifo("away.jsonl")
    code, _, errors = call("run")
    assert code == 2
    assert errors.startswith("error: away.jsonl: expected a")
    Path("away.jsonl").unlink()
    Path("away.jsonl").write_text('{"body": "a text"}\n')
    code, _, errors = call("run")
    assert code == 2
    assert errors.startswith("error: ingest.source.text_field: expected field 'text' in away.json")


def test_run_checks_params_before_anything_starts(workspace: Path, call: Call) -> None:
    (workspace / "params.yaml").write_text("seed: 0\n")
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    for command in (("run",), ("stage", "retrain")):
        code, output, errors = call(*command)
        assert (code, output) == (2, "")
        assert errors.startswith("error: params.yaml")


@pytest.mark.parametrize("command", [("run",), ("stage", "score")])
def test_a_folder_that_is_no_workspace_is_refused(call: Call, command: tuple[str, ...]) -> None:
    code, _, errors = call(*command)
    assert code == 2
    assert re.fullmatch(r"error: params\.yaml: not found in .*: gdc init docs\n", errors)


@pytest.mark.parametrize(("of_dvc", "code"), [(0, 0), (255, 1), (130, 130), (143, 143)])
def test_a_stage_that_fails_ends_with_the_exit_code_that_the_help_names(
    of_dvc: int, code: int, workspace: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    monkeypatch.setattr(guard, "run", lambda *_: of_dvc)
    assert call("stage", "score")[0] == code
    assert code in EXIT_CODES


def test_a_stage_is_started_by_its_name_or_the_names_are_told(
    workspace: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    started: list[Sequence[str]] = []

    def take(command: Sequence[str], _environment: object) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(guard, "run", take)
    assert call("stage", "retrain@none-1")[0] == 0
    repro = ["dvc", "--wait-for-lock", "repro", "--single-item"]
    # Of code that is not known `manifest` takes the digests first.
    assert started[-1][2:] == [*repro, "manifest", "retrain@none-1"]
    files.write_json(paths.CODE, code_digests() | {"score": "other"})
    assert call("stage", "retrain@none-1")[0] == call("stage", "score")[0] == 0
    assert started[-2][2:] == [*repro, "retrain@none-1"]
    assert started[-1][2:] == [*repro, "manifest", "score"]
    code, _, errors = call("stage", "retrian")
    assert code == 2
    assert re.fullmatch(r"error: stage: expected one of .*, retrain, .*, got 'retrian'\.\n", errors)


def test_init_lists_its_presets_and_overwrites_only_when_told(workspace: Path, call: Call) -> None:
    assert "expected one of budgets, budgets-text, docs, " in call("init", "nope")[2]
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    edited = preset_text("docs").replace("seed: 0 ", "seed: 7 ")
    (workspace / "params.yaml").write_text(edited)
    code, _, errors = call("init", "own-data")
    assert (code, errors) == (
        2,
        "error: params.yaml: exists already. Add --force to replace it; a copy is kept.\n",
    )
    assert (workspace / "params.yaml").read_text() == edited
    for copy, former in (("params.yaml.bak", edited), ("params.yaml.bak1", preset_text("docs"))):
        preset = {edited: "docs", preset_text("docs"): "own-data"}[former]
        code, output, _ = call("init", preset, "--force")
        assert code == 0
        assert output.splitlines()[0] == f"The params.yaml that was here is now {copy}."
        assert (workspace / copy).read_text() == former
        assert (workspace / "params.yaml").read_text() == preset_text(preset)


@pytest.mark.slow
def test_init_makes_an_empty_folder_a_workspace_whose_stages_know_their_code(
    workspace: Path, call: Call
) -> None:
    assert call("init", "docs")[0] == 0
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, check=True
    )
    changes = json.loads(status.stdout)
    assert set(changes) >= {"manifest", "ingest", "train@0", "retrain@none-1", "report"}
    # `new`: a dependency that is there and was not recorded; a missing one would be `deleted`.
    assert changes["manifest"][0]["changed deps"] == {"params.yaml": "new"}
    assert changes["score"][0]["changed deps"]["data/code/score.json"] == "deleted"
    assert (workspace / ".git").is_dir()
    assert "/.mlflow.db*" in (workspace / ".gitignore").read_text().splitlines()
    assert (workspace / ".dvcignore").read_text().splitlines()[-1] == TEMPORARIES
    deployment = (REPOSITORY / "prefect.yaml").read_bytes()
    assert (workspace / "prefect.yaml").read_bytes() == deployment


def test_show_without_a_report_says_what_to_run(
    call: Call,
) -> None:
    code, _, errors = call("show")
    assert (code, errors) == (
        2,
        "error: reports/report.json: not found. Run the stage that writes it: gdc run.\n",
    )


TARGET = ("plan", "--max-extraction", "0.1", "--max-perplexity", "0.5")


def test_a_recommendation_is_read_off_the_last_report(
    call: Call,
) -> None:
    point = FrontPoint(
        arm="top",
        rule="top-fraction",
        series=None,
        fraction=0.1,
        num_changed=3,
        num_dropped=3,
        perplexity_change=Measured(0.0, 0.0, 0.0, 5),
        extraction=Measured(0.0, 0.0, 0.0, 5),
        is_baseline=False,
        is_on_front=True,
    )
    report = report_of(tables_of(), params_of()) | {"pareto_front": [asdict(point)]}
    files.write_json(paths.REPORT, report)
    code, output, _ = call(*TARGET)
    assert code == 0
    assert output.startswith(
        "Extraction of at most 10 % at a perplexity of at most +0.5 %: the cheapest plan shown to "
        "reach it is top (samples changed: 3, dropped: 3;"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((), "reports/report.json: not found. Run the stage", id="no report"),
        pytest.param(
            ("--max-extraction", "10"),
            "--max-extraction: expected a share in [0, 1], got 10.0.",
            id="a percentage for a share",
        ),
        pytest.param(
            ("--max-perplexity", "nan"),
            "--max-perplexity: expected a percentage of at least 0, got nan.",
            id="no number",
        ),
    ],
)
def test_a_recommendation_that_cannot_be_made_says_why(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    code, output, errors = call(*TARGET, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"error: {message}")


def test_a_report_of_an_older_version_is_not_read(
    call: Call,
) -> None:
    report = report_of(tables_of(), params_of())
    del report["schema_version"]
    files.write_json(paths.REPORT, report)
    for command in (TARGET, ("show",), ("show", "--markdown")):
        code, output, errors = call(*command)
        assert (code, output) == (2, "")
        assert errors == (
            "error: reports/report.json: expected a report of version 1, got one of an older "
            "version. Make it again: gdc run.\n"
        )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('{"schema_version": 1, "quadrants": null, "curated": null}', id="null"),
        pytest.param('{"schema_version": 1, "quadrants": [], "curated": "x"}', id="other types"),
        pytest.param(
            '{"schema_version": 1, "pareto_front": [{"extraction": {"high": "x"}}]}',
            id="other types deeper down",
        ),
        pytest.param('{"a": ' * 100_000, id="deep nesting"),
        pytest.param('{"pareto_front": ' + "9" * 5000 + "}", id="a number of 5000 digits"),
    ],
)
def test_a_report_of_other_types_is_one_message(call: Call, content: str) -> None:
    files.write_text(paths.REPORT, content)
    for command in (TARGET, ("show",), ("show", "--markdown")):
        code, output, errors = call(*command)
        assert (code, output) == (2, "")
        assert re.match(r"error: reports/report\.json: .*Make it again: gdc run\.$", errors)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GDC_DEVICE", "junk"),
        ("GDC_CHECKPOINT_SECONDS", "abc"),
        ("MLFLOW_TRACKING_URI", "http://me:pa/ss@127.0.0.1:5000"),
        ("MLFLOW_TRACKING_URI", "http://[::1"),
        ("PREFECT_API_URL", "http://me:pa#ss@127.0.0.1:4200/api"),
        ("PREFECT_API_URL", "http://127.0.0.1:99999/api"),
    ],
)
def test_run_checks_the_environment_before_anything_starts(
    workspace: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    monkeypatch.setattr(start, "run", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setenv(variable, value)
    code, _, errors = call("run")
    assert code == 2
    assert errors.startswith(f"error: {variable}: expected ")


def test_ctrl_c_ends_a_command_that_still_imports_without_a_traceback(tmp_path: Path) -> None:
    program = (
        "import sys, time; from gdc import cli; from gdc.workspace import project\n"
        "project.require_workspace = lambda: (print(flush=True), time.sleep(60))\n"
        "sys.argv = ['gdc', 'run']; cli.main()"
    )
    assert stopped_by_ctrl_c(program, tmp_path) == (128 + signal.SIGINT, b"")


def test_a_second_run_in_a_folder_is_refused_at_once(workspace: Path, call: Call) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    with run_lock.hold_folder():
        code, output, errors = call("run", "--source", "python-docs")
    assert (code, output) == (75, "")
    assert f"only run in this folder, got process {os.getpid()} here too" in errors
    assert (workspace / "params.yaml").read_text() == preset_text("docs")


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    program = (
        "import sys, gdc.cli\n"
        "print(*{'polars', 'mlflow', 'torch', 'ruamel', 'prefect', 'dvc'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b""


def status_of(port: int) -> int:
    with closing(HTTPConnection("127.0.0.1", port)) as server:
        server.request("GET", "/")
        return server.getresponse().status


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
def test_a_new_database_of_runs_is_whole_before_a_server_opens_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def server(_uri: str) -> None:
        assert mlflow_store.has_database_file()
        mlflow_store.require_database()
        raise InterruptedError

    monkeypatch.setattr(ui, "STOPS", ())
    monkeypatch.setattr(ui, "_runs_server", server)
    port = free_port()
    with pytest.raises(InterruptedError):
        ui.open_pages(port, str)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux heeds ulimit -v")
@pytest.mark.parametrize(
    ("command", "limit"), [("run", 262144), ("leaderboard", 262144), ("stage train", 3145728)]
)
def test_too_little_memory_for_a_run_is_told_before_a_library_is_loaded(
    command: str, limit: int, workspace: Path
) -> None:
    program = f'ulimit -v {limit}; exec "$@"'
    gdc = [sys.executable, "-c", "from gdc.cli import main; main()", *command.split()]
    done = subprocess.run(
        ["sh", "-c", program, "sh", *gdc],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    told = rf"error: ulimit -v: .* 4194304 KB .* got {limit}\. Raise .*\n"
    assert re.fullmatch(told, done.stderr)


@pytest.mark.slow
def test_the_pages_are_served_until_ctrl_c(workspace: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", "from gdc.cli import main; main()"]
    pages = [*command, "ui", "--no-open", "--port", str(port)]
    with subprocess.Popen(pages, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = next(line for line in process.stdout if line[:4] == "runs")
            assert f"http://127.0.0.1:{port}" in told
            assert status_of(port) == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=300) == 0
        finally:
            process.kill()
    with pytest.raises(ConnectionRefusedError):
        status_of(port)
    assert (workspace / "mlflow.db").exists()
