"""Traces on disk: what is recorded is read back, checked."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # it has none
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.errors import DataError, SchemaError
from gdc.filesystem import table_files
from gdc.recording import trace_files
from gdc.recording.trace import Trace, first_seen_table, loss_table, token_table
from gdc.schema import (
    SELF_INFLUENCE,
    TOKEN_LOSSES,
    TRACE_INDEX,
)
from gdc.training.distributed import SINGLE_PROCESS
from gdc.workspace import paths, tables, traces
from gdc.workspace.trace_writer import TraceWriter
from tests.builders import losses_by_numpy, trace_of, write_trace
from tests.workspace.builders import NAN, damage


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_twins_stand_behind_the_held_out_samples_and_are_none_of_them() -> None:
    index = pl.DataFrame([("v-0", 5), ("twin:digits-0-00", 3)], schema=TRACE_INDEX, orient="row")
    heldout = loss_table([np.array(row, dtype=np.float32) for row in ([8, 1], [4, 2], [2, 3])])
    tokens = pl.DataFrame(
        [("v-0", [1.0] * 5, [0.5] * 5), ("twin:digits-0-00", [1.0] * 3, [0.5] * 3)],
        schema=TOKEN_LOSSES,
        orient="row",
    )
    trace = replace(
        trace_of(CURVES),
        index=trace_of(CURVES).index.with_columns(num_tokens=pl.Series([2, 1], dtype=pl.Int64)),
        heldout_index=index,
        heldout_losses=heldout.lazy(),
        tokens=(TOKENS, tokens),
    )
    write_trace(7, trace)
    for read in (traces.read(7), traces.read_folder(paths.trace_path(7))):
        assert read.heldout_index.rows() == [("v-0", 5)]
        assert read.heldout_losses.collect().rows() == [(8.0, 4.0, 2.0)]
    read = traces.read(7)
    assert read.twin_index.rows() == [("twin:digits-0-00", 3)]
    assert read.twin_losses is not None
    assert read.twin_losses.collect().rows() == [(1.0, 2.0, 3.0)]
    recorded = traces.read_token_losses(7)
    assert recorded is not None
    assert recorded[1]["sample_id"].to_list() == ["v-0"]


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
    (path.parent / trace_files.CHECKSUMS).unlink()
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


def test_first_steps_are_read_as_written_and_those_of_other_samples_are_refused() -> None:
    begun(2)
    trace = trace_with_heldout()
    writer = TraceWriter(7, trace.index, trace.heldout_index, SINGLE_PROCESS)
    writer.resume("run", 2)
    first_seen = first_seen_table(trace.index, np.array([0, 3]))
    writer.finish(trace.checkpoints[:2], None, None, first_seen)
    folder = paths.trace_path(7)
    assert first_seen["step"].to_list() == [None, 3]
    found = traces.read_first_seen(folder)
    assert found is not None
    assert_frame_equal(found, first_seen)
    (folder / traces.FIRST_SEEN_FILE).unlink()
    assert traces.read_first_seen(folder) is None
    first_seen[::-1].write_parquet(folder / traces.FIRST_SEEN_FILE)
    expected = r"first_seen\.parquet: expected the 2 samples of index .* Write the trace again"
    with pytest.raises(SchemaError, match=expected):
        traces.read_first_seen(folder)


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
    monkeypatch.setattr(trace_files, "write_parquet", refuse)
    writer.append(np.zeros(2, np.float32), np.zeros(1, np.float32))
    with pytest.raises(OSError, match="no space left"):
        writer.flush()


def refuse(*_: object) -> None:
    raise OSError("no space left")


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


@pytest.mark.parametrize("asked", [["a-0"], ["b-0"], []])
def test_token_losses_of_some_samples_are_read_group_by_group(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(table_files, "_GROUP_BYTES", 1)
    write_recorded(gains=GAINS)
    assert pq.ParquetFile(paths.trace_path(7) / "tokens.parquet").num_row_groups == TOKENS.height
    tokens = traces.read_token_losses(7, pl.Series(asked, dtype=pl.String))
    assert tokens is not None
    assert_frame_equal(tokens[0], TOKENS.filter(pl.col("sample_id").is_in(asked)))
    assert_frame_equal(tokens[1], HELDOUT_TOKENS)


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
