"""Losses of another tool become a trace with the same losses, or are refused where they are."""

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import gdc
from gdc.cli import app
from gdc.commands.import_trace import Columns, import_trace
from gdc.errors import GdcError


def losses_of(folder: Path) -> dict[str, list[float | None]]:
    samples = gdc.load_trace(folder).samples.drop("num_tokens").collect()
    return {row[0]: list(row[1:]) for row in samples.iter_rows()}


def write_dynamics(folder: Path) -> None:
    """Two epochs of three samples; one is not in the second."""
    folder.mkdir()
    for epoch, ids in enumerate([[7, 3, 5], [5, 7]]):
        lines = [
            {"guid": i, f"logits_epoch_{epoch}": [math.log(i), math.log(i * 3.0)], "gold": i % 2}
            for i in ids
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"dynamics_epoch_{epoch}.jsonl").write_text(text)


def test_dynamics_of_dataset_cartography_become_a_trace(tmp_path: Path) -> None:
    write_dynamics(tmp_path / "dynamics")
    assert import_trace(tmp_path / "dynamics", tmp_path / "t", Columns(), "online") == (3, 2)
    found = losses_of(tmp_path / "t")
    likely = pytest.approx(math.log(4 / 3), rel=1e-6)  # all labels are odd: three parts of four
    assert found == {"7": [likely, likely], "3": [likely, None], "5": [likely, likely]}
    checkpoints = gdc.load_trace(tmp_path / "t").checkpoints
    assert checkpoints.select("step", "epoch").rows() == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("as_float", [False, True])
def test_a_long_table_becomes_a_trace(ending: str, as_float: bool, tmp_path: Path) -> None:
    ids = pl.Series([12, 4, 12, 4], dtype=pl.Float64 if as_float else pl.Int64)
    table = pl.DataFrame({"id": ids, "step": [20, 10, 10, 20], "loss": [1.5, 3.0, 2.0, None]})
    path = tmp_path / f"losses.{ending}"
    getattr(table, {"jsonl": "write_ndjson"}.get(ending, f"write_{ending}"))(path)
    import_trace(path, tmp_path / "t", Columns(), "probe")
    assert losses_of(tmp_path / "t") == {"12": [2.0, 1.5], "4": [3.0, None]}
    trace = gdc.load_trace(tmp_path / "t")
    assert trace.checkpoints.select("step", "mode").rows() == [(10, "probe"), (20, "probe")]
    index = pl.read_parquet(tmp_path / "t/train/index.parquet")
    assert index["original_id"].to_list() == [12, 4]


def test_columns_of_other_names_are_named_and_tokens_kept(tmp_path: Path) -> None:
    table = pl.DataFrame({"doc": ["a"], "at": [1], "ce": [0.7], "num_tokens": [9]})
    table.write_parquet(tmp_path / "losses.parquet")
    columns = ["--id-column", "doc", "--step-column", "at", "--loss-column", "ce"]
    app(
        ["import", str(tmp_path / "losses.parquet"), str(tmp_path / "t"), *columns],
        standalone_mode=False,
    )
    samples = gdc.load_trace(tmp_path / "t").samples.collect()
    assert samples.rows() == [("a", 9, pytest.approx(0.7))]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": [1], "step": [1], "value": [1.0]}, r"expected a column loss or nll for the"),
        ({"id": [1], "step": [1], "loss": [-1.0]}, r"expected losses of at least 0, .*first -1.0"),
        ({"id": [1], "step": [1], "loss": [float("inf")]}, r"expected losses of at least 0, an"),
        ({"id": [1, 1], "step": [1, 1], "loss": [1.0, 2.0]}, r"expected one loss of each sample"),
        ({"id": [1], "step": ["x"], "loss": [1.0]}, r"expected numbers in step and loss"),
        ({"id": [1], "step": [1], "loss": [None]}, r"expected losses, got none"),
    ],
)  # fmt: skip
def test_tables_that_hold_no_trace_are_refused_and_nothing_is_written(
    table: dict[str, list[Any]], message: str, tmp_path: Path
) -> None:
    pl.DataFrame(table).write_parquet(tmp_path / "losses.parquet")
    with pytest.raises(GdcError, match=message):
        import_trace(tmp_path / "losses.parquet", tmp_path / "t", Columns(), "online")
    assert [path.name for path in tmp_path.iterdir()] == ["losses.parquet"]


def test_folders_without_dynamics_and_places_that_are_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GdcError, match=r"expected dynamics_epoch_0\.jsonl and so on"):
        import_trace(tmp_path, tmp_path / "t", Columns(), "online")
    (tmp_path / "losses.txt").write_text("")
    with pytest.raises(GdcError, match=r"losses\.txt: expected a folder or a table of \.parquet"):
        import_trace(tmp_path / "losses.txt", tmp_path / "t", Columns(), "online")
    for name in ("none.csv", "nowhere"):
        with pytest.raises(GdcError, match=rf"{name}: not found"):
            import_trace(tmp_path / name, tmp_path / "t", Columns(), "online")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.tex").write_text("")
    with pytest.raises(GdcError, match=r"taken: expected no such folder yet, got one"):
        import_trace(tmp_path, tmp_path / "taken", Columns(), "online")
