"""Token losses under pairs of reference models and a run -> the gap of each token, with less noise.

The mean over a sample hides a stretch that is memorized, and single tokens are either recited or
not, which the mean over many smooths away. So the trees of samples are asked for tokens as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.scores.distilled_fits import (
    FIT,
    FOLDS,
    Known,
    Values,
    features,
    fit,
    others,
    require_contents,
)

WINDOW_TOKENS: Final = 12
"""Tokens of a window: about those of a planted secret. Wider ones mix one with its template."""

MAX_TOKENS: Final = 200_000
"""Tokens that trees are fitted to at most, chosen by chance; each sees ``MAX_FITTED`` of them."""

_FIT: Final[dict[str, Any]] = {**FIT, "n_estimators": 50, "min_samples_leaf": 15}
_BLOCK: Final = 100_000  # tokens whose features are in memory at a time

Counts = NDArray[np.int64]


class Tokens(NamedTuple):
    """Of some samples, one after the other; losses in nats.

    Attributes:
        num_tokens: Of each sample.
        models: Tokens x reference models.
        looks: Tokens x (first frozen look, after the last step) of the tracked run.
    """

    num_tokens: Counts
    models: NDArray[np.float32]
    looks: NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceTokens:
    """Losses of all tokens of the training samples, nats, as lists of Float32.

    Attributes:
        models: ``sample_id`` and a column for each reference model, in their order.
        looks: ``TOKEN_LOSSES`` table of the tracked run.
    """

    models: pl.DataFrame
    looks: pl.DataFrame

    def of(self, sample_ids: pl.Series) -> Tokens:
        """The losses of these samples.

        Raises:
            DataError: Those of a token are missing.
        """
        lists = sample_ids.to_frame("sample_id")
        for table in (self.models, self.looks):
            lists = lists.join(table, on="sample_id", how="left", maintain_order="left")
        lists = lists.drop("sample_id")
        lengths = lists.select(pl.all().list.len())
        num_tokens = lengths.to_series()
        is_same = pl.all_horizontal((pl.all() == num_tokens).fill_null(value=False))
        num_odd = lengths.filter(~is_same).height
        if num_odd:
            raise DataError(
                "distilled_window_gap: expected losses of as many tokens under all models and in "
                f"the run, got {num_odd} samples with other numbers. Re-run stages train and "
                "reference."
            )
        losses = np.column_stack([each.explode().to_numpy() for each in lists.iter_columns()])
        num_models = self.models.width - 1
        counts = num_tokens.to_numpy().astype(np.int64)
        return Tokens(counts, losses[:, :num_models], losses[:, num_models:])


def token_gaps(known: Known, tokens: Tokens) -> Values:
    """The expected gap of each token, nats, one sample after the other.

    Trees read what those of the samples read, and of the token its losses and gaps and its place.

    Args:
        known: Of the samples of ``tokens``, in their order.
        tokens: Losses of their tokens.

    Raises:
        DataError: There are fewer than ``MIN_CONTENTS`` contents.
    """
    require_contents(known)
    sample = np.repeat(np.arange(len(tokens.num_tokens)), tokens.num_tokens)
    read = TokenLosses(known, tokens, sample)
    pairs = range(known.out_loss.shape[1])
    chosen = np.arange(len(sample))
    if len(sample) > MAX_TOKENS:
        draws = np.random.default_rng(0).choice(len(sample), MAX_TOKENS, replace=False)
        chosen = np.sort(draws)
    fold = known.content[sample] % FOLDS
    inputs = read.features(pairs)
    predictions: Values = np.zeros(len(sample))
    for pair in pairs:
        fitted = read.features(others(pair, len(pairs)))(chosen)
        target = read.out_loss[chosen, pair] - read.in_loss[chosen, pair]
        for part in range(FOLDS):
            is_fitted = fold[chosen] != part
            predict = fit(fitted[is_fitted], target[is_fitted], _FIT)
            rows = np.flatnonzero(fold == part)
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                predictions[block] += predict(inputs(block))
    return predictions / len(pairs)


def moved(gaps: Values, num_tokens: Counts, means: Values) -> Values:
    """The same with these means over the tokens of each sample."""
    found = np.add.reduceat(gaps, np.cumsum(num_tokens) - num_tokens) / num_tokens
    return gaps + np.repeat(means - found, num_tokens)


class TokenLosses:
    """What the trees read of single tokens; losses are tokens x pairs."""

    def __init__(self, known: Known, tokens: Tokens, sample: Counts) -> None:
        self.known, self.looks, self.sample = known, tokens.looks, sample
        first_saw = known.first_saw[sample]
        first, second = tokens.models[:, ::2], tokens.models[:, 1::2]
        self.in_loss = np.where(first_saw, first, second).astype(np.float64)
        out_loss = np.where(first_saw, second, first).astype(np.float64)
        # What was taken out of the mean loss of a sample is taken out of each of its tokens.
        self.out_loss = np.column_stack(
            [
                moved(losses, tokens.num_tokens, means)
                for losses, means in zip(out_loss.T, known.out_loss.T, strict=True)
            ]
        )
        ends = np.cumsum(tokens.num_tokens)
        self.place = np.arange(len(sample)) - (ends - tokens.num_tokens)[sample]

    def features(self, pairs: Sequence[int]) -> Callable[[Counts], Values]:
        """Of some tokens: their gaps and losses, their place, and what is read of their samples."""
        of_samples = features(self.known, pairs)

        def of(rows: Counts) -> Values:
            out_loss, in_loss = (
                losses[rows][:, pairs].mean(axis=1) for losses in (self.out_loss, self.in_loss)
            )
            early, late = self.looks[rows].T
            gaps = (out_loss - late, out_loss - in_loss)
            return np.column_stack(
                [
                    *gaps,
                    out_loss,
                    in_loss,
                    early,
                    late,
                    self.place[rows],
                    of_samples[self.sample[rows]],
                ]
            )

        return of
