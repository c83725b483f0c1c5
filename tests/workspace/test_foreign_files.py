"""Files of the user's in folders that the pipeline wrote: kept, whatever a run deletes."""

import errno
import json
import os
import shutil
from hashlib import md5
from pathlib import Path

import pytest
from filelock import FileLock

from gdc.errors import ConfigError
from gdc.workspace import dvc_files, files, foreign_files, project
from tests.builders import REPOSITORY, preset_text

WRITTEN = ["train.parquet", "shard_0/a.parquet"]


def listing(names: list[str]) -> tuple[str, str, str]:
    """DVC's list of the files of a folder, its hash, and its place in the cache."""
    content = json.dumps([{"md5": "x", "relpath": name} for name in names])
    digest = md5(content.encode(), usedforsecurity=False).hexdigest()
    return content, f"{digest}.dir", f"files/md5/{digest[:2]}/{digest[2:]}.dir"


LISTING, DIGEST, LIST = listing(WRITTEN)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage has written the folder ``data/curated``."""
    monkeypatch.chdir(tmp_path)
    write(f".dvc/cache/{LIST}", LISTING)
    Path(".dvc/tmp").mkdir()
    out = {"path": "data/curated", "md5": DIGEST}
    lock = {"stages": {"curate": {"outs": [out, {"path": "data/choice.json", "md5": "cd"}]}}}
    files.write_text(Path("dvc.lock"), json.dumps(lock))
    for name in WRITTEN:
        write(f"data/curated/{name}")


def write(path: str, text: str = "mine") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def curated() -> list[str]:
    folder = Path("data/curated")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def aside() -> list[Path]:
    return [path for path in Path("work/set-aside").rglob("*") if path.is_file()]


def test_a_file_that_the_list_lacks_is_moved_and_told_of() -> None:
    write("data/curated/notes.txt")
    Path("data/curated/shard_0/link.txt").symlink_to("nowhere")
    told = foreign_files.set_aside()
    assert told is not None
    assert told.startswith(
        "data/curated/notes.txt (now work/set-aside/1/data/curated/notes.txt), "
        "data/curated/shard_0/link.txt (now work/set-aside/1/data/curated/shard_0/link.txt): "
    )
    assert Path("work/set-aside/1/data/curated/notes.txt").read_text() == "mine"
    assert Path("work/set-aside/1/data/curated/shard_0/link.txt").is_symlink()
    assert curated() == sorted(WRITTEN)
    assert foreign_files.set_aside() is None


def test_what_was_set_aside_before_stays_and_is_in_no_way() -> None:
    for name in ("notes", "notes", "notes/today", "notes"):
        write(f"data/curated/{name}", name)
        foreign_files.set_aside()
        shutil.rmtree("data/curated/notes", ignore_errors=True)
    kept = {str(path.relative_to("work/set-aside")): path.read_text() for path in aside()}
    assert kept == {
        "1/data/curated/notes": "notes", "2/data/curated/notes": "notes",
        "3/data/curated/notes/today": "notes/today", "4/data/curated/notes": "notes",
    }  # fmt: skip


def test_a_link_to_a_folder_is_moved_and_what_it_leads_to_stays() -> None:
    write("elsewhere/notes.txt")
    Path("data/curated/link").symlink_to(Path("elsewhere").resolve())
    assert foreign_files.set_aside() is not None
    assert not os.path.lexists("data/curated/link")
    assert Path("work/set-aside/1/data/curated/link/notes.txt").read_text() == "mine"
    assert Path("elsewhere/notes.txt").exists()


def test_what_a_linked_folder_leads_to_stays_as_dvc_deletes_the_link_alone() -> None:
    write("data/curated/notes.txt")
    Path("data/curated").rename("elsewhere")
    Path("data/curated").symlink_to(Path("elsewhere").resolve())
    assert foreign_files.set_aside() is None
    assert Path("elsewhere/notes.txt").exists()


def test_a_file_is_moved_to_another_disk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", other_disk)
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is not None
    assert [path.read_text() for path in aside()] == ["mine"]
    assert curated() == sorted(WRITTEN)


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


@pytest.mark.parametrize("has_list", [True, False])
def test_what_a_stage_of_a_former_name_did_not_write_is_no_file_of_the_users(
    has_list: bool,
) -> None:
    """DVC keeps its record; that of the stage of today may be known, or not be here."""
    content, digest, place = listing([*WRITTEN, "new.parquet"])
    if has_list:
        write(f".dvc/cache/{place}", content)
    lock = json.loads(Path("dvc.lock").read_text())
    lock["stages"]["renamed"] = {"outs": [{"path": "data/curated", "md5": digest}]}
    write("dvc.lock", json.dumps(lock))
    write("data/curated/new.parquet")
    assert foreign_files.set_aside() is None
    write("data/curated/notes.txt")
    assert (foreign_files.set_aside() is not None) == has_list
    assert Path("data/curated/new.parquet").exists()


def test_beside_a_stage_that_runs_nothing_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    write("data/curated/notes.txt")
    write(".dvc/tmp/rwlock", json.dumps({"write": {"data/curated": {"pid": 7, "cmd": "dvc"}}}))
    monkeypatch.setattr(dvc_files, "_is_dvc", lambda number: number == 7)
    assert foreign_files.set_aside() is None
    monkeypatch.setattr(dvc_files, "_is_dvc", lambda number: number == 8)
    assert foreign_files.set_aside() is not None


def test_while_dvc_records_a_stage_nothing_is_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its files are whole, and dvc.lock does not list them yet."""
    monkeypatch.setattr(dvc_files, "WAIT_SECONDS", 0.0)
    write("data/curated/new.parquet")
    with FileLock(".dvc/tmp/lock"):
        assert foreign_files.set_aside() is None
    assert foreign_files.set_aside() is not None


def test_without_the_list_nothing_is_moved() -> None:
    shutil.rmtree(".dvc/cache")
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is None


@pytest.mark.parametrize("content", ["", LISTING[:-4], "[]"])
def test_by_a_damaged_list_nothing_is_moved(content: str) -> None:
    write(f".dvc/cache/{LIST}", content)
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is None


@pytest.mark.parametrize(
    ("config", "text", "cache"),
    [
        (".dvc/config.local", "[cache]\n    dir = ../other\n", "other"),
        (".dvc/config", '[core]\n    remote = s3\n[cache]\n    dir = "a, b"\n', ".dvc/a, b"),
        ("home/config", "[cache]\n    dir = {here}/other\n", "other"),
    ],
)
def test_the_list_is_in_the_cache_that_dvc_uses(
    config: str, text: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "home"))
    write(config, text.format(here=tmp_path))
    Path(cache).parent.mkdir(parents=True, exist_ok=True)
    Path(".dvc/cache").rename(cache)
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is not None


def test_by_settings_that_dvc_cannot_read_nothing_is_moved() -> None:
    write(".dvc/config", "[cache")
    write("data/curated/notes.txt")
    assert foreign_files.set_aside() is None


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
