"""A family of canaries and a score -> the AUROC of its memorized ones against all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.mapping.score_cards import Comparison, Role
from gdc.statistics import ranks
from gdc.statistics.bootstrap import stratified_weights

NUM_RESAMPLES: Final = 1000
OWN_COMPARISONS: Final[tuple[Comparison, ...]] = ("other canaries", "twins")
TEXT_COMPARISONS: Final[tuple[Comparison, ...]] = ("training text", "held-out text")

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Memorized canaries of one family and what they are compared with, by one score."""

    values: Values
    is_memorized: Mask
    seed: tuple[int, int]  # of the resamples, another for every family

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """Resamples x rows: how often each is drawn; both kinds keep their number."""
        return stratified_weights(self.is_memorized, num_resamples=NUM_RESAMPLES, seed=self.seed)

    @cached_property
    def shuffled(self) -> Mask:
        """Resamples x rows: the labels in random order."""
        rng = np.random.default_rng(self.seed)
        return rng.permuted(np.tile(self.is_memorized, (NUM_RESAMPLES, 1)), axis=1)

    @cached_property
    def codes(self) -> ranks.Codes:
        """The ordinal of each value."""
        return ranks.codes(self.values)

    @property
    def auroc(self) -> float:
        """Of memorized canaries against the others."""
        return ranks.auroc(self.codes, self.is_memorized, np.ones(len(self.values)))


@dataclass(frozen=True)
class Family:
    """The planted canaries of one family, its twins and ordinary text."""

    canaries: pl.DataFrame  # sorted by canary_id; a column for every score
    twins: pl.DataFrame  # a column for every score that twins have
    training_text: pl.DataFrame  # a column for every score
    heldout_text: pl.DataFrame  # a column for every score that held-out text has
    role: Role | None
    seed: tuple[int, int]

    @property
    def name(self) -> str:
        """Of the family."""
        return str(self.canaries["family"][0])

    @property
    def is_memorized(self) -> Mask:
        """The label of each canary."""
        return self.canaries["is_memorized"].to_numpy()

    def values(self, score: str, of: Comparison) -> Values:
        """The score of what memorized canaries are compared with; empty: it has none."""
        others = {
            "other canaries": self.canaries.filter(~pl.col("is_memorized")),
            "twins": self.twins,
            "training text": self.training_text,
            "held-out text": self.heldout_text,
        }[of]
        if score not in others.columns:
            return np.empty(0)
        return others[score].fill_nan(None).drop_nulls().to_numpy()

    def asked(self, score: str) -> list[Comparison]:
        """What the score is asked about: canaries that are not memorized and twins, else text."""
        own = [of for of in OWN_COMPARISONS if len(self.values(score, of))]
        return own or [of for of in TEXT_COMPARISONS[:1] if len(self.values(score, of))]

    def judged(self, score: str) -> Judged:
        """Memorized canaries against what the score is asked about."""
        memorized = self.canaries.filter("is_memorized")[score].to_numpy()
        others = np.concatenate([self.values(score, of) for of in self.asked(score)])
        values = np.concatenate([memorized, others])
        return Judged(values, np.arange(len(values)) < len(memorized), self.seed)

    def against(self, score: str) -> dict[Comparison, float]:
        """AUROC of memorized canaries against each of what there is to compare them with."""
        return self._aurocs(
            self.canaries.filter("is_memorized"), score, (*OWN_COMPARISONS, *TEXT_COMPARISONS)
        )

    def extracted_against_text(self, score: str) -> float | None:
        """AUROC of extracted canaries against ordinary training text; None: there are none."""
        return self._aurocs(self.canaries.filter("is_extracted"), score, TEXT_COMPARISONS[:1]).get(
            TEXT_COMPARISONS[0]
        )

    def _aurocs(
        self, canaries: pl.DataFrame, score: str, others: Sequence[Comparison]
    ) -> dict[Comparison, float]:
        known = canaries[score].fill_nan(None).drop_nulls().to_numpy()
        if not len(known):
            return {}
        return {
            of: ranks.auroc_of_groups(known, values)
            for of in others
            if len(values := self.values(score, of))
        }


def mean_auroc(families: Sequence[Judged]) -> float:
    """Mean over families of the AUROC of memorized canaries."""
    return float(np.mean([family.auroc for family in families]))


class Spread(NamedTuple):
    """A mean AUROC over families, and what it is under two kinds of resamples.

    An end of its interval is the wider one of two. One is a bootstrap over canaries, both kinds
    separately. It has no width where a few canaries happen to be in order, so the other is as wide
    as labels in random order spread about one half.
    """

    value: float
    resampled: Values
    by_chance: Values

    def low(self, tail: float) -> float:
        """The low end, with ``tail`` below it."""
        chance = np.quantile(self.by_chance, 1 - tail, method="higher")
        return max(0.0, min(np.quantile(self.resampled, tail), self.value - (chance - 0.5)))

    def high(self, tail: float) -> float:
        """The high end, with ``tail`` above it."""
        chance = np.quantile(self.by_chance, tail, method="lower")
        return min(1.0, max(np.quantile(self.resampled, 1 - tail), self.value + (0.5 - chance)))


def spread_of(families: Sequence[Judged]) -> Spread:
    """The mean AUROC of families, and those of its resamples."""
    resampled, by_chance = [], []
    for family in families:
        codes, labels = family.codes, family.is_memorized
        even = np.ones(len(labels))
        resampled.append([ranks.auroc(codes, labels, weights) for weights in family.weights])
        by_chance.append([ranks.auroc(codes, dealt, even) for dealt in family.shuffled])
    return Spread(mean_auroc(families), np.mean(resampled, axis=0), np.mean(by_chance, axis=0))
