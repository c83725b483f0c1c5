"""JSON lines, good and bad, against rows written by hand; no row may be lost."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import DataError
from gdc.schema import QUARANTINE, SOURCE_ROWS
from tests.corpus.sources.builders import good, jsonl, read, write_lines


def test_jsonl_rows_come_in_order_with_their_line() -> None:
    write_lines(
        "a.jsonl", [b'{"text": "one"}', b"", b"  \t", '{"text": " zwölf", "n": 2}'.encode()]
    )
    assert good(jsonl()) == [("one", "a.jsonl:1"), (" zwölf", "a.jsonl:4")]


def test_a_folder_is_read_to_any_depth_in_the_order_of_names() -> None:
    write_lines("docs/b.jsonl", [b'{"text": "last"}'])
    write_lines("docs/a/z.jsonl", [b'{"text": "first"}'])
    write_lines("docs/a/z.json", [b"not read"])
    expected = [("first", "docs/a/z.jsonl:1"), ("last", "docs/b.jsonl:1")]
    assert good(jsonl("docs")) == expected
    assert good(jsonl(str(Path("docs").absolute()))) == expected


def test_a_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    Path("a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\r\n{"text": "two"}')
    assert good(jsonl()) == [("one", "a.jsonl:1"), ("two", "a.jsonl:3")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"text": "\xe9t\xe9"}', "not UTF-8: byte 11 of the line", id="latin-1"),
        pytest.param(
            b'{"text": "cut', "not JSON: Unterminated string starting at column 10", id="cut"
        ),
        pytest.param(b"[" * 100_000, "too many levels", id="deep nesting"),
        pytest.param(b'{"text": ' + b"9" * 5000 + b"}", "a number too long", id="huge number"),
        pytest.param(b'["text"]', "expected an object, got list", id="not an object"),
        pytest.param(b'{"body": "x"}', "no field 'text', only ['body']", id="no text field"),
        pytest.param(b'{"\\ud800": 1}', r"no field 'text', only ['\ud800']", id="odd field name"),
        pytest.param(b'{"text": null}', "text is null", id="null"),
        pytest.param(b'{"text": 7}', "expected a string, got int", id="a number"),
        pytest.param(b'{"text": " \\n\\t "}', "empty text", id="empty after strip"),
        pytest.param(b'{"text": "%s"}' % (b"x" * 21), "21 characters, at most 20", id="too long"),
        pytest.param(b'{"text": "\\ud800"}', "not valid Unicode", id="lone surrogate"),
    ],
)
def test_a_bad_line_has_its_reason_and_costs_no_other(line: bytes, reason: str) -> None:
    write_lines("a.jsonl", [b'{"text": "one"}', line, b'{"text": "%s"}' % (b"y" * 20)])
    found = read(jsonl())
    assert found.rows["source"].to_list() == ["a.jsonl:1", "a.jsonl:3"]
    [(source, given_reason)] = found.bad_rows.rows()
    assert source == "a.jsonl:2"
    assert reason in given_reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b'{"text": "b", "id": "1"}', "duplicate key, first at a.jsonl:1", id="twice"),
        pytest.param(b'{"text": "b", "id": null}', "key is null", id="null"),
        pytest.param(b'{"text": "b", "id": "\\ud800"}', "key is not valid Unicode", id="no text"),
        pytest.param(b'{"text": "b", "id": true}', "expected a string or an integer", id="bool"),
        pytest.param(b'{"text": "b"}', "no field 'id', only ['text']", id="none"),
    ],
)
def test_a_bad_key_makes_a_bad_row(line: bytes, reason: str) -> None:
    write_lines("a.jsonl", [b'{"text": "a", "id": 1}', line, b'{"text": "c", "id": 2}'])
    found = read(jsonl(key="id"))
    assert found.rows["text"].to_list() == ["a", "c"]
    assert reason in found.bad_rows["reason"].item()


def test_a_bad_row_does_not_take_a_key_from_a_good_one() -> None:
    write_lines("a.jsonl", [b'{"text": null, "id": "k"}', b'{"text": "good", "id": "k"}'])
    assert read(jsonl(key="id")).rows.rows() == [("good", "a.jsonl:2", "k")]


def test_keys_are_unique_over_all_files() -> None:
    for name in ("d/a.jsonl", "d/b.jsonl"):
        write_lines(name, [b'{"text": "same", "id": "k"}'])
    assert read(jsonl("d", key="id")).bad_rows.rows() == [
        ("d/b.jsonl:1", "duplicate key, first at d/a.jsonl:1")
    ]


def test_a_line_of_100_mb_is_a_bad_row_and_is_not_parsed() -> None:
    with Path("a.jsonl").open("wb") as file:
        file.write(b'{"text": "one"}\n{"text": "')
        file.truncate(100_000_000)
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n{"text": "three"}\n')
    found = read(jsonl())
    assert found.rows["source"].to_list() == ["a.jsonl:1", "a.jsonl:3"]
    assert found.bad_rows.rows() == [("a.jsonl:2", "line longer than 1048816 bytes")]


def test_escapes_do_not_make_a_line_too_long() -> None:
    line = json.dumps({"text": "\U0001f600" * 100_000}).encode()
    assert len(line) > 2**20
    write_lines("a.jsonl", [line])
    assert read(jsonl(), max_chars=100_000).rows.height == 1


def test_a_text_field_that_no_row_has_is_a_wrong_setting() -> None:
    write_lines("a.jsonl", [b'{"body": "x"}', b"no JSON", b'{"body": "y", "id": 1}'])
    expected = r"text_field: expected field 'text' in a.jsonl, got fields \['body', 'id'\]"
    with pytest.raises(DataError, match=expected):
        read(jsonl())


fields = st.dictionaries(
    st.sampled_from(["text", "id"]),
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.lists(st.none()),
)
json_lines = st.lists(
    fields.map(lambda record: json.dumps(record).encode())
    | st.binary(max_size=30).filter(lambda line: line.strip() and b"\n" not in line)
)


@settings(max_examples=12)
@given(lines=json_lines)
def test_no_row_is_lost(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("law") / "a.jsonl"
    # Without a row that has the fields, all would be refused for a wrong setting.
    write_lines(str(path), [b'{"text": "first", "id": "first"}', *lines])
    found = read(jsonl(str(path), key="id"))
    numbers = [int(s.split(":")[-1]) for t in (found.rows, found.bad_rows) for s in t["source"]]
    assert sorted(numbers) == list(range(1, len(lines) + 2))
    assert found.rows.schema == {**SOURCE_ROWS, "key": pl.String}
    assert found.bad_rows.schema == QUARANTINE
