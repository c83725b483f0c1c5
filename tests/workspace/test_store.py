"""Tables and files on disk: what is written is read back, whole or not at all."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # it has none
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.errors import ConfigError, DataError, SchemaError
from gdc.recording.trace import Trace, loss_table, token_table
from gdc.schema import (
    AUDIT,
    CORPUS,
    HALVES,
    MASKED,
    PLAN,
    REFERENCE_LOSS,
    SELF_INFLUENCE,
    SPANS,
    TOKEN_LOSSES,
    TRACE_INDEX,
)
from gdc.stages import runner
from gdc.training.distributed import SINGLE_PROCESS
from gdc.workspace import files, paths, tables, traces
from gdc.workspace.project import TEMPORARIES
from gdc.workspace.trace_writer import TraceWriter
from tests.builders import REPOSITORY, losses_by_numpy, params_with, trace_of, write_trace

NAN = float("nan")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


VALUES: dict[pl.DataType, list[object]] = {
    pl.String(): ["é\n", None],
    pl.Int64(): [2**40, None],
    pl.Float64(): [0.1, None],
    pl.Boolean(): [True, None],
    pl.List(pl.Boolean): [[True, False], None],
    MASKED: [[{"start": 2, "end": 5}], None],
}


def table_of(schema: pl.Schema) -> pl.DataFrame:
    """Two rows that hold a value and a null in every column."""
    return pl.DataFrame({name: VALUES[dtype] for name, dtype in schema.items()}, schema=schema)


def all_files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


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


def test_no_rows_at_all_are_a_table_too() -> None:
    schema = tables.TABLES["curated/train"][1]
    tables.write_chunks("curated/train", [])
    assert_frame_equal(tables.read("curated/train"), pl.DataFrame(schema=schema))
    assert list(tables.chunks("curated/train", ["text"])) == []


# ---- refusals


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


# ---- a crash while writing


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


# Writes half a table or half a folder of plans, and dies without a way out.
KILLED_WRITE = """
import os, sys
from pathlib import Path
from gdc.workspace import files

with getattr(files, sys.argv[1])(Path(sys.argv[2])) as temporary:
    (temporary if sys.argv[1] == "new_file" else temporary / "half").write_text("half")
    print(temporary, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("writer", "name"), [("new_file", "a.json"), ("new_folder", "a")])
def test_what_a_kill_left_is_hidden_from_dvc_and_gone_after_the_next_write(
    writer: str, name: str
) -> None:
    path = Path("data") / name
    command = [sys.executable, "-c", KILLED_WRITE, writer, str(path)]
    # Twice: the second finds what the first has left, under whatever process number.
    for _ in range(2):
        left = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        assert list(Path("data").absolute().iterdir()) == [Path(left).absolute()]
    assert fnmatch(Path(left).name, TEMPORARIES)
    assert TEMPORARIES in (REPOSITORY / ".dvcignore").read_text(encoding="utf-8").splitlines()
    if writer == "new_file":
        files.write_text(path, "whole")
    else:
        with files.new_folder(path) as folder:
            (folder / "whole").touch()
        assert all_files() == {"data/a/whole"}
    assert list(Path("data").iterdir()) == [path]


# ---- the trace

CURVES = {"b-0": [4.0, 2.0, NAN], "a-0": [0.5, 0.25, 0.125]}


def trace_with_heldout() -> Trace:
    index = pl.DataFrame([("v-0", 5)], schema=TRACE_INDEX, orient="row")
    heldout = [np.array([loss], dtype=np.float32) for loss in (8.0, 4.0, 2.0)]
    return replace(trace_of(CURVES), heldout_index=index, heldout_losses=loss_table(heldout).lazy())


def test_a_trace_is_read_as_written_in_its_own_row_order() -> None:
    trace = trace_with_heldout()
    write_trace(7, trace)
    read = traces.read(7)
    for name in ("index", "checkpoints", "losses", "heldout_index", "heldout_losses"):
        assert_frame_equal(getattr(read, name), getattr(trace, name))
    assert read.columns("online") == ("loss_000", "loss_001", "loss_002")
    assert read.columns("probe") == ()


def test_a_trace_is_one_file_for_each_checkpoint_with_null_for_unseen() -> None:
    write_trace(7, trace_with_heldout())
    folder = paths.trace_path(7)
    assert np.array_equal(losses_by_numpy(folder), list(CURVES.values()), equal_nan=True)
    assert losses_by_numpy(folder, "heldout").tolist() == [[8.0, 4.0, 2.0]]
    assert pl.read_parquet(folder / "train/loss_002.parquet").to_series().is_null().sum() == 1


def test_a_shorter_trace_leaves_no_column_of_the_former_one() -> None:
    write_trace(7, trace_of(CURVES))
    write_trace(7, trace_of({"a-0": [1.0, 2.0]}))
    assert traces.read(7).losses.collect().rows() == [(1.0, 2.0)]
    assert not (paths.trace_path(7) / "train/loss_002.parquet").exists()


@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_trace_in_shards_is_the_trace_of_one_process(num_processes: int) -> None:
    trace = trace_with_heldout()
    folder = write_trace(7, trace, num_processes)
    assert len(traces.shard_folders(folder)) == num_processes
    read, scan = traces.read(7), traces.scan(folder)
    for name in ("index", "losses", "heldout_index", "heldout_losses"):
        assert_frame_equal(getattr(read, name), getattr(trace, name))
    assert scan.num_samples == 2
    assert_frame_equal(scan.samples.drop(TRACE_INDEX.names()).collect(), trace.losses.collect())


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_trace_is_verified_file_by_file(num_processes: int) -> None:
    folder = write_trace(7, trace_with_heldout(), num_processes)
    assert traces.verify(folder) == len(list(folder.rglob("*.parquet")))
    path = traces.shard_folders(folder)[-1] / "loss_002.parquet"
    damage(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"loss_002\.parquet: expected BLAKE2b [0-9a-f]{32}, got"):
        traces.verify(folder)
    path.unlink()
    with pytest.raises(SchemaError, match=r"loss_002\.parquet: not found"):
        traces.verify(folder)
    (path.parent / traces.CHECKSUMS).unlink()
    with pytest.raises(SchemaError, match=r"checksums\.json: not found"):
        traces.verify(folder)


def test_a_trace_is_read_by_what_reads_parquet() -> None:
    folder = write_trace(7, trace_of({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    files = sorted((folder / "train").glob("*.parquet"))
    polars = pl.concat([pl.scan_parquet(f) for f in files], how="horizontal").collect()
    pandas = pd.concat([pd.read_parquet(f) for f in files], axis=1)
    relation = duckdb.sql(
        f"FROM '{folder}/train/index.parquet' POSITIONAL JOIN '{folder}/train/loss_001.parquet'"
    )
    assert relation is not None
    assert polars.columns == ["sample_id", "num_tokens", "loss_000", "loss_001"]
    assert list(pandas.columns) == polars.columns
    assert list(pandas.itertuples(index=False, name=None)) == polars.rows()
    assert relation.fetchall() == polars.drop("loss_000").rows()


def test_a_file_that_nobody_took_a_checksum_of_is_not_verified() -> None:
    folder = write_trace(7, trace_with_heldout())
    part = traces.shard_folders(folder)[0]
    (part / "loss_003.parquet").write_bytes((part / "loss_002.parquet").read_bytes())
    with pytest.raises(DataError, match=r"loss_003\.parquet: expected BLAKE2b None, got"):
        traces.verify(folder)


def begun(num_checkpoints: int) -> TraceWriter:
    """A trace under way, as a killed process leaves it."""
    trace = trace_with_heldout()
    writer = TraceWriter(7, trace.index, trace.heldout_index, SINGLE_PROCESS)
    writer.resume("run", 0)
    for t in range(num_checkpoints):
        writer.append(np.array([t, t + 1], np.float32), np.array([t], np.float32))
    writer.flush()
    return writer


def test_a_trace_goes_on_where_its_run_did(workspace: Path) -> None:
    begun(3)
    trace = trace_with_heldout()
    writer = TraceWriter(7, trace.index, trace.heldout_index, SINGLE_PROCESS)
    writer.resume("run", 2)
    writer.append(np.array([8, 9], np.float32), np.array([7], np.float32))
    assert not paths.trace_path(7).exists()
    writer.finish(trace.checkpoints, None, None)
    assert losses_by_numpy(paths.trace_path(7)).tolist() == [[0, 1, 8], [1, 2, 9]]
    assert list((workspace / "work/traces").iterdir()) == []


def test_a_trace_comes_to_its_place_on_another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, within_a_disk(getattr(os, name)))
    trace = trace_with_heldout()
    folder = write_trace(7, trace)
    assert traces.verify(folder) == len(list(folder.rglob("*.parquet")))
    assert_frame_equal(traces.read(7).losses, trace.losses)
    assert [path.name for path in folder.parent.iterdir()] == ["7"]


def within_a_disk(move: Callable[..., None]) -> Callable[..., None]:
    """``work`` is one disk, all else another."""

    def moved(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if len({"work" in Path(path).parts for path in (source, target)}) > 1:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        move(source, target)

    return moved


def test_another_run_of_the_seed_leaves_nothing_of_the_former_one() -> None:
    begun(3)
    trace = trace_with_heldout()
    writer = TraceWriter(7, trace.index, trace.heldout_index, SINGLE_PROCESS)
    writer.resume("other", 0)
    assert [path.name for path in Path("work/traces/7").iterdir()] == ["other"]


def test_a_damaged_beginning_of_a_trace_is_refused() -> None:
    begun(2)
    trace = trace_with_heldout()
    damage(Path("work/traces/7/run/train/loss_000.parquet"), 30)
    writer = TraceWriter(7, trace.index, trace.heldout_index, SINGLE_PROCESS)
    for num_checkpoints in (2, 1):
        with pytest.raises(DataError, match=r"loss_000\.parquet: .* Remove work/checkpoints to"):
            writer.resume("run", num_checkpoints)
    writer.resume("run", 0)


def test_losses_that_cannot_be_written_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = begun(1)
    monkeypatch.setattr(tables, "write_table", refuse)
    writer.append(np.zeros(2, np.float32), np.zeros(1, np.float32))
    with pytest.raises(OSError, match="no space left"):
        writer.flush()


def refuse(*_: object) -> None:
    raise OSError("no space left")


def damage(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place] ^= 0xFF
    path.write_bytes(whole)


DAMAGED = r"(?s)loss_001\.parquet: not a Parquet file .* Make it again: gdc stage train\.$"


def test_a_checkpoint_damaged_in_what_it_says_of_itself_is_refused_at_once() -> None:
    write_trace(7, trace_with_heldout())
    damage(paths.trace_path(7) / "train/loss_001.parquet", -20)
    with pytest.raises(DataError, match=DAMAGED):
        traces.read(7)
    with pytest.raises(
        DataError, match=r"loss_001\.parquet: not a Parquet .* Write the trace again"
    ):
        traces.scan(paths.trace_path(7))


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
def test_a_checkpoint_damaged_in_its_losses_is_refused_where_they_are_read(
    split: str, engine: Literal["streaming", "in-memory"]
) -> None:
    write_trace(7, trace_with_heldout())
    damage(paths.trace_path(7) / split / "loss_001.parquet", 4)
    trace = traces.read(7)
    losses = trace.losses if split == "train" else trace.heldout_losses
    with pytest.raises(DataError, match=DAMAGED), tables.naming_damage(paths.trace_path(7)):
        losses.collect(engine=engine)


def test_an_error_that_is_no_damage_stays_what_it_is() -> None:
    write_trace(7, trace_with_heldout())
    with (
        pytest.raises(pl.exceptions.ComputeError, match="not of a file"),
        tables.naming_damage(paths.trace_path(7)),
    ):
        raise pl.exceptions.ComputeError("not of a file")


def test_a_trace_scan_has_the_rows_of_the_trace() -> None:
    trace = trace_with_heldout()
    write_trace(7, trace)
    scan = traces.scan(paths.trace_path(7))
    assert_frame_equal(scan.samples.collect().select(TRACE_INDEX.names()), trace.index)
    assert_frame_equal(scan.samples.drop(TRACE_INDEX.names()).collect(), trace.losses.collect())
    assert scan.columns("online") == trace.columns("online")


def test_a_table_sunk_is_a_table_written_byte_by_byte() -> None:
    table = table_of(PLAN)
    tables.write_table(Path("written.parquet"), table, PLAN)
    tables.sink_table(Path("sunk.parquet"), table.lazy(), PLAN)
    assert Path("sunk.parquet").read_bytes() == Path("written.parquet").read_bytes()
    with pytest.raises(SchemaError, match=r"^sunk\.parquet: expected .*'reason'.*, got "):
        tables.sink_table(Path("sunk.parquet"), table.drop("reason").lazy(), PLAN)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_gap_in_a_trace_is_refused(split: str) -> None:
    write_trace(7, trace_with_heldout())
    (paths.trace_path(7) / split / "loss_001.parquet").unlink()
    with pytest.raises(SchemaError, match=rf"^data/trace/7/{split}/loss_001\.parquet: not found"):
        traces.read(7)


def test_a_checkpoint_of_another_height_is_refused() -> None:
    write_trace(7, trace_with_heldout())
    path = paths.trace_path(7) / "train/loss_001.parquet"
    pl.read_parquet(path).head(1).write_parquet(path)
    with pytest.raises(SchemaError, match=r"loss_001\.parquet: expected 2 rows .*, got 1"):
        traces.read(7)


TOKENS = pl.DataFrame(
    [("b-0", [4.0, 3.0], [2.0, 1.0]), ("a-0", [0.5], [0.25])], schema=TOKEN_LOSSES, orient="row"
)
HELDOUT_TOKENS = pl.DataFrame([("v-0", [8.0] * 5, [2.0] * 5)], schema=TOKEN_LOSSES, orient="row")
GAINS = pl.DataFrame({"sample_id": ["b-0", "a-0"], "gain": [1.5, None]}, schema=SELF_INFLUENCE)


def write_recorded(
    *, tokens: pl.DataFrame = TOKENS, heldout: pl.DataFrame = HELDOUT_TOKENS, gains: pl.DataFrame
) -> None:
    trace = trace_with_heldout()
    index = trace.index.with_columns(num_tokens=pl.Series([2, 1]))
    write_trace(7, replace(trace, index=index, tokens=(tokens, heldout), gains=gains))


def test_token_losses_and_gains_are_read_as_written_beside_the_trace() -> None:
    write_recorded(gains=GAINS)
    tokens = traces.read_token_losses(7)
    assert tokens is not None
    assert_frame_equal(tokens[0], TOKENS)
    assert_frame_equal(tokens[1], HELDOUT_TOKENS)
    gains = traces.read_self_influence(7)
    assert gains is not None
    assert_frame_equal(gains, GAINS)
    assert traces.read(7).losses.collect().height == 2
    names = {"tokens.parquet", "heldout_tokens.parquet", "self_influence.parquet"}
    assert {path.name for path in paths.trace_path(7).glob("*.parquet")} - names == {
        "checkpoints.parquet"
    }


def test_what_was_not_recorded_is_none_and_a_former_record_disappears() -> None:
    write_recorded(gains=GAINS)
    write_trace(7, trace_with_heldout())
    assert traces.read_token_losses(7) is None
    assert traces.read_self_influence(7) is None


def replaced(table: pl.DataFrame, **columns: list[object]) -> pl.DataFrame:
    return table.with_columns(
        pl.Series(name, values, table.schema[name]) for name, values in columns.items()
    )


@pytest.mark.parametrize(
    ("tables", "error", "message"),
    [
        pytest.param(
            {"tokens": TOKENS.reverse()},
            SchemaError,
            r"tokens\.parquet: expected the 2 samples of index in its order, got 2 rows",
            id="another order",
        ),
        pytest.param(
            {"heldout": TOKENS},
            SchemaError,
            r"heldout_tokens\.parquet: expected the 1 samples of index in its order, got 2 rows",
            id="other samples",
        ),
        pytest.param(
            {"tokens": replaced(TOKENS, early=[[4.0, 3.0, 2.0], [0.5]])},
            SchemaError,
            r"tokens\.parquet: expected num_tokens losses in early .*, got other numbers in 1",
            id="a token too many",
        ),
        pytest.param(
            {"tokens": replaced(TOKENS, late=[None, [0.5]])},
            SchemaError,
            r"tokens\.parquet: expected num_tokens losses in late .*, got other numbers in 1",
            id="no tokens",
        ),
        pytest.param(
            {"heldout": replaced(HELDOUT_TOKENS, late=[[1.0, 2.0, NAN, None, 3.0]])},
            DataError,
            r"heldout_tokens\.parquet: expected finite numbers, got 2 that are not",
            id="losses that are none",
        ),
        pytest.param(
            {"gains": GAINS.head(1)},
            SchemaError,
            r"self_influence\.parquet: expected the 2 samples of index .*, got 1 rows",
            id="a sample without a gain's row",
        ),
        pytest.param(
            {"gains": replaced(GAINS, gain=[float("inf"), None])},
            DataError,
            r"self_influence\.parquet: expected finite numbers, got 1 that are not",
            id="a gain that is no number",
        ),
    ],
)
def test_records_that_do_not_fit_the_trace_are_refused(
    tables: dict[str, pl.DataFrame], error: type[Exception], message: str
) -> None:
    write_recorded(**{"gains": GAINS, **tables})
    with pytest.raises(error, match=rf"^data/trace/7/{message}.* Make it again: gdc stage train"):
        (traces.read_token_losses(7), traces.read_self_influence(7))


@pytest.mark.parametrize("name", ["tokens", "heldout_tokens", "self_influence"])
def test_a_damaged_record_is_refused_and_says_how_to_make_it_again(name: str) -> None:
    write_recorded(gains=GAINS)
    path = paths.trace_path(7) / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{name}\.parquet: not a Parquet.*: gdc stage train"):
        (traces.read_token_losses(7), traces.read_self_influence(7))


@pytest.mark.parametrize("name", ["tokens", "heldout_tokens"])
def test_half_a_record_of_tokens_is_refused(name: str) -> None:
    write_recorded(gains=GAINS)
    (paths.trace_path(7) / f"{name}.parquet").unlink()
    with pytest.raises(SchemaError, match=rf"/{name}\.parquet: not found"):
        traces.read_token_losses(7)


@given(
    tokens=st.lists(
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=5),
        max_size=5,
    )
)
def test_a_table_of_tokens_is_cut_where_the_samples_end(
    tokens: list[list[tuple[int, int]]],
) -> None:
    rows = [(f"s{i}", len(pairs)) for i, pairs in enumerate(tokens)]
    index = pl.DataFrame(rows, schema=TRACE_INDEX, orient="row")
    flat = np.array([pair for pairs in tokens for pair in pairs], np.float32).reshape(-1, 2)
    table = token_table(index, flat[:, 0], flat[:, 1])
    assert table.schema == TOKEN_LOSSES
    assert table["sample_id"].to_list() == index["sample_id"].to_list()
    assert table["early"].to_list() == [[early for early, _ in pairs] for pairs in tokens]
    assert table["late"].to_list() == [[late for _, late in pairs] for pairs in tokens]


def test_a_missing_trace_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"^data/trace/7/checkpoints\.parquet: not found"):
        traces.read(7)


# ---- JSON

JSON = Path("reports/report.json")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(content=st.dictionaries(st.text(), values, max_size=4))
def test_equal_content_gives_equal_bytes_in_any_key_order(content: dict[str, object]) -> None:
    files.write_json(JSON, content)
    first = JSON.read_bytes()
    assert files.read_json(JSON) == content
    files.write_json(JSON, dict(reversed(content.items())))
    assert JSON.read_bytes() == first


def test_known_json_bytes() -> None:
    files.write_json(JSON, {"b": 0.1, "a": {"d": None, "c": "é"}})
    expected = '{\n  "a": {\n    "c": "é",\n    "d": null\n  },\n  "b": 0.1\n}\n'
    assert JSON.read_bytes() == expected.encode()


def test_a_missing_json_file_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"^reports/report\.json: not found"):
        files.read_json(JSON)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'{"a": ', r"not valid JSON: .*line 1", id="cut off"),
        pytest.param(b"\xff", r"not valid JSON: 'utf-8' codec", id="not UTF-8"),
        pytest.param(b"[]", r"expected an object, got list", id="a list"),
    ],
)
def test_damaged_json_is_refused_and_says_how_to_make_it_again(
    content: bytes, message: str
) -> None:
    JSON.parent.mkdir(exist_ok=True)
    JSON.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"^reports/report\.json: {message}.*\. Make it again: gdc run\.$"
    ):
        files.read_json(JSON)


# ---- params.yaml


def test_params_of_the_current_folder_are_read() -> None:
    paths.PARAMS.write_bytes((REPOSITORY / paths.PARAMS).read_bytes())
    assert files.load_params() == params_with()


def test_a_number_with_an_exponent_is_a_number() -> None:
    """YAML 1.1 reads `1e-3` as a string, YAML 1.2 and DVC as a number."""
    text = (REPOSITORY / paths.PARAMS).read_text(encoding="utf-8")
    written, num_lines = re.subn(r"(?m)^  learning_rate: \S+", "  learning_rate: 1e-3", text)
    assert num_lines == 1
    paths.PARAMS.write_text(written, encoding="utf-8")
    assert files.load_params().training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"seed: [0", r"params\.yaml: not valid YAML", id="not YAML"),
        pytest.param(b"seed: 0\nseed: 1\n", r"not valid YAML: .*duplicate key", id="key twice"),
        pytest.param(b"- seed\n", r"expected a mapping of sections, got list", id="a list"),
        pytest.param(b"", r"expected a mapping of sections, got NoneType", id="empty"),
        pytest.param(b"seed: \xff\n", r"expected UTF-8, got .*'utf-8' codec", id="not UTF-8"),
        pytest.param(b"seed: 0\n", r"params\.yaml: 12 wrong value\(s\)", id="sections missing"),
        pytest.param(b"a: !!python/name:os.system\n", r"not valid YAML", id="a Python object"),
    ],
)
def test_params_that_cannot_be_used_are_refused(content: bytes, message: str) -> None:
    paths.PARAMS.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        files.load_params()


def test_a_folder_in_the_place_of_params_is_refused() -> None:
    paths.PARAMS.mkdir()
    with pytest.raises(ConfigError, match=r"^params\.yaml: expected a file, got a folder\. Move"):
        files.load_params()


def test_missing_params_are_refused_and_the_folder_is_named(workspace: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"not found in {re.escape(str(workspace))}\. .*gdc init docs"
    ):
        files.load_params()


def halves_of(**seen: list[bool]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": list(seen), "seen": list(seen.values())}, schema=HALVES)


def test_references_join_the_losses_of_all_models() -> None:
    tables.write("halves", halves_of(b=[True, False], a=[False, True]))
    for number, losses in enumerate(([1.0, 2.0], [3.0, 4.0])):
        table = pl.DataFrame({"sample_id": ["a", "b"], "loss": losses}, schema=REFERENCE_LOSS)
        tables.write_reference(number, table)
    references = tables.read_references([0, 1])
    assert references is not None
    assert references.rows() == [("a", [1.0, 3.0], [False, True]), ("b", [2.0, 4.0], [True, False])]
    assert tables.read_references([]) is None


def test_references_that_miss_a_sample_are_refused() -> None:
    tables.write("halves", halves_of(a=[True], b=[False]))
    table = pl.DataFrame({"sample_id": ["a"], "loss": [1.0]}, schema=REFERENCE_LOSS)
    tables.write_reference(0, table)
    with pytest.raises(SchemaError, match=r"got fewer\. Re-run: gdc stage reference"):
        tables.read_references([0])


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as a test can see: what was synced, and what stood under the name then."""
    synced: list[tuple[str, bool]] = []

    def sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        synced.append((path.name, Path("data/a.json").exists() or Path("data/model/w").exists()))

    monkeypatch.setattr("os.fsync", sync)
    files.write_json(Path("data/a.json"), {})
    assert synced == [(".a.json.tmp", False), ("data", True)]
    synced.clear()
    Path("data/a.json").unlink()
    with files.new_folder(Path("data/model")) as folder:
        (folder / "w").write_text("w", encoding="utf-8")
    assert synced == [("w", False), (".model.tmp", False), ("data", True)]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_does_not_have_is_named(number: float) -> None:
    with pytest.raises(
        DataError, match=rf"a\.json: expected finite numbers, got {number} for b\[1\]\.c"
    ):
        files.write_json(Path("a.json"), {"a": 1.0, "b": [2.0, {"c": number}]})
    assert not Path("a.json").exists()


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
