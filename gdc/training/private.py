"""Losses of texts, a clipping norm and noise -> private gradients, and the epsilon they give.

Source: Abadi et al. 2016, arXiv:1607.00133 (DP-SGD); Mironov et al. 2019, arXiv:1908.10530 (its
accountant for Poisson sampling).
"""
# ruff: noqa: PLC0415 - Opacus is an extra, and slow to import

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gdc.errors import ConfigError
from gdc.training.batches import Windows

# With so much, in clipping norms, nothing is learned; a target that needs more is out of reach.
_MAX_NOISE: Final = 2**8


@dataclass(frozen=True)
class Privacy:
    """What bounds and hides the part of one text in an update.

    Attributes:
        clip_norm: Largest norm of the gradient of one text.
        noise_multiplier: Standard deviation of the noise on each component of the sum of these
            gradients, in units of ``clip_norm``.
    """

    clip_norm: float
    noise_multiplier: float


def count_batches(windows: Windows, batch_tokens: int) -> int:
    """Batches of a pass: as many as hold ``batch_tokens`` tokens on average, or fewer."""
    return -(-int(windows.length.sum()) // batch_tokens)


def poisson_batches(
    windows: Windows, num_batches: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw for each batch each text with probability 1 / ``num_batches``, whatever the others.

    A text comes with all its windows, in several batches of a pass or in none. A batch may be
    empty.
    """
    texts, text_of_window = np.unique(windows.sequence, return_inverse=True)
    drawn = (rng.random(len(texts)) < 1 / num_batches for _ in range(num_batches))
    return [np.flatnonzero(is_drawn[text_of_window]) for is_drawn in drawn]


def set_private_gradients(
    parameters: Sequence[nn.Parameter],
    text_losses: Iterable[Tensor],
    privacy: Privacy,
    expected_texts: float,
) -> None:
    """Set the gradients to the sum of clipped ones of single texts and noise, by the expected size.

    The noise comes from torch's generator of the device.

    Args:
        parameters: Those that are trained; theirs are the gradients.
        text_losses: One loss for each text of the batch, each computed when it is asked for.
        privacy: The clipping norm and the noise.
        expected_texts: Texts of a batch on average. The number drawn would tell of a text.
    """
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for loss in text_losses:
        _clear(parameters)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        nn.utils.clip_grad_norm_(parameters, privacy.clip_norm)
        for total, parameter in zip(sums, parameters, strict=True):
            if parameter.grad is not None:
                total.add_(parameter.grad)
    scale = privacy.noise_multiplier * privacy.clip_norm
    for total, parameter in zip(sums, parameters, strict=True):
        parameter.grad = (total + scale * torch.randn_like(total)) / expected_texts


@dataclass(frozen=True)
class Accountant:
    """Noise of a run and the epsilon that it gives, of one text more or less.

    Attributes:
        sample_rate: Probability of a text to be in a batch.
        num_steps: Optimizer steps.
        delta: Probability with which epsilon may fail.
    """

    sample_rate: float
    num_steps: int
    delta: float

    def epsilon(self, noise_multiplier: float) -> float:
        """By Renyi differential privacy; the noise multiplier is above 0."""
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = [(noise_multiplier, self.sample_rate, self.num_steps)]
        with warnings.catch_warnings():
            # Where the best order is not among those it tries, the bound holds and is not tight.
            warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
            return float(accountant.get_epsilon(delta=self.delta))

    def noise_for(self, epsilon: float) -> float:
        """Noise multiplier, at most 1 % above the smallest one whose epsilon is no larger.

        Raises:
            ConfigError: No noise that lets a model learn anything is enough.
        """
        low, high = 0.0, 1.0
        while self.epsilon(high) > epsilon:
            low, high = high, 2 * high
            if high > _MAX_NOISE:
                raise ConfigError(
                    f"dp-sgd: expected an epsilon that noise can reach in {self.num_steps} steps "
                    f"at delta {self.delta:g}, got {epsilon:g}. Raise epsilon or delta."
                )
        while high - low > 0.01 * high:
            middle = (low + high) / 2
            low, high = (low, middle) if self.epsilon(middle) <= epsilon else (middle, high)
        return high


def _clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
