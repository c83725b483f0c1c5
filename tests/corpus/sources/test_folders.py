"""Folders as people have them: every file is read once, or named with the reason why it is not."""

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pytest

from gdc.config import JsonlSource, ParquetSource, Source, TextSource
from gdc.corpus.sources import find_unread, fingerprint, read_source
from gdc.corpus.sources.folders import find_files
from gdc.errors import DataError

PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def jsonl(path: str) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, text_field="text", key_field=None)


def text(path: str) -> TextSource:
    return TextSource(kind="text", path=path, unit="line")


def parquet(path: str) -> ParquetSource:
    return ParquetSource(kind="parquet", path=path, text_field="text", key_field=None)


def lines(start: int, num: int = 10) -> bytes:
    return b"".join(
        json.dumps({"text": f"n{i}"}).encode() + b"\n" for i in range(start, start + num)
    )


def write(path: str, content: bytes) -> None:
    """Write a file, compressed if its name says so."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(PACKERS.get(Path(path).suffix.lower(), bytes)(content))


def texts(source: Source) -> list[str]:
    found = read_source(source, max_chars=100, seed=0)
    assert found.bad_rows.is_empty()
    return found.rows["text"].to_list()


ALL = [f"n{i}" for i in range(40)]


# ---- every ending, in any case


def test_a_folder_is_read_whatever_the_endings_of_its_json_lines() -> None:
    for start, name in ((0, "a.jsonl"), (10, "b.ndjson"), (20, "c.JSONL"), (30, "d.jsonl.gz")):
        write(f"mixed/{name}", lines(start))
    assert texts(jsonl("mixed")) == ALL
    assert find_unread(jsonl("mixed")) == {}


def test_a_folder_is_read_whatever_the_endings_of_its_texts() -> None:
    for start, name in ((0, "a.txt"), (10, "b.md"), (20, "C.TXT"), (30, "d.Md.BZ2")):
        write(f"txt/{name}", "".join(f"n{i}\n" for i in range(start, start + 10)).encode())
    assert sorted(texts(text("txt"))) == sorted(ALL)


def test_a_folder_is_read_whatever_the_endings_of_its_parquet() -> None:
    Path("d").mkdir()
    for start, name in ((0, "0.parq"), (10, "1.parquet"), (20, "2.PARQUET"), (30, "3.pq")):
        rows = pl.DataFrame({"text": [f"n{i}" for i in range(start, start + 10)]})
        rows.write_parquet(f"d/{name}")
    assert texts(parquet("d")) == ALL


@pytest.mark.parametrize("ending", PACKERS)
def test_a_compressed_file_has_the_rows_of_the_file_itself(ending: str) -> None:
    write(f"a.jsonl{ending}", b"\xef\xbb\xbf" + lines(0) + b"no JSON\n")
    found = read_source(jsonl(f"a.jsonl{ending}"), max_chars=100, seed=0)
    assert found.rows["text"].to_list() == ALL[:10]
    assert found.bad_rows["source"].to_list() == [f"a.jsonl{ending}:11"]
    write(f"b.txt{ending}", b"\xef\xbb\xbfone\r\ntwo\n")
    assert texts(text(f"b.txt{ending}")) == ["one", "two"]


@pytest.mark.parametrize("ending", list(PACKERS)[1:])
def test_several_compressed_parts_in_one_file_are_all_read(ending: str) -> None:
    pack = PACKERS[ending]
    Path(f"a.jsonl{ending}").write_bytes(pack(lines(0)) + pack(lines(10)))
    assert texts(jsonl(f"a.jsonl{ending}")) == ALL[:20]


@pytest.mark.parametrize("ending", list(PACKERS)[1:])
def test_a_file_named_as_compressed_that_is_cut_off_or_is_not_is_refused(ending: str) -> None:
    name = f"a.jsonl{ending}"
    packed = PACKERS[ending](b"".join(os.urandom(30).hex().encode() + b"\n" for _ in range(5000)))
    for content in (packed[: len(packed) // 2], lines(0)):
        Path(name).write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.jsonl\{ending}: expected a whole \{ending} file"):
            read_source(jsonl(name), max_chars=100, seed=0)


@pytest.mark.parametrize("ending", list(PACKERS)[1:])
def test_a_small_file_that_unpacks_to_a_huge_line_is_one_bad_row(ending: str) -> None:
    write(f"a.jsonl{ending}", b'{"text": "' + b"x" * 20_000_000 + b'"}\n' + lines(0))
    assert Path(f"a.jsonl{ending}").stat().st_size < 100_000
    found = read_source(jsonl(f"a.jsonl{ending}"), max_chars=100, seed=0)
    assert found.rows.height == 10
    assert found.bad_rows.rows() == [(f"a.jsonl{ending}:1", "line longer than 1049776 bytes")]


# ---- links


def test_a_link_to_a_folder_is_followed() -> None:
    write("links/a.jsonl", lines(0, 20))
    write("elsewhere/b.jsonl", lines(20, 20))
    Path("links/sub").symlink_to("../elsewhere")
    assert texts(jsonl("links")) == ALL
    found = read_source(jsonl("links"), max_chars=100, seed=0)
    assert found.rows["source"][20] == "links/sub/b.jsonl:1"


def test_no_loop_of_links_reads_a_file_twice() -> None:
    write("d/z/a.jsonl", lines(0))
    Path("d/up").symlink_to("..")
    Path("d/again").symlink_to("z")
    Path("d/z/self").symlink_to(".")
    Path("d/b.jsonl").symlink_to("z/a.jsonl")
    Path("d/c.jsonl").symlink_to("z/a.jsonl")
    found = read_source(jsonl("d"), max_chars=100, seed=0)
    # It is known by the name that leads over no link.
    assert found.rows["source"].to_list() == [f"d/z/a.jsonl:{i}" for i in range(1, 11)]
    assert find_unread(jsonl("d")) == {
        "a second name of a file that is read": ["d/b.jsonl", "d/c.jsonl"]
    }


def test_of_several_links_to_a_file_elsewhere_the_first_names_it() -> None:
    write("blobs/1", lines(0))
    for name in ("d/b.jsonl", "d/a.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to("../blobs/1")
    assert list(fingerprint(jsonl("d"))["files"]) == ["d/a.jsonl"]


# ---- what is left out


def test_hidden_and_temporary_files_are_left_out_and_named() -> None:
    write("d/train.jsonl", lines(0, 40))
    for name in (
        ".ipynb_checkpoints/train-checkpoint.jsonl", "._train.jsonl", "_temporary/0/part.jsonl",
        "_SUCCESS", "train.jsonl~", "sub/train.jsonl.tmp", ".git/index",
    ):  # fmt: skip
        write(f"d/{name}", lines(0, 30))
    assert texts(jsonl("d")) == ALL
    assert {why: sorted(names) for why, names in find_unread(jsonl("d")).items()} == {
        "hidden or temporary": [
            "d/._train.jsonl", "d/.git/", "d/.ipynb_checkpoints/", "d/_SUCCESS", "d/_temporary/",
            "d/sub/train.jsonl.tmp", "d/train.jsonl~",
        ]
    }  # fmt: skip


def test_a_hidden_name_that_is_given_is_read() -> None:
    write(".cache/a.jsonl", lines(0))
    write(".b.jsonl", lines(10))
    assert texts(jsonl(".cache")) + texts(jsonl(".b.jsonl")) == ALL[:20]


def test_files_of_another_or_of_an_unknown_kind_are_named() -> None:
    write("d/a.jsonl", lines(0))
    for name in ("README.md", "sub/b.txt", "c.csv", "d.json", "LICENSE"):
        write(f"d/{name}", b"x")
    os.mkfifo("d/pipe.jsonl")
    assert texts(jsonl("d")) == ALL[:10]
    assert find_unread(jsonl("d")) == {
        "no ordinary file": ["d/pipe.jsonl"],
        "of another ending": ["d/LICENSE", "d/c.csv", "d/d.json"],
        "of kind text": ["d/README.md", "d/sub/b.txt"],
    }
    assert texts(text("d")) == ["x", "x"]


def test_a_folder_that_cannot_be_entered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write("d/sub/a.jsonl", lines(0))
    write("d/b.jsonl", lines(0))
    listed = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "sub":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    # Root may enter every folder.
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="d/sub: expected a folder that can be read, got: Permis"):
        find_files("d", "jsonl")


def test_the_order_on_disk_does_not_matter() -> None:
    for folder, names in (("x", ("b", "a", "c")), ("y", ("c", "b", "a"))):
        for name in names:
            write(f"{folder}/d/{name}.jsonl", lines(ord(name)))
    assert texts(jsonl("x/d")) == texts(jsonl("y/d"))
    assert fingerprint(jsonl("x/d"))["files"] == fingerprint(jsonl("y/d"))["files"]
