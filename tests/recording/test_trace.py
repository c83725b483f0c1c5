"""The documented form of a trace is the one that is read and written."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.recording import trace
from gdc.recording.trace import gain_table, loss_table, token_table
from gdc.schema import CHECKPOINTS, SELF_INFLUENCE, TOKEN_LOSSES, TRACE_INDEX
from gdc.workspace import traces
from tests.builders import trace_of, with_records, write_trace

DOCUMENT = trace.__doc__ or ""


def documented_columns(file: str) -> dict[str, str]:
    """Columns and dtypes that stand below the line of a file."""
    below = re.split(rf"^    {re.escape(file)} .*\n", DOCUMENT, flags=re.MULTILINE)[1]
    block = re.split(r"^    \S|^\S", below, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^        (\w+) +(\w[\w()]*)", block, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("checkpoints.parquet", CHECKPOINTS),
        ("train/index.parquet", TRACE_INDEX),
        ("train/loss_000.parquet", loss_table([np.zeros(1, np.float32)]).schema),
        ("tokens.parquet", TOKEN_LOSSES),
        ("self_influence.parquet", SELF_INFLUENCE),
    ],
)
def test_the_documented_columns_are_those_of_the_schema(file: str, schema: pl.Schema) -> None:
    assert list(documented_columns(file).items()) == [(n, str(d)) for n, d in schema.items()]


def test_every_file_of_a_trace_is_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = with_records(trace_of({"a": [3.0], "b": [1.0]}), seed=0)
    folder = write_trace(7, written)
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    documented = set(re.findall(r"^    (\S+\.(?:parquet|json))", DOCUMENT, flags=re.MULTILINE))
    in_folders = {"train/checksums.json", "heldout/checksums.json"}
    by_training_alone = {"first_seen.parquet"}
    assert files | by_training_alone == documented | in_folders
    known = json.loads((folder / "checksums.json").read_text())
    assert {len(bytes.fromhex(digest)) for digest in known.values()} == {16}


def test_a_trace_written_from_the_document_alone_is_read(tmp_path: Path) -> None:
    checkpoints = {"checkpoint": [0, 12], "step": [3, 6], "epoch": [0.5, 1.0]}
    rest = {"mode": ["probe", "online"], "learning_rate": [0.1, 0.2], "note": ["", "more"]}
    pl.DataFrame({**checkpoints, **rest}).write_parquet(tmp_path / "checkpoints.parquet")
    for shard, ids in (("shard_00000", ["b", "a"]), ("shard_00001", ["c"])):
        folder = tmp_path / "train" / shard
        folder.mkdir(parents=True)
        index = {"sample_id": ids, "num_tokens": [4] * len(ids)}
        pl.DataFrame(index).write_parquet(folder / "index.parquet")
        for name, loss in (("loss_000", 2.0), ("loss_012", float("nan"))):
            losses = pl.DataFrame({name: [loss] * len(ids)}, schema={name: pl.Float32})
            losses.write_parquet(folder / f"{name}.parquet")
    scan = traces.scan(tmp_path)
    expected = [("b", 4, 2.0, None), ("a", 4, 2.0, None), ("c", 4, 2.0, None)]
    assert scan.samples.collect().rows() == expected
    assert (scan.columns("probe"), scan.columns("online")) == (("loss_000",), ("loss_012",))


def test_token_losses_are_cut_at_the_samples() -> None:
    index = pl.DataFrame({"sample_id": ["a", "b"], "num_tokens": [1, 2]})
    early, late = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    table = token_table(index, early, late)
    assert table.schema == TOKEN_LOSSES
    assert table.rows() == [("a", [1.0], [4.0]), ("b", [2.0, 3.0], [5.0, 6.0])]


def test_no_gain_is_null() -> None:
    index = pl.DataFrame({"sample_id": ["a", "b"], "num_tokens": [1, 2]})
    table = gain_table(index, np.array([0.5, np.nan]))
    assert table.schema == SELF_INFLUENCE
    assert table.rows() == [("a", 0.5), ("b", None)]
