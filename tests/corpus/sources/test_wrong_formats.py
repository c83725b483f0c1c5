"""Files of another shape than their kind, and rows that hold no text: the cause and the remedy."""

import gzip
import json
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gdc.config import HuggingFaceSource, JsonlSource, ParquetSource, Source, TextSource
from gdc.corpus.sources import read_source
from gdc.errors import DataError
from gdc.workspace.source_option import describe_source, source_of

ROWS = [{"text": f"n{i}"} for i in range(40)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CYRILLIC = "".join(f'{{"text": "Привет, мир {i}"}}\n' for i in range(40))


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def jsonl(path: str = "a.jsonl", field: str = "text") -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, text_field=field, key_field=None)


def parquet(field: str = "text") -> ParquetSource:
    return ParquetSource(kind="parquet", path="a.parquet", text_field=field, key_field=None)


def text(unit: str = "line") -> TextSource:
    return TextSource.model_validate({"kind": "text", "path": "a.txt", "unit": unit})


def bad_rows(source: Source) -> list[tuple[str, str]]:
    """Bad rows of a source that has no others."""
    found = read_source(source, max_chars=10_000, seed=0)
    assert found.rows.is_empty()
    return found.bad_rows.rows()


# ---- whole files


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(ROWS), id="one line"),
        pytest.param(json.dumps(ROWS, indent=2), id="indented"),
        pytest.param("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", id="a row in each line"),
        pytest.param("\ufeff [" + ",\n".join(map(json.dumps, ROWS)) + "]", id="no line of its own"),
        pytest.param(json.dumps(ROWS * 1000), id="one line of 600 kB"),
    ],
)
def test_a_json_array_is_one_bad_row_with_the_command_that_mends_it(content: str) -> None:
    Path("a.jsonl").write_text(content, encoding="utf-8")
    reason = "one JSON array and not one object per line: jq -c '.[]' FILE > NEW.jsonl"
    assert bad_rows(jsonl()) == [("a.jsonl", reason)]


def test_an_array_among_lines_costs_no_other_row() -> None:
    Path("a.jsonl").write_text('[{"text": "x"}]\n' + LINES, encoding="utf-8")
    found = read_source(jsonl(), max_chars=100, seed=0)
    assert found.rows.height == 40
    assert found.bad_rows.rows() == [("a.jsonl:1", "expected an object, got list")]


def test_indented_objects_are_told_with_the_command_that_mends_them() -> None:
    Path("a.jsonl").write_text("\n".join(json.dumps(row, indent=1) for row in ROWS))
    assert bad_rows(jsonl()) == [
        ("a.jsonl", "JSON objects over several lines: jq -c . FILE > NEW.jsonl")
    ]


@pytest.mark.parametrize(
    ("content", "program"),
    [(json.dumps(ROWS, indent=1), r"'\.\[\]'"), (LINES, r"'\.'")],
)
def test_a_json_file_is_refused_with_the_command_that_makes_lines_of_it(
    content: str, program: str
) -> None:
    Path("a.json").write_text(content)
    Path("a.json.gz").write_bytes(gzip.compress(content.encode()))
    for name in ("a.json", "a.json.gz"):
        with pytest.raises(DataError, match=rf"a \.json file\. .*: jq -c {program} FILE > NEW"):
            describe_source(name, "text")


@pytest.mark.parametrize("content", [LINES, CYRILLIC], ids=["ASCII", "Cyrillic"])
@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_wide_encodings_are_named_with_or_without_their_mark(encoding: str, content: str) -> None:
    Path("a.jsonl").write_bytes(content.encode(encoding))
    Path("a.txt").write_bytes(content.encode(encoding))
    name = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
    reason = f"not UTF-8 but {name}: iconv -f {name} -t UTF-8 FILE > NEW"
    assert bad_rows(jsonl()) == [("a.jsonl", reason)]
    for unit in ("file", "paragraph", "line"):
        assert bad_rows(text(unit)) == [("a.txt", reason)]


def test_texts_with_nulls_are_no_wide_encoding() -> None:
    Path("a.txt").write_bytes(b"abc\0" * 30 + b"\none\0two\0\n" + b"x" * 1000 + b"\0" * 500)
    assert read_source(text(), max_chars=2000, seed=0).rows.height == 3


def test_carriage_returns_alone_are_told_where_lines_matter() -> None:
    Path("a.txt").write_bytes(b"one\rtwo\rthree\r")
    Path("a.jsonl").write_bytes(LINES.replace("\n", "\r").encode())
    reason = r"lines that end in CR alone: tr '\r' '\n' < FILE > NEW"
    assert bad_rows(text("line")) == bad_rows(text("paragraph")) == [("a.txt", reason)]
    assert bad_rows(jsonl()) == [("a.jsonl", reason)]
    assert read_source(text("file"), max_chars=100, seed=0).rows.height == 1
    # One line, and a line with a CR inside, are lines.
    Path("a.txt").write_bytes(b"one\r")
    assert read_source(text(), max_chars=100, seed=0).rows["text"].to_list() == ["one"]
    Path("a.txt").write_bytes(b"one\rtwo\nthree")
    assert read_source(text(), max_chars=100, seed=0).rows.height == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(LINES.encode()), "compressed by gzip: end its name in .gz"),
        (pa.compress(LINES.encode(), codec="zstd", asbytes=True),
         "compressed by zstd: end its name in .zst"),
        (b"PK\x03\x04rest", "a zip archive: unzip it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
         "a pointer of Git LFS and not the file itself: git lfs pull"),
    ],
)  # fmt: skip
def test_other_formats_are_known_by_their_first_bytes(content: bytes, reason: str) -> None:
    Path("a.jsonl").write_bytes(content)
    Path("a.txt").write_bytes(content)
    assert bad_rows(jsonl()) == [("a.jsonl", reason)]
    assert bad_rows(text("file")) == [("a.txt", reason)]


def test_a_damaged_file_costs_no_other_file_of_its_folder() -> None:
    Path("d").mkdir()
    Path("d/a.jsonl").write_text(json.dumps(ROWS))
    Path("d/b.jsonl").write_text(LINES)
    found = read_source(jsonl("d"), max_chars=100, seed=0)
    assert found.rows.height == 40
    assert found.bad_rows["source"].to_list() == ["d/a.jsonl"]


def test_a_saved_data_set_is_known_by_its_folder() -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk("saved")
    found = read_source(source_of("saved", "text", "--corpus"), max_chars=100, seed=0)
    assert found.rows["text"].to_list() == [row["text"] for row in ROWS]


# ---- fields


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "hi"}]},
        {"conversations": [{"from": "human", "value": "hi"}]},
        {"prompt": "a", "completion": "b"},
        {"instruction": "a", "input": "", "output": "b"},
    ],
)
def test_fields_of_conversations_are_named_with_the_kind_that_reads_them(
    row: dict[str, object],
) -> None:
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    pl.DataFrame([row]).write_parquet("a.parquet")
    for source in (jsonl(), parquet()):
        with pytest.raises(DataError, match=r"set ingest\.source\.kind: chat") as refused:
            read_source(source, max_chars=100, seed=0)
        assert str(list(row)) in str(refused.value)


def test_a_field_of_lists_is_not_asked_for_a_second_time() -> None:
    row = {"messages": [{"role": "user", "content": "hi"}], "id": 1}
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    pl.DataFrame([row]).write_parquet("a.parquet")
    expected = r"expected strings in field 'messages' of a.jsonl, got lists or objects.*kind: chat"
    with pytest.raises(DataError, match=expected):
        read_source(jsonl(field="messages"), max_chars=100, seed=0)
    expected = r"a\.parquet: expected strings in column 'messages', got (large_)?list.*kind: chat"
    with pytest.raises(DataError, match=expected):
        read_source(parquet("messages"), max_chars=100, seed=0)


@pytest.mark.parametrize(("half", "other"), [("completion", "prompt"), ("prompt", "completion")])
def test_one_half_of_a_pair_is_refused_whatever_holds_it(half: str, other: str) -> None:
    row = {"prompt": "a", "completion": "b"}
    Path("a.jsonl").write_text(json.dumps(row) + "\n")
    pl.DataFrame([row]).write_parquet("a.parquet")
    datasets.Dataset.from_list([row]).save_to_disk("saved")
    expected = rf"'{half}' alone of \S+, in which '{other}' holds the other half.*kind: chat"
    saved = HuggingFaceSource(
        kind="huggingface", path="saved", name=None, split="train", revision=None, text_field=half
    )
    for source in (jsonl(field=half), parquet(half), saved):
        with pytest.raises(DataError, match=expected):
            read_source(source, max_chars=100, seed=0)


@pytest.mark.parametrize(
    ("line", "twice"),
    [('{"text": "a", "text": "b"}', "text"), ('{"text": "a", "meta": {"k": 1, "k": 2}}', "k")],
)
def test_a_field_that_stands_twice_makes_a_bad_row(line: str, twice: str) -> None:
    Path("a.jsonl").write_text(f"{LINES}{line}\n")
    found = read_source(jsonl(), max_chars=100, seed=0)
    assert found.rows.height == 40
    assert found.bad_rows.rows() == [
        ("a.jsonl:41", f"fields that stand twice in an object: ['{twice}']")
    ]


def test_two_columns_of_one_name_and_columns_of_bytes_are_refused() -> None:
    pq.write_table(
        pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "a.parquet"
    )
    expected = r"a\.parquet: expected column 'text', got 2 of this name among \['text', 'text'\]"
    with pytest.raises(DataError, match=expected):
        read_source(parquet(), max_chars=100, seed=0)
    for form in (pa.binary(), pa.large_binary(), pa.binary(1)):
        pq.write_table(pa.table({"text": pa.array([b"a"], form)}), "a.parquet")
        expected = r"a\.parquet: expected strings in column 'text', got .*binary"
        with pytest.raises(DataError, match=expected):
            read_source(parquet(), max_chars=100, seed=0)


# ---- texts without anything to see


@pytest.mark.parametrize(
    "unseen", ["\u200b", "\x00\x01\x02", "\u200b \u2060\ufeff\n", "\u00ad", "\u3000\u200d"]
)
def test_a_text_of_invisible_characters_alone_is_empty(unseen: str) -> None:
    content = json.dumps({"text": unseen}) + "\n" + json.dumps({"text": f"a{unseen}"}) + "\n"
    Path("a.jsonl").write_text(content)
    found = read_source(jsonl(), max_chars=100, seed=0)
    assert found.rows["text"].to_list() == [f"a{unseen}"]
    assert found.bad_rows.rows() == [("a.jsonl:1", "empty text")]


def test_a_line_of_invisible_characters_is_blank() -> None:
    Path("a.txt").write_text("one\n\u200b\ntwo\n", encoding="utf-8")
    for unit in ("line", "paragraph"):
        found = read_source(text(unit), max_chars=100, seed=0)
        assert found.rows.rows() == [("one", "a.txt:1"), ("two", "a.txt:3")]
        assert found.bad_rows.is_empty()
