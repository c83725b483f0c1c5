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


def test_few_pages_are_held_where_far_places_are_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 rows of 256 places, 1 MB from each other: looked up together they hold 100 MB."""
    with scratch.new_file() as file:
        file.write(np.arange(100 * 2**18, dtype=np.int32).tobytes())
        array = scratch.mapped(file, np.int32)
    places = np.arange(100)[:, None] * 2**18 + np.arange(256)
    held, forget = [], scratch.forget

    def forget_and_note(array: np.memmap) -> None:
        held.append(psutil.Process().memory_info().shared)
        forget(array)

    monkeypatch.setattr(scratch, "forget", forget_and_note)
    before = psutil.Process().memory_info().shared
    assert (scratch.take(array, places) == places).all()
    assert max(held) <= before + 9 * 2**21
    assert (scratch.take(np.arange(5), np.array([[4, 1]])) == [[4, 1]]).all()


def test_texts_in_a_file_are_found_by_number() -> None:
    parts = [(np.array([2, 0]), ["two", "café"]), (np.array([1]), [""])]
    texts = scratch.Texts.written(parts, 3)
    assert [texts[row] for row in range(3)] == ["café", "", "two"]
    assert texts.num_bytes.tolist() == [5, 0, 3]
    assert list(Path("work/scratch").iterdir()) == []
    assert scratch.Texts.written([], 0).num_bytes.tolist() == []
