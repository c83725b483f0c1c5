"""Paths, bad rows and fingerprints of sources of every kind."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from gdc.config import IngestConfig, Source
from gdc.corpus.sources import (
    SourceRows,
    fingerprint,
    require_usable,
)
from gdc.corpus.sources.rows import Row, collect
from gdc.errors import DataError
from tests.builders import params_with
from tests.corpus.sources.builders import (
    MAX_CHARS,
    PYTHON_DOCS,
    SYNTHETIC,
    check,
    jsonl,
    parquet,
    read,
    text,
    write_lines,
)


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


def ingest_of(source: Source, on_bad_row: str) -> IngestConfig:
    values = params_with().ingest.model_dump()
    return IngestConfig.model_validate(
        {**values, "source": source.model_dump(), "on_bad_row": on_bad_row}
    )


def test_bad_rows_among_the_first_are_refused_before_a_run() -> None:
    few = [b'{"text": "a"}', b'{"text": 3}', b"not JSON"]
    write_lines("few.jsonl", few)
    expected = (
        r"got 2 bad of 3: few\.jsonl:2 \(expected a string, got int\), few\.jsonl:3 \(not JSON"
    )
    with pytest.raises(DataError, match=expected):
        require_usable(ingest_of(jsonl("few.jsonl"), "fail"), seed=0)
    require_usable(ingest_of(jsonl("few.jsonl"), "quarantine"), seed=0)
    write_lines("many.jsonl", few + 100 * few[:1])
    with pytest.raises(DataError, match=r"got 2 bad of the first 100: many\.jsonl:2 "):
        require_usable(ingest_of(jsonl("many.jsonl"), "fail"), seed=0)
    write_lines("late.jsonl", 100 * few[:1] + few)
    require_usable(ingest_of(jsonl("late.jsonl"), "fail"), seed=0)


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
