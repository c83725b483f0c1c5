"""Files of the user's in folders that the pipeline wrote: kept, whatever a run deletes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from gdc.errors import ConfigError
from gdc.workspace import dvc_files, files, foreign_files, project
from tests.builders import REPOSITORY, preset_text

DIGEST = "ab12.dir"
WRITTEN = ["train.parquet", "shard_0/a.parquet"]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage has written the folder ``data/curated``."""
    monkeypatch.chdir(tmp_path)
    listed("cache", WRITTEN)
    out = {"path": "data/curated", "md5": DIGEST}
    lock = {"stages": {"curate": {"outs": [out, {"path": "data/choice.json", "md5": "cd"}]}}}
    files.write_text(Path("dvc.lock"), json.dumps(lock))
    for name in WRITTEN:
        write(f"data/curated/{name}")


def listed(cache: str, names: Sequence[str]) -> None:
    entries = [{"md5": "x", "relpath": name} for name in names]
    write(f".dvc/{cache}/files/md5/ab/12.dir", json.dumps(entries))


def write(path: str, text: str = "mine") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def curated() -> list[str]:
    folder = Path("data/curated")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_a_file_that_the_list_lacks_is_moved_and_told_of() -> None:
    write("data/curated/notes.txt")
    Path("data/curated/shard_0/link.txt").symlink_to("nowhere")
    told = foreign_files.set_aside()
    assert told is not None
    assert told.startswith(
        "data/curated/notes.txt (now work/set-aside/data/curated/notes.txt), "
        "data/curated/shard_0/link.txt (now work/set-aside/data/curated/shard_0/link.txt): "
    )
    assert Path("work/set-aside/data/curated/notes.txt").read_text() == "mine"
    assert Path("work/set-aside/data/curated/shard_0/link.txt").is_symlink()
    assert curated() == sorted(WRITTEN)
    assert foreign_files.set_aside() is None


def test_what_was_set_aside_before_stays() -> None:
    for text in ("first", "second", "third"):
        write("data/curated/notes.txt", text)
        foreign_files.set_aside()
    kept = sorted(Path("work/set-aside/data/curated").iterdir())
    assert [(path.name, path.read_text()) for path in kept] == [
        ("notes.txt", "first"), ("notes.txt.1", "second"), ("notes.txt.2", "third"),
    ]  # fmt: skip


def test_of_many_files_three_are_named() -> None:
    for i in range(5):
        write(f"data/curated/{i}.txt")
    told = foreign_files.set_aside()
    assert told is not None
    assert told.count("(now ") == 3
    assert " and 2 more: " in told


@pytest.mark.parametrize("name", [".hidden", "data/choice.json", "data/elsewhere.txt"])
def test_hidden_files_and_what_lies_elsewhere_stay(name: str) -> None:
    write(name if "/" in name else f"data/curated/{name}")
    assert foreign_files.set_aside() is None


def test_of_a_stage_that_was_stopped_nothing_is_moved() -> None:
    Path("data/curated/train.parquet").unlink()
    write("data/curated/other.parquet")
    assert foreign_files.set_aside() is None


def test_beside_a_stage_that_runs_nothing_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    write("data/curated/notes.txt")
    write(".dvc/tmp/rwlock", json.dumps({"write": {"data/curated": {"pid": 7, "cmd": "dvc"}}}))
    monkeypatch.setattr(dvc_files, "_is_dvc", lambda number: number == 7)
    assert foreign_files.set_aside() is None
    monkeypatch.setattr(dvc_files, "_is_dvc", lambda number: number == 8)
    assert foreign_files.set_aside() is not None


def test_without_the_list_nothing_is_moved() -> None:
    shutil.rmtree(".dvc/cache")
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is None
    listed("elsewhere", WRITTEN)
    write(".dvc/config", "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://a%20b\n")
    write(".dvc/config.local", "[cache]\n    dir = elsewhere\n")
    assert foreign_files.set_aside() is not None


def test_before_the_first_stage_they_are_refused_and_never_what_a_first_stage_left() -> None:
    shutil.rmtree("data")
    Path("dvc.lock").unlink()
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    write("params.yaml", preset_text("own-data"))
    write("data/manifest.json")
    project.require_workspace()
    write("data/corpus.parquet")
    with pytest.raises(ConfigError, match=r"data/corpus\.parquet: expected nothing where the pip"):
        project.require_workspace()
    write("work/checkpoints/a")
    project.require_workspace()
