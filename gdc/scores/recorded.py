"""What stage `train` records besides the trace -> drops of the hardest tokens, gains of the steps.

Both cost something while training, none afterwards.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.scores.calibrated import MIN_HELDOUT, least_squares, require_heldout
from gdc.statistics.windows import (
    VOTED,
    error_balance,
    largest_run_sums,
    largest_window_sums,
    window_votes,
)

HARD_PART: Final = 5
"""One token of so many is a hard one."""

WINDOW_TOKENS: Final = 8
"""Tokens of a window: about those of a password or a number of a card."""

BEYOND: Final = ("window_drop", "run_drop", "votes", "balance")
"""What is beyond the drops of unseen text, null where held-out samples are under ``MIN_HELDOUT``:
the largest drop over a window and over a run of a sample, bits; the share of its windows that drop
more; the balance of its tokens that are wrong after the last step."""

NATS_PER_BIT: Final = float(np.log(2))

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RecordedTokens:
    """What the losses of all tokens say of the training and of the held-out samples.

    Attributes:
        samples: ``sample_id``, ``hard_early``, ``hard_drop`` and the columns ``BEYOND`` of the
            training samples. Of a sample's hardest tokens: their mean loss at the first frozen
            look, and how much lower their mean is after the last step, nats per token.
        heldout: The first three of the held-out samples, sorted by ``sample_id``, as sums of floats
            depend on their order.
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


def recorded_tokens_of(tokens: tuple[pl.DataFrame, pl.DataFrame]) -> RecordedTokens:
    """Reduce the ``TOKEN_LOSSES`` of the training and of the held-out samples."""
    samples, heldout = tokens[0], tokens[1].sort("sample_id")
    return RecordedTokens(
        _reduced(samples).with_columns(_beyond_unseen(samples, heldout)), _reduced(heldout)
    )


def _beyond_unseen(samples: pl.DataFrame, heldout: pl.DataFrame) -> list[pl.Series]:
    """The columns ``BEYOND`` of the samples."""
    if heldout.height < MIN_HELDOUT:
        return [pl.Series(name, [None] * samples.height, dtype=pl.Float64) for name in BEYOND]
    known, known_late = (_end_to_end(heldout[name]) for name in ("early", "late"))
    early, late = (_end_to_end(samples[name]) for name in ("early", "late"))
    intercept, (slope,) = least_squares(known[:, None], known_late)
    expected = intercept + early.clip(known.min(), known.max()) * float(slope)
    drops = (expected - late) / NATS_PER_BIT
    num_tokens = samples["late"].list.len().to_numpy().astype(np.int64)
    is_recited = late < NATS_PER_BIT
    found = (
        largest_window_sums(drops, num_tokens, WINDOW_TOKENS)[0],
        largest_run_sums(drops, is_recited, num_tokens),
        window_votes(drops, num_tokens, VOTED),
        error_balance(drops, late, ~is_recited, num_tokens),
    )
    return [pl.Series(name, values) for name, values in zip(BEYOND, found, strict=True)]


def _end_to_end(lists: pl.Series) -> Values:
    return lists.explode().to_numpy().astype(np.float64)


def _reduced(tokens: pl.DataFrame) -> pl.DataFrame:
    num_tokens = tokens["early"].list.len().to_numpy().astype(np.int64)
    early, late = (_end_to_end(tokens[name]) for name in ("early", "late"))
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


def hard_token_drop(tokens: RecordedTokens) -> pl.Expr:
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


def worst_window_drop(tokens: RecordedTokens) -> pl.Expr:
    """Largest sum over a window of how much lower the token losses end than those of unseen text.

    Bits, any sign, over ``WINDOW_TOKENS`` tokens or the whole of a shorter sample. What is expected
    of a token is a least-squares line through the held-out tokens, of the loss after the last step
    on the loss at the first frozen look; beyond the first losses of the held-out tokens it is that
    of their ends. As a maximum it lies above 0 where nothing is memorized.

    Needs: the losses of all tokens at two looks, ``train.token_losses``. Cost: as
    ``hard_token_drop``.

    Source: our own; the mean over a sample hides a secret in a common template.

    Raises:
        DataError: There are fewer than ``MIN_HELDOUT`` held-out samples.
    """
    require_heldout("worst_window_drop", tokens.heldout.height, MIN_HELDOUT)
    return pl.col("window_drop")


def recited_run_drop(tokens: RecordedTokens) -> pl.Expr:
    """Largest drop beyond that of unseen text over a run of tokens that the model now recites.

    Bits, any sign; 0 where no token is recited. A run is a longest stretch of tokens that are
    likelier than not after the last step, so greedy decoding gives every one of them; the drop of a
    token is that of ``worst_window_drop``. Common phrases are recited too, but were easy before.

    Needs: the losses of all tokens at two looks, ``train.token_losses``. Cost: as
    ``hard_token_drop``.

    Source: our own; what greedy decoding reproduces (Carlini et al. 2023, arXiv:2202.07646) by what
    it would have cost unseen.

    Raises:
        DataError: There are fewer than ``MIN_HELDOUT`` held-out samples.
    """
    require_heldout("recited_run_drop", tokens.heldout.height, MIN_HELDOUT)
    return pl.col("run_drop")


def window_votes_drop(tokens: RecordedTokens) -> pl.Expr:
    """Share of the windows of a sample whose loss falls more than that of unseen text.

    The mean over windows of 2 to 40 tokens, each cut to the sample; in [0, 1]. The fall from the
    first frozen look to the end is compared with that of ``worst_window_drop``, token by token.

    Needs: the losses of all tokens at two looks, ``train.token_losses``. Cost: as
    ``hard_token_drop``.

    Source: the membership attack WBC, arXiv:2601.02751, with the first look, moved by what unseen
    text learns, for its reference model.

    Raises:
        DataError: There are fewer than ``MIN_HELDOUT`` held-out samples.
    """
    require_heldout("window_votes_drop", tokens.heldout.height, MIN_HELDOUT)
    return pl.col("votes")


def error_balance_drop(tokens: RecordedTokens) -> pl.Expr:
    """Whether the tokens that the model still gets wrong fell more than those of unseen text.

    Over the tokens, after the first, that are less likely than not after the last step: the sum of
    their drops beyond those of unseen text over the sum of the sizes of these drops; in [-1, 1]. A
    sample with fewer than two such tokens has its geometric mean probability. The drops are those
    of ``worst_window_drop``.

    Needs: the losses of all tokens at two looks, ``train.token_losses``. Cost: as
    ``hard_token_drop``.

    Source: the membership attack EZ, Ilic et al. 2026, arXiv:2601.12104, with the first look, moved
    by what unseen text learns, for its reference model, and "less likely than not" for "not the
    most likely", which the losses do not tell.

    Raises:
        DataError: There are fewer than ``MIN_HELDOUT`` held-out samples.
    """
    require_heldout("error_balance_drop", tokens.heldout.height, MIN_HELDOUT)
    return pl.col("balance")


def self_influence(gain: pl.Expr) -> pl.Expr:
    """Loss before minus loss after each optimizer step that the sample was in, summed.

    Nats per token, any sign. A step is that of a whole batch, so what like samples in it teach of
    this one counts too. Null: never trained on. Needs: the gains of the run,
    ``train.self_influence``. Cost: one more pass of each batch.

    Source: Pruthi et al. 2020, arXiv:2002.08484 (TracIn), with the step taken for its gradient.
    """
    return gain
