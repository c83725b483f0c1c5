"""The loss trace: every sample's loss at every checkpoint, one column a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.schema import TOKEN_LOSSES


@dataclass(frozen=True)
class Trace:
    """One tracked run.

    ``losses`` has a row for every row of ``index``, in its order, and one Float32 column
    ``loss_<checkpoint>`` for every row of ``checkpoints``: nats per token, null where the sample
    was not seen. The held-out tables are alike. ``tokens`` holds the ``TOKEN_LOSSES`` of both and
    ``gains`` is a ``SELF_INFLUENCE`` table, in the same row order; None: not recorded, or not read.
    """

    index: pl.DataFrame
    checkpoints: pl.DataFrame
    losses: pl.LazyFrame
    heldout_index: pl.DataFrame
    heldout_losses: pl.LazyFrame
    tokens: tuple[pl.DataFrame, pl.DataFrame] | None = None
    gains: pl.DataFrame | None = None

    def columns(self, mode: str) -> tuple[str, ...]:
        """Names of the loss columns recorded in ``mode``, in checkpoint order."""
        return _columns(self.checkpoints, mode)


@dataclass(frozen=True)
class TraceScan:
    """The training samples of one tracked run, left on disk.

    Attributes:
        samples: The columns of ``TRACE_INDEX`` and those of ``Trace.losses`` that were asked for.
        checkpoints: ``CHECKPOINTS`` table.
        num_samples: Rows of ``samples``.
        name: The folder, for messages.
    """

    samples: pl.LazyFrame
    checkpoints: pl.DataFrame
    num_samples: int
    name: str

    def columns(self, mode: str) -> tuple[str, ...]:
        """Names of the loss columns recorded in ``mode``, in checkpoint order."""
        return _columns(self.checkpoints, mode)


def loss_column(checkpoint: int) -> str:
    """Name of a checkpoint's loss column and of its file."""
    return f"loss_{checkpoint:03d}"


def _columns(checkpoints: pl.DataFrame, mode: str) -> tuple[str, ...]:
    chosen = checkpoints.filter(pl.col("mode") == mode).sort("checkpoint")
    return tuple(loss_column(checkpoint) for checkpoint in chosen["checkpoint"])


def loss_table(losses: Sequence[NDArray[np.float32]]) -> pl.DataFrame:
    """Loss columns from one float32 array per checkpoint; NaN becomes null."""
    return pl.DataFrame(
        [pl.Series(loss_column(t), loss, nan_to_null=True) for t, loss in enumerate(losses)]
    )


def token_table(
    index: pl.DataFrame, early: NDArray[np.float32], late: NDArray[np.float32]
) -> pl.DataFrame:
    """``TOKEN_LOSSES`` of the samples of a ``TRACE_INDEX`` table from their tokens end to end."""
    row = np.repeat(np.arange(index.height), index["num_tokens"].to_numpy())
    lists = (
        pl.DataFrame({"row": row, "early": early, "late": late})
        .group_by("row", maintain_order=True)
        .agg("early", "late")
    )
    return pl.DataFrame([index["sample_id"], lists["early"], lists["late"]], schema=TOKEN_LOSSES)


def gain_table(index: pl.DataFrame, gain: NDArray[np.float64]) -> pl.DataFrame:
    """``SELF_INFLUENCE`` of the samples of a ``TRACE_INDEX`` table; NaN becomes null."""
    return index.select("sample_id", gain=pl.Series(gain, nan_to_null=True))
