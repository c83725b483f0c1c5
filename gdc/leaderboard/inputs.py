"""What a leaderboard is made of: the scores, and what half-models know of the same samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.leaderboard.board import FamilySize
from gdc.recording.trace import Trace
from gdc.statistics import ranks
from gdc.statistics.bootstrap import cluster_weights

NUM_RESAMPLES: Final = 500
# One row is a training sample; all but its ids are null for ordinary text.
TRAINED: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "content_id": pl.String,
        "family": pl.String,
        "num_repeats": pl.Int64,
        "is_extracted": pl.Boolean,  # the tracked runs reproduce the canary's secret greedily
    }
)

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ScoreTables:
    """The scores that are evaluated, and the traces that they were computed from.

    Attributes:
        table: ``SCORES`` table with its further columns, means over the tracked runs.
        runs: The same of each tracked run alone, without ``first_learned``.
        traces: Traces of the same runs.
        mode: Mode of the checkpoints that the scores read.
        seconds: What each score takes to compute, including the training of the models that it
            needs besides the tracked runs; None: not known.
        num_references: Reference models that were trained.
    """

    table: pl.DataFrame
    runs: Sequence[pl.DataFrame]
    traces: Sequence[Trace]
    mode: str
    seconds: Mapping[str, float | None] = field(default_factory=dict)
    num_references: int = 0


@dataclass(frozen=True)
class GroundTruth:
    """Counterfactual memorization of the training samples, in the order of ``samples``."""

    samples: pl.DataFrame  # TRAINED, sorted by sample_id
    memorization: Values  # of the whole sample, nats per token
    peak: Values  # of its worst window, bits
    seed: int  # of the resamples

    @cached_property
    def is_ordinary(self) -> Mask:
        """Samples that are no planted canaries."""
        return self.samples["family"].is_null().to_numpy()

    @cached_property
    def weights(self) -> NDArray[np.uint16]:
        """How often each resample draws each sample; samples of one content are drawn together.

        The first row is all ones: the samples themselves.
        """
        contents = ranks.codes(self.samples["content_id"].rank("dense").to_numpy())
        resamples = cluster_weights(contents, num_resamples=NUM_RESAMPLES, seed=self.seed)
        return np.vstack([np.ones_like(resamples[:1]), resamples])

    @cached_property
    def families(self) -> Mapping[str, "Family"]:
        """The canaries of each family."""
        rows = self.samples.with_row_index("row").drop_nulls("family")
        return {
            str(name): _family(table)
            for (name,), table in rows.sort("family").group_by("family", maintain_order=True)
        }


@dataclass(frozen=True)
class Family:
    """The canaries of a family; all copies of a canary count as one."""

    num_repeats: NDArray[np.int64]
    is_extracted: Mask
    rows: Sequence[NDArray[np.int64]]  # the copies of each canary

    @cached_property
    def is_extreme(self) -> Mask:
        """Canaries planted once, or as often as any of the family."""
        return np.isin(self.num_repeats, [1, self.num_repeats.max()])

    @property
    def size(self) -> FamilySize:
        """Number of canaries in each group."""
        most = int(self.num_repeats.max())
        num_most = int(((self.num_repeats == most) & (self.num_repeats > 1)).sum())
        num_once = int((self.num_repeats == 1).sum())
        return FamilySize(most, num_most, num_once, int(self.is_extracted.sum()))


@dataclass(frozen=True)
class HalfModels:
    """What models that were trained on halves of the samples, and that no score has used, know.

    Attributes:
        references: ``REFERENCES`` table, models 2k and 2k + 1 on complementary halves.
        token_losses: Losses of all tokens under each model, as lists, by ``sample_id``.
        window_tokens: Tokens of a window of the peak.
    """

    references: pl.DataFrame
    token_losses: Sequence[pl.Series]
    window_tokens: int


def _family(table: pl.DataFrame) -> Family:
    canaries = (
        table.sort("content_id", "row")
        .group_by("content_id", maintain_order=True)
        .agg("row", pl.col("num_repeats", "is_extracted").first())
    )
    return Family(
        num_repeats=canaries["num_repeats"].to_numpy(),
        is_extracted=canaries["is_extracted"].to_numpy(),
        rows=[np.array(copies, dtype=np.int64) for copies in canaries["row"].to_list()],
    )
