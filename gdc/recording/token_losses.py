"""The losses of single tokens in a probe -> the tables of a trace that spans are found with."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import ConfigError, DataError
from gdc.filesystem.table_files import read_parquet
from gdc.recording.sample_losses import causal_losses, causal_token_losses
from gdc.recording.sample_sums import fetched
from gdc.recording.trace import TOKEN_FILES, token_lists, token_table
from gdc.recording.trace_files import TraceFiles
from gdc.training.distributed import Group

# Model and batch -> losses (nats) and ids of the tokens with a loss, sample after sample, and
# the number of each sample's.
TokenLosses = Callable[[Any, Any], tuple[Any, Any, Any]]


class Tokens(NamedTuple):
    """All tokens with a loss of some samples, end to end.

    Attributes:
        losses: Float32, nats.
        ids: Int64, of the predicted tokens.
        lengths: Int64, number of each sample's.
    """

    losses: NDArray[np.float32]
    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


class TokenPass:
    """What one pass over a data set has told of tokens, batch by batch."""

    def __init__(self, num_samples: int) -> None:
        self._lengths = np.zeros(num_samples, np.int64)
        self._batches: list[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]] = []

    def sums_of(
        self, batches: Iterator[tuple[Any, ...]]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Keep the tokens of each batch, and yield its rows with loss sums and numbers."""
        for rows, *values in batches:
            losses, ids, lengths = map(fetched, values)
            self._batches.append((rows, losses.astype(np.float32), ids.astype(np.int64)))
            self._lengths[rows] = lengths
            sample = np.repeat(np.arange(len(rows)), lengths)
            sums = np.bincount(sample, losses.astype(np.float64), len(rows))
            yield rows, sums, lengths

    def joined(self, group: Group, name: str) -> Tokens:
        """The tokens of all samples, in their order, of all processes.

        Raises:
            DataError: A sample has none.
        """
        lengths = group.all_reduce(self._lengths)
        if num_empty := int((lengths == 0).sum()):
            raise DataError(
                f"{name}: token_losses: expected a token with a loss in every sample, got none in "
                f"{num_empty:,}, the first in row {int(np.argmin(lengths))}. Leave them out of the "
                "data set, or token_losses out of the call."
            )
        starts = lengths.cumsum() - lengths
        losses, ids = np.zeros(lengths.sum(), np.float32), np.zeros(lengths.sum(), np.int64)
        for rows, of_losses, of_ids in self._batches:
            # Where each token of the batch belongs.
            within = np.arange(len(of_ids)) - np.repeat(
                lengths[rows].cumsum() - lengths[rows], lengths[rows]
            )
            place = np.repeat(starts[rows], lengths[rows]) + within
            losses[place], ids[place] = of_losses, of_ids
        return Tokens(group.all_reduce(losses), group.all_reduce(ids), lengths)


def token_losses_in_use(
    losses: object,
    token_losses: TokenLosses | Literal[True],
    heldout_index: pl.DataFrame | None,
    folder: Path,
) -> TokenLosses:
    """What gives the losses of tokens; True: ``causal_token_losses``, beside the usual ``losses``.

    Raises:
        ConfigError: There are no held-out samples, which tokens are compared with, or losses of
            the user's, of which nobody knows those of tokens.
    """
    if token_losses is True and losses is not causal_losses:
        raise ConfigError(
            f"{folder}: token_losses: expected a function of model and batch, as losses= is one, "
            "got True. Give one that returns losses of all tokens, their ids, and their numbers."
        )
    if heldout_index is None or heldout_index.is_empty():
        raise ConfigError(
            f"{folder}: token_losses: expected held-out samples, which tokens are compared with, "
            "got none. Give heldout=, or leave token_losses out."
        )
    return causal_token_losses if token_losses is True else token_losses


def write_tokens(
    files: TraceFiles,
    checkpoint: int,
    indices: Mapping[str, pl.DataFrame | None],
    of_parts: Mapping[Any, Tokens | None],
) -> None:
    """Write the tables of a pass: the first one is ``early``, the last so far is ``late``.

    Args:
        files: Of the trace.
        checkpoint: Number of the pass's checkpoint.
        indices: For ``train`` and ``heldout`` the ``sample_id`` of the samples.
        of_parts: For each the tokens; nothing is written where there are none.

    Raises:
        DataError: The samples had other numbers of tokens in the first pass.
    """
    known = {part: tokens for part, tokens in of_parts.items() if tokens and files.is_main}
    if known:
        files.flush()
    for part, tokens in known.items():
        samples = indices[part]
        assert samples is not None  # noqa: S101 - what was evaluated has an index
        files.write_tokens(part, _table(files, part, checkpoint, samples, tokens))


def _table(
    files: TraceFiles, part: str, checkpoint: int, samples: pl.DataFrame, tokens: Tokens
) -> pl.DataFrame:
    path = files.folder / TOKEN_FILES[part]
    index = samples.select("sample_id", num_tokens=pl.Series(tokens.lengths, dtype=pl.Int64))
    early, first = tokens.losses, checkpoint
    if path.is_file():
        known = read_parquet(path)
        early, first = known["early"].explode().to_numpy(), known["early_checkpoint"][0]
        if not known["early"].list.len().cast(pl.Int64).equals(index["num_tokens"]):
            raise DataError(
                f"{path}: expected samples with the tokens that they had at checkpoint {first}, "
                "got other numbers. Probe the same samples in the same form."
            )
    return token_table(index, early, tokens.losses).with_columns(
        token_ids=token_lists(index["num_tokens"], tokens.ids, pl.Int64),
        early_checkpoint=pl.lit(first, pl.Int64),
        late_checkpoint=pl.lit(checkpoint, pl.Int64),
    )


def keep_tokens_until(files: TraceFiles, num_checkpoints: int) -> None:
    """Go back to what passes before a checkpoint have told; what was given before is written."""
    for part, name in TOKEN_FILES.items() if files.is_main else ():
        path = files.folder / name
        if not path.is_file():
            continue
        known = read_parquet(path)
        if known["early_checkpoint"][0] >= num_checkpoints:
            files.remove_tokens(part)
        elif known["late_checkpoint"][0] >= num_checkpoints:
            # The next pass writes it again.
            first = known.with_columns(late="early", late_checkpoint="early_checkpoint")
            files.write_tokens(part, first)
