"""A full disk, limits and a lack of rights: a message with what to do, and nothing half written."""

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.errors import DataError, TransientError
from gdc.filesystem.durable import new_file, new_folder
from gdc.filesystem.system_errors import wording_system_errors


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As after ``ulimit -f``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("by", ["python", "polars", "polars, streaming"])
def test_a_file_that_may_not_grow_is_told_of_and_leaves_nothing(tmp_path: Path, by: str) -> None:
    table = pl.DataFrame({"a": np.random.default_rng(0).normal(size=20_000)})
    refusal = pytest.raises(DataError, match=r"File too large\. Raise the limit .*ulimit -f")
    writers: dict[str, Callable[[Path], object]] = {
        "python": lambda path: path.write_bytes(bytes(100_000)),
        "polars": table.write_parquet,
        "polars, streaming": table.lazy().sink_parquet,
    }
    with (
        files_of_at_most(50_000),
        refusal,
        wording_system_errors(),
        new_file(tmp_path / "a") as temporary,
    ):
        writers[by](temporary)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: .*No space left.*Make room"),
        (pl.exceptions.ComputeError("parquet: No space (os error 28)"), "No space left .*Make ro"),
        (OSError(errno.EMFILE, "Too many open files"), r"ulimit -n 4096"),
        (RuntimeError("[Errno 30] Read-only file system: 'x'"), "Read-only .*can be written"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), "x: .*too long.* a shorter name"),
        (MemoryError(), "Cannot allocate memory.*more memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Cannot allocate memory"),
        (ImportError("a.so: failed to map segment from shared object"), "more memory"),
    ],
)
def test_what_the_system_refuses_is_worded(error: Exception, message: str) -> None:
    with pytest.raises(DataError, match=message), wording_system_errors():
        raise error


def test_what_the_system_refuses_to_a_stage_keeps_the_name_of_the_stage() -> None:
    said = "train@0: dvc pull: [Errno 30] Read-only file system: 'x'"
    message = rf"^{re.escape(said)}\nName a folder on a disk that can be written\.$"
    with pytest.raises(TransientError, match=message), wording_system_errors():
        raise TransientError(said)


def test_errors_of_ours_are_left_alone() -> None:
    for error in (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), KeyError("a")):
        with pytest.raises(type(error)), wording_system_errors():
            raise error


@pytest.mark.parametrize("make", [new_file, new_folder])
@pytest.mark.parametrize("place", ["/proc/x", "file/x", "n" * 300])
def test_a_place_for_no_file_is_refused_before_anything_is_computed(
    make: Callable[[Path], AbstractContextManager[Path]],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(DataError, match=r"expected a folder.*, got: .*Name another"):
        make(Path(place)).__enter__()


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with (
        pytest.raises(DataError, match="in which a can be written, got: Is a directory"),
        new_file(tmp_path / "a") as temporary,
    ):
        temporary.write_text("b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
