"""Token ids of Megatron and nanoGPT: made by hand, read, written back, refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.corpus.token_files import TokenFile, guess_dtype, read_indexed, read_stream, write_like
from gdc.errors import DataError
from tests.corpus.token_bytes import write_indexed, write_stream

ids = st.lists(st.integers(0, 2**15), max_size=4)


def listed(file: TokenFile) -> list[list[int]]:
    return [document.tolist() for document in file]


@pytest.mark.parametrize("letter", ["H", "i"])
def test_documents_of_an_index_are_its_sequences_joined(tmp_path: Path, letter: str) -> None:
    path = tmp_path / "a.bin"
    write_indexed(path, [[[5, 6, 0]], [[7], [8, 9, 0]], [[]], [[10, 0]]], letter)
    assert listed(read_indexed(path)) == [[5, 6, 0], [7, 8, 9, 0], [], [10, 0]]


@pytest.mark.parametrize(
    ("stream", "documents"),
    [
        pytest.param([5, 6, 0, 7, 0], [[5, 6, 0], [7, 0]], id="ended by the separator"),
        pytest.param([5, 6, 0, 7], [[5, 6, 0], [7]], id="the last is not ended"),
        pytest.param([0, 5, 6, 0, 7], [[0, 5, 6], [0, 7]], id="begun by the separator"),
        pytest.param([5, 0, 0, 7, 0], [[5, 0], [0], [7, 0]], id="an empty one"),
    ],
)
@pytest.mark.parametrize(("letter", "dtype"), [("H", "uint16"), ("I", "uint32")])
def test_documents_of_a_stream_are_parted_by_one_id(
    tmp_path: Path, stream: list[int], documents: list[list[int]], letter: str, dtype: str
) -> None:
    path = tmp_path / "a.bin"
    write_stream(path, [id_ and id_ + 1000 for id_ in stream], letter)
    assert guess_dtype(path) == dtype
    found = listed(read_stream(path, guess_dtype(path), 0))
    assert found == [[id_ and id_ + 1000 for id_ in document] for document in documents]


@settings(max_examples=30)
@given(documents=st.lists(st.lists(ids, min_size=1, max_size=2), max_size=4))
def test_all_documents_written_once_are_the_same_bytes_with_one_sequence_each(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    whole = [[[id_ for sequence in document for id_ in sequence]] for document in documents]
    write_indexed(folder / "a.bin", documents, "i")
    write_indexed(folder / "expected.bin", whole, "i")
    file = read_indexed(folder / "a.bin")
    written, index = folder / "b.bin", folder / "b.idx"
    assert write_like(file, range(len(file)), written, index) == len(documents)
    assert written.read_bytes() == (folder / "expected.bin").read_bytes()
    assert index.read_bytes() == (folder / "expected.idx").read_bytes()


@settings(max_examples=30)
@given(stream=ids, rows=st.lists(st.integers(0, 9), max_size=5))
def test_documents_of_a_stream_stay_apart_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, stream: list[int], rows: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    write_stream(folder / "a.bin", [*stream, 0, 3])
    file = read_stream(folder / "a.bin", "uint16", 0)
    write_like(file, range(len(file)), folder / "same.bin", None)
    assert (folder / "same.bin").read_bytes() == (folder / "a.bin").read_bytes()
    rows = [len(file) - 1, *(row % len(file) for row in rows), len(file) - 1]
    write_like(file, rows, folder / "b.bin", None)
    again = read_stream(folder / "b.bin", "uint16", 0)
    words = [[id_ for id_ in document if id_] for document in listed(file)]
    found = [inner for document in listed(again) if (inner := [i for i in document if i])]
    assert found == [words[row] for row in rows if words[row]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(cut, r"a\.bin: expected whole ids of 2 bytes", id="ids cut off"),
        pytest.param(
            lambda p: p.write_bytes(p.read_bytes() * 2),
            r"a\.bin: expected 4 ids of 2 bytes as a\.idx says, got 8",
            id="ids of another index",
        ),
        pytest.param(
            lambda p: cut(p.with_suffix(".idx")),
            r"a\.idx: expected 82 bytes for 2 sequences and 3 bounds",
            id="index cut off",
        ),
        pytest.param(
            lambda p: p.with_suffix(".idx").write_bytes(b"TNTIDX\x00\x00" + bytes(60)),
            r"a\.idx: expected an index of Megatron's .* starts with MMIDIDX, got 68 bytes",
            id="older index",
        ),
        pytest.param(
            lambda p: p.with_suffix(".idx").unlink(),
            r"a\.idx: expected a readable file, got: No such file",
            id="no index",
        ),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    path = tmp_path / "a.bin"
    write_indexed(path, [[[5, 0]], [[6, 0]]])
    damage(path)
    with pytest.raises(DataError, match=told):
        read_indexed(path)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (9, 2, "expected version 1 .* got version 2"),
        (17, 6, "type 6"),
        (42, 9, "sequences end to end"),
        (58, 1, "sequences end to end"),
    ],
)
def test_an_index_with_an_odd_byte_is_refused(
    tmp_path: Path, place: int, value: int, told: str
) -> None:
    path = tmp_path / "a.bin"
    write_indexed(path, [[[5, 0]], [[6, 0]]])
    content = bytearray(path.with_suffix(".idx").read_bytes())
    content[place] = value
    path.with_suffix(".idx").write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_indexed(path)


def test_a_stream_without_its_separator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_stream(path, [5, 6])
    with pytest.raises(DataError, match=r"parted by id 0, got 2 ids without it.*separator"):
        read_stream(path, "uint16", 0)
