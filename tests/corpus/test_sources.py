"""Foreign files, good and bad, against rows written by hand; no row may be lost."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock

import datasets
import huggingface_hub
import polars as pl
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import (
    BpeTokenizer,
    HuggingFaceSource,
    JsonlSource,
    ParquetSource,
    PretrainedTokenizer,
    PythonDocsSource,
    Source,
    SyntheticSource,
    TextSource,
)
from gdc.corpus.sources import (
    SourceRows,
    check_bad_rows,
    fingerprint,
    fingerprint_pretrained,
    read_source,
)
from gdc.corpus.sources.rows import Row, collect
from gdc.errors import ConfigError, DataError, GdcError, TransientError
from gdc.schema import QUARANTINE, SOURCE_ROWS

MAX_CHARS = 20
PYTHON_DOCS = PythonDocsSource(kind="python-docs")
SYNTHETIC = SyntheticSource(
    kind="synthetic", num_samples=50, num_words=30, words_per_sample=7, branching=3
)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def jsonl(path: str = "a.jsonl", key: str | None = None) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, text_field="text", key_field=key)


def parquet(path: str = "a.parquet", key: str | None = None) -> ParquetSource:
    return ParquetSource(kind="parquet", path=path, text_field="text", key_field=key)


def text(unit: Literal["file", "paragraph", "line"], path: str = "a.txt") -> TextSource:
    return TextSource(kind="text", path=path, unit=unit)


def hub(path: str, split: str = "train", **values: str) -> HuggingFaceSource:
    optional = {"name": None, "revision": None, "text_field": "text", **values}
    return HuggingFaceSource.model_validate(
        {"kind": "huggingface", "path": path, "split": split, **optional}
    )


def write_lines(path: str, lines: Sequence[bytes]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"".join(line + b"\n" for line in lines))


def check(rows: SourceRows, *, on_bad_row: Literal["fail", "quarantine"]) -> None:
    check_bad_rows(rows.bad_rows, rows.rows.height, on_bad_row=on_bad_row)


def read(source: Source, max_chars: int = MAX_CHARS) -> SourceRows:
    return read_source(source, max_chars=max_chars, seed=0)


def good(source: Source) -> list[tuple[Any, ...]]:
    found = read(source)
    assert found.bad_rows.is_empty()
    return found.rows.rows()


# ---- JSON Lines


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
    assert read(jsonl(key="id")).rows.rows() == [("good", "a.jsonl:2")]


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


@given(lines=json_lines)
def test_no_row_is_lost(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("law") / "a.jsonl"
    # Without a row that has the fields, all would be refused for a wrong setting.
    write_lines(str(path), [b'{"text": "first", "id": "first"}', *lines])
    found = read(jsonl(str(path), key="id"))
    numbers = [int(s.split(":")[-1]) for t in (found.rows, found.bad_rows) for s in t["source"]]
    assert sorted(numbers) == list(range(1, len(lines) + 2))
    assert found.rows.schema == SOURCE_ROWS
    assert found.bad_rows.schema == QUARANTINE


# ---- Parquet


def test_parquet_rows_are_numbered_from_1_in_each_file() -> None:
    Path("d").mkdir()
    pl.DataFrame({"n": [1, 2], "text": ["a", "b"]}).write_parquet("d/1.parquet")
    pl.DataFrame({"text": pl.Series(["c"], dtype=pl.Categorical)}).write_parquet("d/2.parquet")
    assert good(parquet("d")) == [
        ("a", "d/1.parquet:1"),
        ("b", "d/1.parquet:2"),
        ("c", "d/2.parquet:1"),
    ]


def test_bad_parquet_rows_have_the_reasons_of_any_other_row() -> None:
    pl.DataFrame({"id": [1, 2, 1, None], "text": ["a", None, "c", "d"]}).write_parquet("a.parquet")
    found = read(parquet(key="id"))
    assert found.rows.rows() == [("a", "a.parquet:1")]
    assert found.bad_rows.rows() == [
        ("a.parquet:2", "text is null"),
        ("a.parquet:3", "duplicate key, first at a.parquet:1"),
        ("a.parquet:4", "key is null"),
    ]


def test_a_text_may_be_its_own_key() -> None:
    pl.DataFrame({"text": ["a", "b", "a"]}).write_parquet("a.parquet")
    assert read(parquet(key="text")).rows["text"].to_list() == ["a", "b"]


def test_a_column_of_numbers_is_no_text() -> None:
    pl.DataFrame({"text": [1.5]}).write_parquet("a.parquet")
    assert read(parquet()).bad_rows["reason"].to_list() == ["expected a string, got float"]


def test_a_missing_column_is_named_with_those_there() -> None:
    pl.DataFrame({"body": ["x"], "n": [1]}).write_parquet("a.parquet")
    with pytest.raises(DataError, match=r"expected column 'text', got columns \['body', 'n'\]"):
        read(parquet())


@pytest.mark.parametrize("keep", [0, 3, 100, -20])
def test_a_damaged_parquet_file_is_refused(keep: int) -> None:
    pl.DataFrame({"text": ["hello"] * 99}).write_parquet("whole.parquet")
    Path("a.parquet").write_bytes(Path("whole.parquet").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.parquet: expected a Parquet file.*remove it"):
        read(parquet())


# ---- plain text

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


# ---- paths


@pytest.mark.parametrize("source", [jsonl("no"), parquet("no"), text("file", "no")])
def test_a_missing_path_is_named(source: Source) -> None:
    for call in (fingerprint, read):
        with pytest.raises(
            DataError, match=r"path: expected a file or folder, got 'no' \(not found"
        ):
            call(source)


@pytest.mark.parametrize("source", [jsonl("d"), parquet("d"), text("file", "d")])
def test_a_folder_without_matching_files_is_refused(source: Source) -> None:
    write_lines("d/table.csv", [b"x"])
    expected = r"expected \w+ files \(.*\), got a folder without any: 'd' \(1 of another ending\)"
    for call in (fingerprint, read):
        with pytest.raises(DataError, match=expected):
            call(source)


def test_a_broken_link_is_not_passed_over() -> None:
    Path("d").mkdir()
    Path("d/a.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"a\.txt: expected a readable file, got: No such file"):
        read(text("file", "d"))


# ---- bad rows


def rows_of(texts: Sequence[object]) -> SourceRows:
    return collect((Row(f"r:{i}", t) for i, t in enumerate(texts, 1)), max_chars=MAX_CHARS)


def test_fail_lists_the_first_five_bad_rows_their_number_and_what_to_do() -> None:
    with pytest.raises(DataError) as refused:
        check(rows_of(["fine", *["secret" * 9] * 7]), on_bad_row="fail")
    shown = ", ".join(f"r:{i} (54 characters, at most 20)" for i in range(2, 7))
    assert str(refused.value) == (
        f"ingest.source: expected usable rows, got 7 bad of 8: {shown}, .... "
        "Mend them, or set ingest.on_bad_row: quarantine."
    )


def test_quarantine_goes_on_while_a_usable_row_is_left() -> None:
    check(rows_of(["fine", None]), on_bad_row="quarantine")
    check(rows_of(["fine"]), on_bad_row="fail")


@pytest.mark.parametrize(
    ("texts", "found"),
    [([], "got an empty source"), ([None, 1], r"got 2 bad rows: r:1 \(text is null\), r:2")],
)
def test_a_source_without_a_usable_row_is_refused(texts: list[object], found: str) -> None:
    with pytest.raises(DataError, match=f"expected at least one usable row, {found}"):
        check(rows_of(texts), on_bad_row="quarantine")


def test_an_empty_file_is_an_empty_source() -> None:
    Path("a.jsonl").touch()
    with pytest.raises(DataError, match="got an empty source"):
        check(read(jsonl()), on_bad_row="fail")


# ---- fingerprints


def test_a_fingerprint_follows_content_and_not_time() -> None:
    write_lines("d/a.jsonl", [b"1"])
    first = fingerprint(jsonl("d"))
    os.utime("d/a.jsonl", (1, 1))
    assert fingerprint(jsonl("d")) == first
    write_lines("d/a.jsonl", [b"2"])
    changed = fingerprint(jsonl("d"))
    write_lines("d/sub/b.jsonl", [b"2"])
    added = fingerprint(jsonl("d"))
    Path("d/a.jsonl").unlink()
    removed = fingerprint(jsonl("d"))
    assert len({f["digest"] for f in (first, changed, added, removed)}) == 4
    assert list(added["files"]) == ["d/a.jsonl", "d/sub/b.jsonl"]


@pytest.mark.parametrize("source", [PYTHON_DOCS, SYNTHETIC])
def test_a_fingerprint_is_stable_and_made_of_json(source: Source) -> None:
    first = fingerprint(source)
    assert first == fingerprint(source) == json.loads(json.dumps(first))
    assert first["kind"] == source.kind
    assert first["source"] == source.model_dump(mode="json")
    assert len(first["digest"]) == 32


def test_a_fingerprint_follows_the_parameters() -> None:
    other = SYNTHETIC.model_copy(update={"num_words": 31})
    assert fingerprint(SYNTHETIC)["digest"] != fingerprint(other)["digest"]


# ---- pretrained tokenizers and models

COMMIT, NEXT_COMMIT = "1" * 40, "2" * 40


def pretrained(name: str, revision: str | None = None) -> PretrainedTokenizer:
    return PretrainedTokenizer(kind="pretrained", name=name, revision=revision)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's local cache, which holds nothing of somebody/model yet."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/models--somebody--model"


def cached(cache: Path, branch: str, commit: str) -> None:
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / branch).write_text(commit, encoding="utf-8")


def test_a_tokenizer_that_is_trained_here_has_no_content_yet() -> None:
    assert fingerprint_pretrained(BpeTokenizer(kind="bpe", vocab_size=300)) == {}


def test_a_local_model_is_known_by_the_bytes_of_its_files() -> None:
    write_lines("m/config.json", [b"{}"])
    write_lines("m/model.safetensors", [b"weights"])
    first = fingerprint_pretrained(pretrained("m"))
    assert list(first["files"]) == ["m/config.json", "m/model.safetensors"]
    write_lines("m/.git/index", [b"x"])
    os.utime("m/config.json", (1, 1))
    assert fingerprint_pretrained(pretrained("m")) == first
    write_lines("m/model.safetensors", [b"Weights"])
    assert fingerprint_pretrained(pretrained("m")) != first


def test_offline_a_hub_name_is_the_commit_that_the_cache_resolves(cache: Path) -> None:
    cached(cache, "main", COMMIT)
    expected = {"name": "somebody/model", "commit": COMMIT}
    assert fingerprint_pretrained(pretrained("somebody/model")) == expected
    assert fingerprint_pretrained(pretrained("somebody/model", COMMIT)) == expected
    cached(cache, "main", NEXT_COMMIT)
    assert fingerprint_pretrained(pretrained("somebody/model"))["commit"] == NEXT_COMMIT


def test_online_a_hub_name_is_the_commit_that_the_hub_names(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache, "main", COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "repo_info", lambda *_, **__: SimpleNamespace(sha=NEXT_COMMIT))
    monkeypatch.setattr(api, "list_repo_tree", lambda *_, **__: [])
    assert fingerprint_pretrained(pretrained("somebody/model"))["commit"] == NEXT_COMMIT


@pytest.mark.parametrize("name", ["somebody/model", "./connect", "no/such/folder"])
def test_offline_a_name_that_is_nowhere_is_a_mistake(name: str, cache: Path) -> None:
    del cache
    with pytest.raises(ConfigError, match=f"ingest.tokenizer.name: '{name}'.*: expected a local"):
        fingerprint_pretrained(pretrained(name))


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (RepositoryNotFoundError, ConfigError, "not on the Hub or private. Mend name or revision"),
        (RevisionNotFoundError, ConfigError, "not on the Hub or private. Mend name or revision"),
        (HfHubHTTPError, TransientError, "the Hub did not answer"),
        (ConnectionResetError, TransientError, "expected an answer, got ConnectionResetError"),
        (OfflineModeIsEnabled, TransientError, "the Hub did not answer"),
    ],
)
def test_a_model_that_is_not_on_the_hub_is_told_from_a_hub_in_trouble(
    answer: type[Exception],
    expected: type[GdcError],
    message: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del cache

    def repo_info(*_: object, **__: object) -> None:
        if issubclass(answer, HfHubHTTPError):
            raise answer("no", response=Mock(headers={}))
        raise answer

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    with pytest.raises(expected, match=message):
        fingerprint_pretrained(pretrained("somebody/model"))


# ---- Python's own documentation


def test_python_docs_are_thousands_of_distinct_texts() -> None:
    found = read_source(PYTHON_DOCS, max_chars=100_000, seed=0)
    assert found.bad_rows.is_empty()
    assert found.rows["text"].n_unique() > 8000
    assert found.rows["source"][0] == "topics:assert:1"
    named = "json/decoder.py:JSONDecoder.decode"
    [docstring] = found.rows.filter(pl.col("source") == named)["text"]
    assert docstring.startswith("Return the Python representation of ``s``")


MODULE = b'''"""Of b."""
class A:
    """Of A."""
    async def f(self):
        """Of f."""
'''
NESTED = b'''if True:
    def g():
        """
        Of g:
          more
        """
'''
LIBRARY = {
    "b.py": MODULE,
    "a/deep.py": NESTED,
    "a/bare.py": b'def f():\n    ""\n',
    "old.py": b"print 1\n",
    "tests/b.py": b'"""Not read."""',
    "site-packages/c.py": b'"""Not read."""',
    "note.txt": b"Not read.",
}


@pytest.mark.parametrize("names", [list(LIBRARY), list(reversed(LIBRARY))])
def test_docstrings_are_named_and_ordered_whatever_the_order_on_disk(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "lib")
    for name in names:
        write_lines(f"lib/{name}", LIBRARY[name].splitlines())
    found = read_source(PYTHON_DOCS, max_chars=100_000, seed=0)
    assert found.rows.filter(~pl.col("source").str.starts_with("topics:")).rows() == [
        ("Of g:\n  more", "a/deep.py:g"),
        ("Of b.", "b.py:module"),
        ("Of A.", "b.py:A"),
        ("Of f.", "b.py:A.f"),
    ]
    assert found.bad_rows.rows() == [("old.py", "not valid Python: SyntaxError")]
    assert fingerprint(PYTHON_DOCS)["library"] == "eafac2aadd6f9f224ad628b4054e3ed2"


def test_a_python_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "lib")
    with pytest.raises(DataError, match=r"expected the standard library's source in lib, got no"):
        fingerprint(PYTHON_DOCS)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"expected pydoc_data\.topics in this Python, got none"):
        read(PYTHON_DOCS)


# ---- synthetic


def test_synthetic_rows_depend_on_the_seed_alone() -> None:
    first, again, other = (
        read_source(SYNTHETIC, max_chars=1000, seed=seed).rows for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)
    assert first["source"].to_list() == [f"synthetic:{n}" for n in range(1, 51)]


def test_synthetic_sentences_have_the_words_and_successors_asked_for() -> None:
    sentences = [t.split() for t in read(SYNTHETIC, max_chars=1000).rows["text"]]
    assert {len(words) for words in sentences} == {7}
    assert len({word for words in sentences for word in words}) <= 30
    successors: dict[str, set[str]] = {}
    for words in sentences:
        for word, successor in pairwise(words):
            successors.setdefault(word, set()).add(successor)
    assert max(map(len, successors.values())) == 3


def test_one_successor_makes_one_sentence_per_first_word() -> None:
    chain = SYNTHETIC.model_copy(update={"branching": 1})
    sentences = [t.split() for t in read(chain, max_chars=1000).rows["text"]]
    assert len({tuple(words) for words in sentences}) == len({words[0] for words in sentences})


def test_more_successors_than_words_are_refused() -> None:
    crowded = SYNTHETIC.model_copy(update={"branching": 31})
    with pytest.raises(ConfigError, match=r"branching: expected at most num_words \(30\), got 31"):
        read(crowded)


# ---- Hugging Face


def saved(texts: Sequence[object], split: str | None = None) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": list(texts), "n": list(range(len(texts)))}, split=split
    )


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_saved_data_set_is_read() -> None:
    saved(["one", "two"]).save_to_disk("d")
    assert good(hub("d")) == [("one", "d:train:1"), ("two", "d:train:2")]


def test_bad_rows_of_a_data_set_are_told() -> None:
    saved(["one", None, " "]).save_to_disk("d")
    assert read(hub("d")).bad_rows.rows() == [
        ("d:train:2", "text is null"),
        ("d:train:3", "empty text"),
    ]


def test_one_of_several_saved_splits_is_read() -> None:
    splits = datasets.DatasetDict({"train": saved(["a"]), "test": saved(["b"])})
    splits.save_to_disk("d")
    assert good(hub("d", "test")) == [("b", "d:test:1")]
    with pytest.raises(DataError, match=r"split 'dev' in d, got splits \['test', 'train'\]"):
        read(hub("d", "dev"))


def test_a_saved_split_of_another_name_is_refused() -> None:
    saved(["a"], split="test").save_to_disk("d")
    with pytest.raises(DataError, match=r"expected split 'train' in d, got splits \['test'\]"):
        read(hub("d"))


def test_a_folder_of_parquet_files_is_read_anew_each_time(no_hub: None) -> None:
    del no_hub
    Path("d").mkdir()
    for content in ("old", "new"):
        pl.DataFrame({"text": [content]}).write_parquet("d/train.parquet")
        os.utime("d/train.parquet", (1, 1))
        assert good(hub("d")) == [(content, "d:train:1")]


def test_an_unknown_split_or_column_of_a_folder_is_told_with_those_there(no_hub: None) -> None:
    del no_hub
    Path("d").mkdir()
    pl.DataFrame({"text": ["a"], "n": [1]}).write_parquet("d/train.parquet")
    with pytest.raises(DataError, match=r"data set 'd': .* got: Unknown split \"dev\".*train"):
        read(hub("d", "dev"))
    with pytest.raises(DataError, match=r"expected column 'body', got columns \['text', 'n'\]"):
        read(hub("d", text_field="body"))


def test_a_folder_or_file_that_is_no_data_set_is_refused(no_hub: None) -> None:
    del no_hub
    write_lines("d/notes.xyz", [b"x"])
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"data set 'd': expected a data set that can be loaded"):
        read(hub("d"))
    with pytest.raises(DataError, match="expected files, got an empty folder: 'empty'"):
        fingerprint(hub("empty"))
    with pytest.raises(DataError, match=r"expected a folder or a Hub name, got a file: 'd/notes"):
        fingerprint(hub("d/notes.xyz"))


def test_a_local_data_set_is_known_by_its_files_without_hidden_ones() -> None:
    write_lines("d/train.parquet", [b"x"])
    first = fingerprint(hub("d"))
    write_lines("d/.git/index", [b"x"])
    assert fingerprint(hub("d")) == first
    assert list(first["files"]) == ["d/train.parquet"]


def test_a_hub_that_does_not_answer_may_answer_later(no_hub: None) -> None:
    del no_hub
    for call in (fingerprint, read):
        with pytest.raises(TransientError, match="data set 'nobody/nothing'"):
            call(hub("nobody/nothing"))


def test_offline_the_revision_asked_for_is_the_commit(no_hub: None) -> None:
    del no_hub
    assert fingerprint(hub("nobody/nothing", revision="v1"))["commit"] == "v1"


def test_the_commit_of_a_hub_data_set_is_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(_api: object, path: str, *, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(sha=f"commit of {path} at {revision}")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    found = fingerprint(hub("somebody/something", revision="main"))
    assert found["commit"] == "commit of somebody/something at main"


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (RepositoryNotFoundError, DataError, "revision None: no such folder here, and not on the"),
        (HfHubHTTPError, TransientError, "expected an answer, got HfHubHTTPError"),
    ],
)
def test_what_is_not_on_the_hub_is_told_from_a_hub_in_trouble(
    answer: type[HfHubHTTPError],
    expected: type[GdcError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dataset_info(*_: object, revision: None) -> None:
        del revision
        raise answer("no", response=Mock(headers={}))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(expected, match=message):
        fingerprint(hub("somebody/something"))


def test_a_path_that_is_neither_a_folder_nor_a_hub_name_is_refused(no_hub: None) -> None:
    del no_hub
    for call in (fingerprint, read):
        with pytest.raises(DataError, match=r"data set '\./a/b/c'"):
            call(hub("./a/b/c"))


def test_the_lazy_imports_suffice_in_a_fresh_python() -> None:
    imports = "from gdc import config; from gdc.corpus import sources; "
    code = f"{imports}sources.fingerprint(config.{hub('a/b')!r})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr.splitlines()[-1].startswith("gdc.errors.TransientError: ingest.source: data")


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'gendatacarto\[huggingface\]'"):
        read(hub("d"))
