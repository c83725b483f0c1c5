"""What stage `train` records besides the trace -> drops of the hardest tokens, gains of the steps.

Both cost something while training, none afterwards.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.scores.calibrated import MIN_HELDOUT, least_squares, require_heldout

HARD_PART: Final = 5
"""One token of so many is a hard one."""


@dataclass(frozen=True)
class HardTokens:
    """``sample_id``, ``hard_early`` and ``hard_drop`` of the training and of the held-out samples.

    Of a sample's hardest tokens: their mean loss at the first frozen look, and how much lower their
    mean is after the last step, nats per token. ``heldout`` is sorted by ``sample_id``, as sums of
    floats depend on their order.
    """

    samples: pl.DataFrame
    heldout: pl.DataFrame

    @property
    def early(self) -> pl.Expr:
        """``hard_early`` in a table that ``samples`` was joined to."""
        return pl.col("hard_early")

    @property
    def drop(self) -> pl.Expr:
        """``hard_drop`` in a table that ``samples`` was joined to."""
        return pl.col("hard_drop")


def hard_tokens_of(tokens: tuple[pl.DataFrame, pl.DataFrame]) -> HardTokens:
    """Reduce the ``TOKEN_LOSSES`` of the training and of the held-out samples."""
    samples, heldout = (_reduced(table) for table in tokens)
    return HardTokens(samples, heldout.sort("sample_id"))


def _reduced(tokens: pl.DataFrame) -> pl.DataFrame:
    num_tokens = tokens["early"].list.len().to_numpy().astype(np.int64)
    early, late = (
        tokens[name].explode().to_numpy().astype(np.float64) for name in ("early", "late")
    )
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)
    # Of equally hard tokens the first; samples stay together and in their order.
    hardest_first = np.lexsort((-early, sample))
    ordinal = np.arange(len(sample)) - np.repeat(num_tokens.cumsum() - num_tokens, num_tokens)
    num_hard = np.maximum(1, num_tokens // HARD_PART)
    hard = hardest_first[ordinal < num_hard[sample]]

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(sample[hard], weights=values[hard], minlength=len(num_hard))
        return np.asarray(sums / num_hard, dtype=np.float64)

    return tokens.select(
        "sample_id", hard_early=pl.Series(mean(early)), hard_drop=pl.Series(mean(early - late))
    )


def hard_token_drop(tokens: HardTokens) -> pl.Expr:
    """Drop of the loss of the sample's hardest tokens, minus what is expected of held-out text.

    Nats per token, any sign. Of n tokens it reads the floor(n / 5) with the highest loss at the
    first frozen look, and one where that is none. What is expected is a least-squares line through
    the held-out samples, of the same drop on the mean first loss of the same tokens: the harder
    they were, the more they fall in unseen text too, by learning and by regression to the mean.
    Beyond the first losses of the held-out samples it is that of their ends.

    Needs: the losses of all tokens at two looks, ``train.token_losses``. Cost: a pass over the
    texts for each look that is no probe, and two float32 for each token.

    Source: our own; the calibration of ``calibrated_drop`` for few tokens.

    Raises:
        DataError: There are fewer than ``MIN_HELDOUT`` held-out samples.
    """
    require_heldout("hard_token_drop", tokens.heldout.height, MIN_HELDOUT)
    known, drop = (tokens.heldout[name].to_numpy() for name in ("hard_early", "hard_drop"))
    intercept, (slope,) = least_squares(known[:, None], drop)
    expected = intercept + tokens.early.clip(known.min(), known.max()) * float(slope)
    return tokens.drop - expected


def self_influence(gain: pl.Expr) -> pl.Expr:
    """Loss before minus loss after each optimizer step that the sample was in, summed.

    Nats per token, any sign. A step is that of a whole batch, so what like samples in it teach of
    this one counts too. Null: never trained on. Needs: the gains of the run,
    ``train.self_influence``. Cost: one more pass of each batch.

    Source: Pruthi et al. 2020, arXiv:2002.08484 (TracIn), with the step taken for its gradient.
    """
    return gain
