"""A score and a measured quantity -> whether the score, scaled, lies below it for every sample."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from gdc.errors import DataError
from gdc.statistics import ranks

Values = NDArray[np.float64]

BoundVerdict = Literal["refuted at every scaling", "not refuted", "nothing to bound"]


@dataclass(frozen=True)
class LowerBound:
    """Whether some c > 0 has c x score <= truth for all samples.

    Attributes:
        num_samples: Samples compared.
        num_positive: Of them, those with a score above 0; at the others every scaling holds if the
            truth is not below 0.
        num_below: Samples with a positive score whose measured truth is not above 0.
        num_refuting: Of them, those whose truth is below 0 by more than its error allows.
        scale: The largest c that the errors allow; 0: none above 0. None: no score is positive.
        tightness: Median of c x score / truth over the samples where both are positive.
        spearman: Rank correlation of score and truth.
        verdict: What follows.
    """

    num_samples: int
    num_positive: int
    num_below: int
    num_refuting: int
    scale: float | None
    tightness: float | None
    spearman: float
    verdict: BoundVerdict


def lower_bound(
    score: Values, truth: Values, error: Values, *, degrees: int, level: float = 0.05
) -> LowerBound:
    """Ask whether a non-negative score bounds a measured quantity from below, after any scaling.

    Args:
        score: One for each sample, at least 0.
        truth: The measured quantity.
        error: Its standard errors; 0 where it is exact.
        degrees: Degrees of freedom of the errors: models - 2.
        level: Chance of refuting a true bound by error alone, over all samples together.

    Raises:
        DataError: The lengths differ, a score is below 0, or a number is not finite.
    """
    _require(score, truth, error)
    # Bonferroni: a bound is a claim about all samples.
    margin = float(student.ppf(1 - level / max(1, len(score)), degrees)) * error
    is_positive = score > 0
    highest = (truth + margin)[is_positive]
    scale = None
    if is_positive.any():
        scale = max(0.0, float((highest / score[is_positive]).min()))
    both = is_positive & (truth > 0)
    num_refuting = int((highest <= 0).sum())
    verdict: BoundVerdict = "not refuted"
    if scale is None:
        verdict = "nothing to bound"
    elif num_refuting:
        verdict = "refuted at every scaling"
    return LowerBound(
        num_samples=len(score),
        num_positive=int(is_positive.sum()),
        num_below=int((truth[is_positive] <= 0).sum()),
        num_refuting=num_refuting,
        scale=scale,
        tightness=float(np.median(scale * score[both] / truth[both]))
        if scale and both.any()
        else None,
        spearman=ranks.spearman(
            ranks.codes(score), ranks.codes(truth), np.ones(len(score), dtype=np.int64)
        ),
        verdict=verdict,
    )


def _require(score: Values, truth: Values, error: Values) -> None:
    sizes = {len(score), len(truth), len(error)}
    num_odd = sum(int((~np.isfinite(values)).sum()) for values in (score, truth, error))
    if len(sizes) > 1 or num_odd or (score < 0).any():
        raise DataError(
            "lower bound: expected finite numbers of one length and scores of at least 0, got "
            f"lengths {sorted(sizes)}, {num_odd} that are not finite and "
            f"{int((score < 0).sum())} scores below 0."
        )
