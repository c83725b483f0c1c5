"""Tables on disk: what is written is read back, whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from gdc.errors import DataError, SchemaError
from gdc.schema import (
    AUDIT,
    CORPUS,
    PLAN,
    SPANS,
)
from gdc.stages import runner
from gdc.workspace import tables
from tests.builders import num_bytes_held
from tests.workspace.builders import all_files, damage, table_of


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_table_is_read_as_written(name: str) -> None:
    path, schema = tables.TABLES[name]
    tables.write(name, table_of(schema))
    assert all_files() == {str(path)}
    assert_frame_equal(tables.read(name), table_of(schema))
    tables.write(name, pl.DataFrame(schema=schema))
    assert tables.read(name).is_empty()


def test_audits_are_read_as_written() -> None:
    tables.write_audit("paper", 3, table_of(AUDIT))
    assert all_files() == {"data/audits/paper-3.parquet"}
    assert_frame_equal(tables.read_audit("paper", 3), table_of(AUDIT))


def test_plans_are_read_as_written_and_those_of_former_arms_disappear() -> None:
    tables.write_plans({"none": table_of(PLAN), "former": table_of(PLAN)})
    tables.write_plans({"none": table_of(PLAN).head(1), "paper": table_of(PLAN)})
    assert all_files() == {"data/plans/none.parquet", "data/plans/paper.parquet"}
    assert_frame_equal(tables.read_plan("none"), table_of(PLAN).head(1))


def test_score_columns_follow_the_contract() -> None:
    scores = table_of(tables.TABLES["scores"][1]).with_columns(final_loss=-1.0)
    tables.write("scores", scores)
    assert_frame_equal(tables.read("scores"), scores)


def test_the_same_table_gives_the_same_bytes() -> None:
    path, schema = tables.TABLES["corpus"]
    tables.write("corpus", table_of(schema))
    first = path.read_bytes()
    tables.write("corpus", table_of(schema))
    assert path.read_bytes() == first


def test_what_is_written_some_rows_at_a_time_is_read_so_and_as_a_whole() -> None:
    schema = tables.TABLES["corpus"][1]
    parts = [table_of(schema).with_columns(sample_id=pl.lit(name)) for name in ("a", "b", "c")]
    tables.write_chunks("corpus", parts)
    assert_frame_equal(tables.read("corpus"), pl.concat(parts))
    assert_frame_equal(tables.scan("corpus").collect(), pl.concat(parts))
    batches = tables.chunks("corpus", ["text", "sample_id"], pl.col("sample_id") != "b")
    for _ in range(2):
        found = [batch.columns + batch["sample_id"].to_list() for batch in batches]
        expected = [["text", "sample_id", *[name] * parts[0].height] for name in ("a", "c")]
        assert [rows for rows in found if len(rows) > 2] == expected


def test_what_is_written_at_once_is_read_a_few_rows_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_CHUNK_BYTES", 1)
    schema = tables.TABLES["corpus"][1]
    whole = pl.concat([table_of(schema)] * 3)
    tables.write_chunks("corpus", [whole])
    found = list(tables.chunks("corpus", schema.names()))
    assert [chunk.height for chunk in found] == [1] * whole.height
    assert_frame_equal(pl.concat(found), whole)


def test_no_rows_at_all_are_a_table_too() -> None:
    schema = tables.TABLES["curated/train"][1]
    tables.write_chunks("curated/train", [])
    assert_frame_equal(tables.read("curated/train"), pl.DataFrame(schema=schema))
    assert list(tables.chunks("curated/train", ["text"])) == []


@pytest.mark.parametrize("read", [tables.read, tables.scan, lambda name: tables.chunks(name, [])])
def test_a_missing_table_is_refused(read: Callable[[str], object]) -> None:
    with pytest.raises(SchemaError, match=r"^data/corpus\.parquet: not found\. Make it again: gdc"):
        read("corpus")


def test_a_table_damaged_in_the_middle_is_refused_by_name() -> None:
    path, schema = tables.TABLES["corpus"]
    texts = pl.concat([table_of(schema)] * 500).with_columns(
        text=pl.int_range(pl.len()).hash().cast(pl.String)
    )
    tables.write_chunks("corpus", [texts])
    whole = bytearray(path.read_bytes())
    whole[40:4000] = bytes(3960)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"^data/corpus\.parquet: not a Parquet file"):
        list(tables.chunks("corpus", schema.names()))


def test_a_lack_of_memory_is_not_taken_for_damage() -> None:
    path, schema = tables.TABLES["corpus"]
    tables.write("corpus", table_of(schema))
    for naming in (tables.naming_file(path, "x"), tables.naming_damage(path.parent)):
        with pytest.raises(MemoryError, match="malloc of size 1"), naming:
            raise pa.ArrowMemoryError("malloc of size 188928 failed")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"sample_id,text\n", id="another format"),
        pytest.param(lambda whole: whole[:-20], id="cut off"),
    ],
)
def test_a_damaged_table_is_refused(damage: Callable[[bytes], bytes]) -> None:
    path, schema = tables.TABLES["corpus"]
    tables.write("corpus", table_of(schema))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"^data/corpus\.parquet: not a Parquet file"):
        tables.read("corpus")


def test_a_scan_by_chunks_has_the_rows_of_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_CHUNK_BYTES", 1)
    corpus = table_of(CORPUS)
    tables.write_chunks("corpus", [corpus, corpus[:1]])
    is_asked = (pl.col("split") == corpus["split"][0]) | (pl.col("split") == "none")
    for scan in (tables.scan, tables.scan_chunks):
        assert_frame_equal(scan("corpus").collect(), pl.concat([corpus, corpus[:1]]))
        asked = scan("corpus").filter(is_asked).select("text")
        kept = pl.concat([corpus, corpus[:1]]).filter(is_asked).select("text")
        assert_frame_equal(asked.collect(engine="streaming"), kept)
        assert scan("corpus").select(pl.len()).collect().item() == corpus.height + 1


def test_chunks_keep_no_text_of_rows_that_are_left_out() -> None:
    long, short = "x" * 1000, "y" * 100
    rows = table_of(CORPUS).with_columns(text=pl.Series([long, short]), split=pl.Series(["a", "b"]))
    tables.write_chunks("corpus", [rows])
    (chunk,) = tables.chunks("corpus", ["text"], pl.col("split") == "b")
    assert chunk["text"].to_list() == [short]
    assert num_bytes_held(chunk["text"]) < 200


def test_a_table_without_a_column_is_neither_read_nor_written() -> None:
    path, schema = tables.TABLES["corpus"]
    lacking = table_of(schema).drop("split")
    with pytest.raises(SchemaError, match=r"^data/corpus\.parquet: expected .*'split'.*, got "):
        tables.write("corpus", lacking)
    assert all_files() == set()
    path.parent.mkdir()
    lacking.write_parquet(path)
    with pytest.raises(SchemaError, match=r"^data/corpus\.parquet: expected .*'split'.*, got "):
        tables.read("corpus")


class DiskFullError(OSError):
    """What a test makes a writer raise."""


def break_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(_: pl.DataFrame | pl.LazyFrame, file: Path, **_options: object) -> None:
        file.write_bytes(b"half")
        raise DiskFullError

    monkeypatch.setattr(pl.DataFrame, "write_parquet", write_half)
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", write_half)


def test_a_crash_leaves_the_old_table_and_no_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    path, schema = tables.TABLES["canaries"]
    tables.write("canaries", table_of(schema))
    before = path.read_bytes()
    break_disk(monkeypatch)
    with pytest.raises(DiskFullError):
        tables.write("canaries", table_of(schema).head(1))
    assert all_files() == {str(path)}
    assert path.read_bytes() == before


def test_a_crash_leaves_no_new_table(monkeypatch: pytest.MonkeyPatch) -> None:
    break_disk(monkeypatch)
    with pytest.raises(DiskFullError):
        tables.write("canaries", table_of(tables.TABLES["canaries"][1]))
    assert all_files() == set()


def test_a_crash_leaves_the_old_folder_and_no_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write_plans({"old": table_of(PLAN)})
    break_disk(monkeypatch)
    with pytest.raises(DiskFullError):
        tables.write_plans({"new": table_of(PLAN)})
    assert list(Path("data").iterdir()) == [Path("data/plans")]
    assert all_files() == {"data/plans/old.parquet"}


def test_a_table_sunk_is_a_table_written_byte_by_byte() -> None:
    table = table_of(PLAN)
    tables.write_table(Path("written.parquet"), table, PLAN)
    tables.sink_table(Path("sunk.parquet"), table.lazy(), PLAN)
    assert Path("sunk.parquet").read_bytes() == Path("written.parquet").read_bytes()
    with pytest.raises(SchemaError, match=r"^sunk\.parquet: expected .*'reason'.*, got "):
        tables.sink_table(Path("sunk.parquet"), table.drop("reason").lazy(), PLAN)


def test_few_rows_are_in_memory_while_a_large_table_is_sunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = pl.concat([table_of(CORPUS)] * 3)
    tables.write_chunks("corpus", [corpus[:4], corpus[4:]])
    assert tables.group_rows("corpus") is None
    metadata = pq.ParquetFile(tables.TABLES["corpus"][0]).metadata
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(2))
    monkeypatch.setattr(tables, "_GROUP_BYTES", num_bytes / 3)
    assert tables.group_rows("corpus") == 2
    tables.sink_table(Path("sunk.parquet"), tables.scan("corpus"), CORPUS, group_rows=2)
    sunk = pq.ParquetFile("sunk.parquet").metadata
    assert [sunk.row_group(group).num_rows for group in range(sunk.num_row_groups)] == [2, 2, 2]


@pytest.mark.slow
def test_whatever_byte_of_a_table_is_damaged_the_message_names_the_file() -> None:
    """Or other values are read, which Parquet does not notice; never an error of polars."""
    tables.write("spans", table_of(SPANS))
    path = tables.TABLES["spans"][0]
    whole, num_refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            tables.read("spans")
        except (DataError, SchemaError) as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - not every byte is refused
            num_refused += 1
    assert num_refused > 100


def test_a_table_whose_damage_a_stage_meets_late_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_require_known_code", lambda: None)
    tables.write("corpus", table_of(CORPUS))
    damage(tables.TABLES["corpus"][0], 4)

    def main() -> None:
        tables.scan("corpus").collect()

    with pytest.raises(SystemExit, match="2"):
        runner.run(main)
    said = capsys.readouterr().err
    assert said.startswith("error: data/corpus.parquet: not a Parquet file")
    assert said.endswith("Make it again: gdc run.\n")
