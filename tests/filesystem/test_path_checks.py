"""Paths of the user's are taken as they are: no pattern, no address, no home folder, no pipe."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from gdc.cli import app
from gdc.commands.map import map_trace
from gdc.errors import ConfigError, DataError
from gdc.filesystem import table_files
from gdc.filesystem.path_checks import overlapping, require_file
from gdc.workspace import files, tables
from tests.builders import REPOSITORY, trace_of, write_trace
from tests.mapping.builders import absolute
from tests.mapping.builders import config as cuts
from tests.scores.builders import config as rules

ODD_NAMES = ("r[1]", "r*", "r?", "~", "~r", "r{1,2}", "a%20b#c&d é;$(x)")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- names that mean something to others


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_is_read_by_its_name_whatever_lies_beside_it(name: str) -> None:
    others = pl.DataFrame({"n": [2]})
    own = pl.DataFrame({"n": [1]})
    for folder, table in (("r1", others), ("r2", others), (name, own)):
        tables.write_table(Path(folder, "t.parquet"), table, table.schema)
        Path(folder, "t.jsonl").write_text(f'{{"n": {table["n"][0]}}}\n')
    assert_frame_equal(table_files.read_parquet(Path(name, "t.parquet")), own)
    assert_frame_equal(table_files.scan_parquet(Path(name, "t.parquet")).collect(), own)
    assert_frame_equal(table_files.read_ndjson(Path(name, "t.jsonl")), own)
    assert sorted(path.name for path in Path(name).iterdir()) == ["t.jsonl", "t.parquet"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_trace_is_mapped_by_its_name_into_a_folder_by_its_name(name: str) -> None:
    found = {}
    for folder, losses in (("r1", [8.0, 6.0]), (name, [4.0, 2.0])):
        write_trace(7, trace_of({"a": losses, "b": [1.0, 1.0]}))
        Path("data/trace/7").rename(folder)
        split = cuts(absolute(3.0), absolute(0.1))
        score = rules(enabled=("memorization",))
        found[folder] = map_trace(Path(folder), Path(f"out {folder}"), score, split)
    assert table_files.read_parquet(Path(f"out {name}", "scores.parquet"))["difficulty"][0] == 4.0
    assert sum(found[name].counts.values()) == 2


def test_a_path_below_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError):
        require_file(tmp_path / "file/report.json")


def test_one_module_opens_tables() -> None:
    """Of polars' functions every one takes a path for a pattern unless it is told not to."""
    opening = re.compile(r"\bpl\.(read|scan)_\w+\(")
    modules = [
        path for name in ("gdc", "tasks", "flows") for path in Path(REPOSITORY, name).rglob("*.py")
    ]
    found = {
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in modules
        for line in path.read_text(encoding="utf-8").splitlines()
        if opening.search(line)
    }
    assert found == {
        "gdc/filesystem/table_files.py: return pl.read_parquet(path.absolute(), glob=False)",
        "gdc/filesystem/table_files.py: "
        "return pl.scan_parquet([path.absolute() for path in paths], glob=False)",
        "gdc/filesystem/table_files.py: return pl.scan_ipc(path.absolute(), glob=False)",
        "gdc/filesystem/table_files.py: return pl.read_ndjson(file)",
        "gdc/filesystem/table_files.py: return pl.read_csv(file, infer_schema_length=None)",
    }


@pytest.mark.slow
def test_runs_are_recorded_in_a_workspace_of_any_name(workspace: Path) -> None:
    name = "100% #1 é[1]&= a%20b what?"
    folder = workspace / "parent" / name
    folder.mkdir(parents=True)
    program = (
        "from pathlib import Path\n"
        "from gdc.workspace import tracking\n"
        "Path('note.txt').write_text('hello')\n"
        "with tracking.parent_run('first', {}) as run:\n"
        "    run.log_artifact(Path('note.txt'))\n"
        "print(run.run_id)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder, env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("select name, status from runs").fetchall() == [
            ("first", "FINISHED")
        ]
    note = folder / "mlartifacts" / done.stdout.strip() / "artifacts/note.txt"
    assert note.read_text() == "hello"
    # Nothing was made anywhere else.
    assert [path.name for path in (workspace / "parent").iterdir()] == [name]
    assert [path.name for path in workspace.iterdir()] == ["parent"]


# ---- what never ends


def fifo(path: Path) -> None:
    os.mkfifo(path)


ODD_KINDS: dict[str, Callable[[Path], None]] = {
    "a named pipe": fifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", ODD_KINDS)
def test_what_is_no_regular_file_is_not_opened(kind: str) -> None:
    path = Path("x.parquet")
    ODD_KINDS[kind](path)
    expected = rf"x\.parquet: expected a regular file, got {kind}\. Save its content"
    for read in (require_file, table_files.read_parquet, table_files.scan_parquet,
                 table_files.read_ndjson,
                 files.read_json, table_files.checksum):  # fmt: skip
        with pytest.raises(DataError, match=expected):
            read(path)
    with pytest.raises(ConfigError, match=rf"x\.parquet: expected a file, got {kind}"):
        files.read_text(path)


def test_a_trace_with_a_pipe_in_it_is_refused() -> None:
    folder = write_trace(7, trace_of({"a": [4.0, 2.0], "b": [1.0, 1.0]}))
    Path(folder, "train/loss_001.parquet").unlink()
    fifo(Path(folder, "train/loss_001.parquet"))
    done = CliRunner().invoke(app, ["map", str(folder)])
    assert isinstance(done.exception, DataError)
    assert "loss_001.parquet: expected a regular file, got a named pipe" in str(done.exception)


# ---- what lies in what


@pytest.mark.parametrize(
    ("path", "found"),
    [
        pytest.param("data/plans", True, id="at it"),
        pytest.param("data/plans/a.parquet", True, id="below it"),
        pytest.param("data", True, id="above it"),
        pytest.param("data/../data/./plans/a", True, id="with dots"),
        pytest.param("link/a.parquet", True, id="through a link"),
        pytest.param("file", True, id="a link to it"),
        pytest.param("data/plans/out", True, id="a link in it that leads out"),
        pytest.param("data/plans2", False, id="beside it"),
        pytest.param("loop", False, id="a link to itself"),
    ],
)
def test_a_path_overlaps_another(workspace: Path, path: str, *, found: bool) -> None:
    Path("data/plans").mkdir(parents=True)
    Path("link").symlink_to("data/plans")
    Path("file").symlink_to("data/plans/b.parquet")
    Path("data/plans/out").symlink_to("/dev")
    Path("loop").symlink_to("loop")
    other = Path("data/plans")
    expected = other if found else None
    assert overlapping(Path(path), [Path("elsewhere"), other]) == expected
    assert overlapping(workspace / path, [other]) == expected
