"""Builders shared by all tests; none hides a number that a test asserts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc import store
from gdc.config import Params, parse_params
from gdc.schema import CHECKPOINTS, SOURCE_ROWS
from gdc.trace import Trace, loss_table

REPOSITORY = Path(__file__).parent.parent


def rows_of(texts: Sequence[str]) -> pl.DataFrame:
    """A SOURCE_ROWS table."""
    rows = [(text, f"test:{i}") for i, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=SOURCE_ROWS, orient="row")


def trace_of(curves: Mapping[str, Sequence[float]], mode: str = "online") -> Trace:
    """A trace from one loss curve per sample; NaN: not seen."""
    num_checkpoints = len(next(iter(curves.values())))
    table = np.array(list(curves.values()), dtype=np.float32)
    index = pl.DataFrame({"sample_id": list(curves), "num_tokens": [7] * len(curves)})
    rows = [(t, 10 * t, float(t), mode, 0.1) for t in range(num_checkpoints)]
    return Trace(
        index=index,
        checkpoints=pl.DataFrame(rows, schema=CHECKPOINTS, orient="row"),
        losses=loss_table(list(table.T)).lazy(),
        heldout_index=index.head(0),
        heldout_losses=loss_table(list(table[:0].T)).lazy(),
    )


def params_with(**sections: object) -> Params:
    """The repository's params.yaml with some sections replaced."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - only here

    values = YAML(typ="safe").load((REPOSITORY / store.PARAMS).read_text(encoding="utf-8"))
    return parse_params({**values, **sections}, name="test")


def losses_by_numpy(folder: Path, split: str = "train") -> NDArray[np.float32]:
    """Losses of a trace folder, samples x checkpoints, read without any code of gdc."""
    files = sorted((folder / split).glob("loss_*.parquet"))
    return np.stack([pl.read_parquet(file).to_series().to_numpy() for file in files], axis=1)
