"""Token losses under half-models -> counterfactual memorization of each sample's worst window.

The mean over a sample hides a secret in a common template: what leaks is a stretch of tokens.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.leaderboard.ground_truth import (
    CounterfactualMemorization,
    counterfactual_memorization,
    reliability_of,
)
from gdc.statistics.windows import largest_window_sums

NATS_PER_BIT: Final = float(np.log(2))

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TokenLosses:
    """Losses of all tokens of all samples under half-models.

    Attributes:
        losses: Nats, tokens x models; the tokens of one sample after those of the one before.
        num_tokens: Of each sample, at least 1.
        seen: Whether the model was trained on the sample, samples x models; models 2k and 2k + 1
            have complementary halves.
        window_tokens: Tokens of a window; a shorter sample is one window.
    """

    losses: NDArray[np.floating]
    num_tokens: NDArray[np.int64]
    seen: Mask
    window_tokens: int

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            DataError: The shapes differ, or a window has no token.
        """
        num_samples, num_models = self.seen.shape
        expected = (int(self.num_tokens.sum()), num_models)
        if self.losses.shape != expected or len(self.num_tokens) != num_samples:
            raise DataError(
                f"ground truth: expected token losses of {expected[0]} tokens x {num_models} "
                f"models, got {self.losses.shape}. Train those models again."
            )
        if self.window_tokens < 1:
            raise DataError(
                f"ground truth: expected a window of at least 1 token, got {self.window_tokens}."
            )

    def under(self, models: NDArray[np.int64]) -> "TokenLosses":
        """The same under some of the models."""
        losses, seen = self.losses[:, models], self.seen[:, models]
        return TokenLosses(losses, self.num_tokens, seen, self.window_tokens)

    def of(self, samples: Mask) -> "TokenLosses":
        """The same of some of the samples."""
        losses = self.losses[np.repeat(samples, self.num_tokens)]
        return TokenLosses(losses, self.num_tokens[samples], self.seen[samples], self.window_tokens)


def peak_memorization(tokens: TokenLosses) -> CounterfactualMemorization:
    """Compute the largest sum of token-level gaps over the windows of each sample.

    The gap of a token is its mean loss under the models that did not see the sample minus that
    under those that did. Of equal windows the first counts. As a maximum of noisy sums it lies
    above its expectation, the more the fewer the models.

    Returns:
        The sum over that window, in bits; its standard error is that of the window, as chosen.

    Raises:
        DataError: A loss is not finite, or a sample was seen by all models or by none.

    Source: counterfactual memorization (Zhang et al. 2021, arXiv:2112.12938) of a stretch.
    """
    starts = _peak_starts(tokens)
    ends = starts + np.minimum(tokens.num_tokens, tokens.window_tokens)
    totals = np.zeros((len(tokens.losses) + 1, tokens.losses.shape[1]))
    np.cumsum(tokens.losses, axis=0, dtype=np.float64, out=totals[1:])
    return counterfactual_memorization((totals[ends] - totals[starts]) / NATS_PER_BIT, tokens.seen)


def peak_reliability(tokens: TokenLosses, *, seed: int) -> float:
    """``reliability`` of ``peak_memorization``; either half of the models chooses its own window.

    Raises:
        DataError: As ``peak_memorization``; or there are fewer than two pairs, or a pair is not
            complementary.
    """
    return reliability_of(
        lambda models: peak_memorization(tokens.under(models)).memorization, tokens.seen, seed=seed
    )


def _peak_starts(tokens: TokenLosses) -> NDArray[np.int64]:
    seen = np.repeat(tokens.seen, tokens.num_tokens, axis=0)
    gaps = counterfactual_memorization(tokens.losses, seen).memorization
    return largest_window_sums(gaps, tokens.num_tokens, tokens.window_tokens)[1]
