"""Arrays in files without a name: the same numbers, no memory, nothing left."""

import os
import resource
from pathlib import Path

import numpy as np
import psutil
import pytest

from gdc.filesystem import scratch


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def on_disk(size: int) -> np.memmap:
    with scratch.new_file() as file:
        file.write(np.zeros(1, np.int8).tobytes())
        like = scratch.mapped(file, np.int8)
    array = scratch.zeros(size, np.float32, like=like)
    assert isinstance(array, np.memmap)
    return array


def test_an_array_is_where_its_model_is_and_leaves_no_file() -> None:
    array = on_disk(3)
    array[:] = [1, 2, 3]
    copy = scratch.copied(array + 1, like=array)
    assert isinstance(copy, np.memmap)
    assert copy.tolist() == [2, 3, 4]
    assert list(Path("work/scratch").iterdir()) == []
    in_memory = scratch.zeros(3, np.float32, like=np.zeros(1))
    assert not isinstance(in_memory, np.memmap)
    assert scratch.copied(in_memory, like=np.zeros(1)) is in_memory


def test_forgotten_pages_take_no_memory_and_keep_their_numbers() -> None:
    array = on_disk(2**23)
    array[:] = 7
    held = psutil.Process().memory_info().rss
    scratch.forget(array)
    # 32 MB were written.
    assert psutil.Process().memory_info().rss < held - 2**24
    assert (array == 7).all()


def test_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PIECE", 4)
    array = np.arange(10)
    parts = list(scratch.read(array))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert np.concatenate(parts).tolist() == array.tolist()


def test_a_full_disk_is_an_error_before_anything_is_written() -> None:
    like = on_disk(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(27)):
            scratch.zeros(2**20, np.float64, like=like)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
