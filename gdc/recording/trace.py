"""The loss trace, a folder of Parquet files -> every sample's loss at every checkpoint.

A trace has this form, whichever program wrote it::

    checkpoints.parquet        required: a row for each checkpoint
        checkpoint     Int64    number of the checkpoint, from 0, rising from row to row
        step           Int64    optimizer steps taken when the losses were complete, not null
        epoch          Float64  epochs trained by then, with fractions; null: not known
        mode           String   "online": each loss is from the training pass, before the update;
                                "probe": all losses are from the frozen model in evaluation mode
        learning_rate  Float64  rate of the last optimizer step; null: not known
    train/index.parquet        required: a row for each training sample
        sample_id      String   not null, each id once
        num_tokens     Int64    predicted tokens of the sample, at least 1
        [original_id   of any type, written by gdc.TraceRecorder: the id as it was given, of which
                       sample_id is the text]
    train/loss_000.parquet     required: one for each checkpoint, by its number in three digits or
                               more; rows as in index.parquet
        loss_000       Float32  mean cross-entropy of the sample's tokens in nats per token, finite
                                and at least 0; null or NaN: the sample was not seen
    heldout/index.parquet      optional: held-out samples, with the columns of train/index.parquet;
                               last, never-planted twins of canaries: their ids start with "twin:"
    heldout/loss_000.parquet   optional: their losses under the frozen model, as those of train/
    tokens.parquet             optional: a row for each training sample, in the order of the index
        sample_id      String
        early          List(Float32)  loss of each of the num_tokens tokens in nats, finite, under
                                      the frozen model at the first probe; in a run without probes
                                      at the end of the first epoch
        late           List(Float32)  the same after the last step
        [token_ids     List(Int64), written by gdc.TraceRecorder: the predicted tokens, so that
                       a tokenizer can tell where in the text each stands
         early_checkpoint, late_checkpoint  Int64, of the probes that the losses are of]
    heldout_tokens.parquet     optional: the same of the held-out samples
    self_influence.parquet     optional: a row for each training sample, in the order of the index
        sample_id      String
        gain           Float64  loss before minus loss after each step with the sample, summed, in
                                nats per token; null: never trained on
    first_seen.parquet         optional: a row for each training sample, in the order of the index
        sample_id      String
        step           Int64    optimizer steps taken after the first batch that it was in; null:
                                never trained on
    base.parquet               optional: a row for each training sample, in the order of the index
        sample_id      String
        loss           Float32  loss in nats per token before the first step, of a run that starts
                                from a pretrained model
    checksums.json             optional, in each folder: {file name: BLAKE2b, 16 bytes, in hex} of
                               the Parquet files in it

Columns have this order; a file of losses holds its one column, the others may hold further columns
after these. ``gdc map`` reads what is required; the pipeline also reads ``heldout/``.

A trace that several processes wrote has, in place of the files in ``train/``, the folders
``train/shard_00000``, ``train/shard_00001`` and so on, each with an index and loss files of its
own. Their rows follow each other in the order of the shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from gdc.schema import TOKEN_LOSSES, TRACE_INDEX

# Of the token losses of each part of a trace.
TOKEN_FILES: Final = {"train": "tokens.parquet", "heldout": "heldout_tokens.parquet"}
# Of what the optimizer steps taught of each training sample.
GAINS: Final = "self_influence.parquet"
# Begins the id of a twin among the held-out samples.
TWIN: Final = "twin:"


@dataclass(frozen=True)
class Trace:
    """The trace of one tracked run.

    Attributes:
        index: ``TRACE_INDEX`` table of the training samples.
        checkpoints: ``CHECKPOINTS`` table.
        losses: Rows as in ``index``, and a Float32 column ``loss_<checkpoint>`` for every row of
            ``checkpoints``: nats per token, null where the sample was not seen.
        heldout_index: ``TRACE_INDEX`` table of the held-out samples.
        heldout_losses: Their losses, in the form of ``losses``.
        twin_index: ``TRACE_INDEX`` table of never-planted twins, whose ids start with ``TWIN``.
        twin_losses: Their losses; None: there are no twins.
        name: The folder, for error messages.
        tokens: ``TOKEN_LOSSES`` tables of the training and of the held-out samples, rows as in the
            indices; None: not recorded, or not read.
        gains: ``SELF_INFLUENCE`` table, rows as in ``index``; None: not recorded, or not read.
        base: ``REFERENCE_LOSS`` table of the model that the run started from, rows as in ``index``;
            None: not recorded, or not read.
    """

    index: pl.DataFrame
    checkpoints: pl.DataFrame
    losses: pl.LazyFrame
    heldout_index: pl.DataFrame
    heldout_losses: pl.LazyFrame
    tokens: tuple[pl.DataFrame, pl.DataFrame] | None = None
    gains: pl.DataFrame | None = None
    base: pl.DataFrame | None = None
    twin_index: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TRACE_INDEX))
    twin_losses: pl.LazyFrame | None = None
    name: str = "data/trace"

    def columns(self, mode: str) -> tuple[str, ...]:
        """Names of the loss columns recorded in ``mode``, in checkpoint order."""
        return _columns(self.checkpoints, mode)


@dataclass(frozen=True)
class TraceScan:
    """The training samples of one tracked run, left on disk.

    Attributes:
        samples: The columns of ``TRACE_INDEX`` and the chosen ones of ``Trace.losses``.
        checkpoints: ``CHECKPOINTS`` table.
        num_samples: Rows of ``samples``.
        name: The folder, for error messages.
    """

    samples: pl.LazyFrame
    checkpoints: pl.DataFrame
    num_samples: int
    name: str

    def columns(self, mode: str) -> tuple[str, ...]:
        """Names of the loss columns recorded in ``mode``, in checkpoint order."""
        return _columns(self.checkpoints, mode)


def loss_column(checkpoint: int) -> str:
    """Name of a checkpoint's loss column; its file adds ``.parquet``."""
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
    """``TOKEN_LOSSES`` table of samples whose token losses stand end to end.

    Args:
        index: ``TRACE_INDEX`` table of the samples.
        early: Float32, nats, ``num_tokens`` for each sample in turn.
        late: The same.
    """
    columns = (token_lists(index["num_tokens"], losses) for losses in (early, late))
    return pl.DataFrame([index["sample_id"], *columns], schema=TOKEN_LOSSES)


def token_lists(
    num_tokens: pl.Series, values: NDArray[np.generic], dtype: type[pl.DataType] = pl.Float32
) -> pl.Series:
    """Values of tokens that stand end to end as a list for each sample, which shares the memory."""
    ends = np.concatenate([[0], num_tokens.to_numpy().cumsum(dtype=np.int64)])
    lists = pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values))
    return pl.Series(lists, dtype=pl.List(dtype))


def first_seen_table(index: pl.DataFrame, steps: NDArray[np.int64]) -> pl.DataFrame:
    """``FIRST_SEEN`` table of the samples of a ``TRACE_INDEX`` table; step 0: never trained on."""
    step = pl.Series(steps, dtype=pl.Int64)
    return index.select("sample_id", step=step.set(step == 0, None))


def gain_table(index: pl.DataFrame, gain: NDArray[np.float64]) -> pl.DataFrame:
    """``SELF_INFLUENCE`` table of the samples of a ``TRACE_INDEX`` table; NaN becomes null."""
    return index.select("sample_id", gain=pl.Series(gain, nan_to_null=True))


def base_table(index: pl.DataFrame, loss: NDArray[np.float64]) -> pl.DataFrame:
    """``REFERENCE_LOSS`` table of the samples of a ``TRACE_INDEX`` table."""
    return index.select("sample_id", loss=pl.Series(loss, dtype=pl.Float32))
