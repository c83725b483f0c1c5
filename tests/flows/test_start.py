"""What `gdc run` does before any flow: look whether anything has changed."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from flows import curate, start
from gdc.stages import manifest
from gdc.workspace import paths

pytestmark = pytest.mark.slow

SOURCE = "{kind: jsonl, path: my.jsonl, text_field: text, key_field: null}"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which manifest has run over one file."""
    monkeypatch.chdir(tmp_path)
    preset = (resources.files("gdc") / "presets" / "docs.yaml").read_text(encoding="utf-8")
    before, _, after = preset.partition("  source:\n")
    rest = after.partition("  max_samples:")
    Path("params.yaml").write_text(f"{before}  source: {SOURCE}\n{rest[1]}{rest[2]}")
    Path("my.jsonl").write_text('{"text": "a"}\n')
    manifest.main()
    return tmp_path


def test_what_manifest_has_written_is_current_until_something_changes(recorded: Path) -> None:
    assert start.first_is_current()
    (recorded / "my.jsonl").write_text('{"text": "b"}\n')
    assert not start.first_is_current()
    manifest.main()
    assert start.first_is_current()
    code = paths.CODE.read_text()
    paths.CODE.write_text(code.replace('"ingest": "', '"ingest": "0'))
    assert not start.first_is_current()


@pytest.mark.parametrize("lost", ["my.jsonl", "data/manifest.json"])
def test_what_manifest_could_not_do_or_has_not_done_is_left_to_it(
    recorded: Path, lost: str
) -> None:
    (recorded / lost).unlink()
    assert not start.first_is_current()


def test_code_of_the_workspace_itself_is_left_to_the_stage(recorded: Path) -> None:
    (recorded / "gdc").mkdir()
    assert not start.first_is_current()


@pytest.mark.parametrize(
    ("changed", "publish", "expected"),
    [
        pytest.param(set(), False, [], id="nothing changed"),
        pytest.param(set(), True, [[]], id="nothing changed, but it is to be published"),
        pytest.param({"train@0"}, False, [["train@0"]], id="a stage changed"),
        pytest.param({"manifest", "a"}, False, [None], id="a parameter of manifest changed"),
    ],
)
def test_a_flow_runs_only_where_something_is_to_do(
    recorded: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: set[str],
    publish: bool,
    expected: list[object],
) -> None:
    runs: list[object] = []
    monkeypatch.setattr(curate, "run", lambda *_, changed, **__: runs.append(changed))
    monkeypatch.setattr(start, "changed_targets", lambda: frozenset(changed))
    (recorded / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    start.run(publish=publish)
    assert runs == expected


def test_a_run_whose_end_mlflow_lacks_is_recorded_though_nothing_changed(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[object] = []
    monkeypatch.setattr(curate, "run", lambda *_, changed, **__: runs.append(changed))
    monkeypatch.setattr(start, "changed_targets", frozenset)
    (recorded / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    paths.UNRECORDED.touch()
    start.run()
    assert runs == [[]]


def test_it_imports_nothing_that_takes_seconds() -> None:
    program = "import sys, flows.start, gdc.report.verdict; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"prefect", "dvc", "mlflow", "torch", "scipy.stats"} & {*done.stdout.split()}
