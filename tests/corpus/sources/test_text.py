"""Plain text in units of files, paragraphs and lines."""

import os
from pathlib import Path
from typing import Literal

import pytest

from gdc.corpus.sources import (
    read_source,
)
from tests.corpus.sources.builders import MAX_CHARS, good, read, text

POEM = b"\xef\xbb\xbfone\r\ntwo\n \n\n\xc2\xa0\nthree\x00\n"


@pytest.mark.parametrize(
    ("unit", "rows"),
    [
        ("line", [("one", "a.txt:1"), ("two", "a.txt:2"), ("three\x00", "a.txt:6")]),
        ("paragraph", [("one\ntwo", "a.txt:1"), ("three\x00", "a.txt:6")]),
        ("file", [("one\r\ntwo\n \n\n\xa0\nthree\x00\n", "a.txt")]),
    ],
)
def test_a_text_file_is_cut_into_units(
    unit: Literal["file", "paragraph", "line"], rows: list[tuple[str, str]]
) -> None:
    Path("a.txt").write_bytes(POEM)
    found = read_source(text(unit), max_chars=100, seed=0)
    assert found.rows.rows() == rows
    assert found.bad_rows.is_empty()


@pytest.mark.parametrize(
    ("unit", "num_rows", "bad_rows"),
    [
        ("line", 2, [("a.txt:2", "not UTF-8: line 2, byte 4")]),
        ("paragraph", 1, [("a.txt:1", "not UTF-8: line 2, byte 4")]),
        ("file", 0, [("a.txt", "not UTF-8: line 2")]),
    ],
)
def test_a_wrong_encoding_is_told_by_line(
    unit: Literal["file", "paragraph", "line"], num_rows: int, bad_rows: list[tuple[str, str]]
) -> None:
    Path("a.txt").write_bytes(b"one\ncaf\xe9\n\nthree")
    found = read(text(unit))
    assert found.rows.height == num_rows
    assert found.bad_rows.rows() == bad_rows


@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_utf_16_is_one_bad_row(unit: Literal["file", "paragraph", "line"]) -> None:
    Path("a.txt").write_bytes("one\ntwo\n".encode("utf-16"))
    assert read(text(unit)).bad_rows["source"].to_list() == ["a.txt"]


@pytest.mark.parametrize(
    ("unit", "content", "reason"),
    [
        pytest.param("line", b"x" * 21, "21 characters, at most 20", id="a line"),
        pytest.param("line", b"x" * 999, "line 1 has more than 20 characters", id="not kept"),
        pytest.param("paragraph", b"x\n" * 11, "21 characters, at most 20", id="a paragraph"),
        pytest.param("file", b"x" * 21, "21 characters, at most 20", id="a file"),
        pytest.param("file", b"x" * 999, "more than 20 characters", id="a file not kept"),
        pytest.param("file", b" \n", "empty text", id="an empty file"),
    ],
)
def test_a_unit_that_is_too_long_or_empty_is_a_bad_row(
    unit: Literal["file", "paragraph", "line"], content: bytes, reason: str
) -> None:
    Path("a.txt").write_bytes(content)
    assert read(text(unit)).bad_rows["reason"].to_list() == [reason]


@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_the_longest_text_allowed_is_kept(unit: Literal["file", "paragraph", "line"]) -> None:
    Path("a.txt").write_bytes(b"\xef\xbb\xbf" + ("\U0001f600" * MAX_CHARS).encode())
    assert read(text(unit)).rows["text"].to_list() == ["\U0001f600" * MAX_CHARS]


def test_a_file_name_that_is_not_utf_8_still_names_its_rows() -> None:
    Path("d").mkdir()
    Path(os.fsdecode(b"d/\xff.txt")).write_bytes(b"one")
    assert good(text("line", "d")) == [("one", "d/\\xff.txt:1")]
