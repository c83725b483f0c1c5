"""Losses under half-models -> counterfactual memorization, and its reliability."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.statistics import ranks

NUM_SPLITS: Final = 20

Values = NDArray[np.float64]


@dataclass(frozen=True)
class CounterfactualMemorization:
    """One entry for each sample.

    ``memorization`` is in nats per token, any sign; ``standard_error`` is NaN where fewer than two
    models saw the sample, or fewer than two did not.
    """

    memorization: Values
    standard_error: Values


def counterfactual_memorization(
    losses: NDArray[np.floating], seen: NDArray[np.bool_]
) -> CounterfactualMemorization:
    """Compute how much higher a sample's loss is under the models that did not see it.

    Args:
        losses: Nats per token, samples x models; the models in any order.
        seen: Whether the model was trained on the sample, in the same shape.

    Returns:
        Mean loss of the models that did not see the sample minus that of those that did, and its
        standard error sqrt(s_in^2 / K_in + s_out^2 / K_out).

    Raises:
        DataError: The two have different shapes, a loss is not finite, or a sample was seen by
            all models or by none.

    Source: Zhang et al. 2021, arXiv:2112.12938; Feldman & Zhang 2020, arXiv:2008.03703.
    """
    _require_losses(losses, seen)
    mean_in, error_in = _mean_and_error(losses, seen)
    mean_out, error_out = _mean_and_error(losses, ~seen)
    return CounterfactualMemorization(mean_out - mean_in, np.sqrt(error_in + error_out))


def reliability(losses: NDArray[np.floating], seen: NDArray[np.bool_], *, seed: int) -> float:
    """``reliability_of`` the ground truth.

    Args:
        losses: Nats per token, samples x models; models 2k and 2k + 1 have complementary halves.
        seen: Whether the model was trained on the sample, in the same shape.
        seed: Seed of the splits.

    Raises:
        DataError: As ``counterfactual_memorization``; or there are fewer than two pairs, or a pair
            is not complementary.
    """
    _require_losses(losses, seen)

    def measure(models: NDArray[np.int64]) -> Values:
        return counterfactual_memorization(losses[:, models], seen[:, models]).memorization

    return reliability_of(measure, seen, seed=seed)


def reliability_of(
    measure: Callable[[NDArray[np.int64]], Values], seen: NDArray[np.bool_], *, seed: int
) -> float:
    """Spearman correlation, in [0, 1], of a ground truth with a second measurement of it.

    The pairs of complementary models are split into two halves at random, ``NUM_SPLITS`` times;
    the mean correlation between the halves is extrapolated to the full number of pairs.

    Args:
        measure: Computes the ground truth of all samples from some of the models.
        seen: Whether the model was trained on the sample, samples x models; models 2k and 2k + 1
            have complementary halves.
        seed: Seed of the splits.

    Raises:
        DataError: There are fewer than two pairs, or a pair is not complementary.

    Source: Spearman 1910 and Brown 1910, with rank correlations in place of Pearson's.
    """
    _require_pairs(seen)
    num_pairs = seen.shape[1] // 2
    num_half = num_pairs // 2
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(num_pairs) for _ in range(NUM_SPLITS)]
    correlations = [
        _correlation(measure, order[:num_half], order[num_half : 2 * num_half]) for order in orders
    ]
    half = max(0.0, float(np.mean(correlations)))
    factor = num_pairs / num_half
    return float(factor * half / (1 + (factor - 1) * half))


def ceiling(reliability: float) -> float:
    """The highest correlation with the measured ground truth that a score can be expected to have.

    Source: the correction for attenuation, Spearman 1904.
    """
    return float(np.sqrt(reliability))


def _mean_and_error(
    losses: NDArray[np.floating], chosen: NDArray[np.bool_]
) -> tuple[Values, Values]:
    """Mean over the chosen models, and the square of its standard error."""
    count = chosen.sum(axis=1)
    mean = np.where(chosen, losses, 0).sum(axis=1, dtype=np.float64) / count
    squares = np.where(chosen, (losses - mean[:, None]) ** 2, 0).sum(axis=1, dtype=np.float64)
    error = np.full(len(mean), np.nan)
    np.divide(squares, (count - 1) * count, out=error, where=count > 1)
    return mean, error


def _correlation(
    measure: Callable[[NDArray[np.int64]], Values],
    one: NDArray[np.int64],
    other: NDArray[np.int64],
) -> float:
    """Correlation between the ground truths of two sets of pairs; 0 where one is constant."""
    codes = [
        ranks.codes(measure(np.concatenate([2 * pairs, 2 * pairs + 1]))) for pairs in (one, other)
    ]
    correlation = ranks.spearman(codes[0], codes[1], np.ones(len(codes[0])))
    return 0.0 if np.isnan(correlation) else correlation


def _require_losses(losses: NDArray[np.floating], seen: NDArray[np.bool_]) -> None:
    if losses.ndim != 2 or losses.shape != seen.shape:
        raise DataError(
            "ground truth: expected losses and seen of one shape, samples x models, got "
            f"{losses.shape} and {seen.shape}. Give one entry of each for every sample and model."
        )
    num_bad = int((~np.isfinite(losses)).sum())
    if num_bad:
        raise DataError(
            f"ground truth: expected finite losses, got {num_bad} that are not. "
            "Train those models again."
        )
    num_one_sided = int((seen.all(axis=1) | ~seen.any(axis=1)).sum())
    if num_one_sided:
        raise DataError(
            "ground truth: expected every sample seen by some models and not by others, got "
            f"{num_one_sided} samples without. Train models on complementary halves."
        )


def _require_pairs(seen: NDArray[np.bool_]) -> None:
    num_models = seen.shape[1]
    if num_models < 4 or num_models % 2:
        raise DataError(
            f"ground truth: expected an even number of at least 4 models, got {num_models}. "
            "Train more of them."
        )
    num_bad = int((seen[:, ::2] == seen[:, 1::2]).any(axis=0).sum())
    if num_bad:
        raise DataError(
            "ground truth: expected models 2k and 2k + 1 on complementary halves, got "
            f"{num_bad} pairs that are not. Keep the models in the order of their halves."
        )
