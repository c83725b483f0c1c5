"""The batches of an optimizer step -> what the step taught of their samples, by a second pass."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from gdc.recording.recorder import TraceRecorder
from gdc.training.checkpoints import rng_state, set_rng_state

# Whose random numbers can be drawn again.
DEVICES: Final = ("cpu", "cuda")


class _Pass(NamedTuple):
    """A pass of the model in training, what it gave of which samples, and how it is made again."""

    sums_again: Callable[[], Any]
    random: Sequence[Sequence[Tensor]]
    sample_index: Any
    loss_sums: Any
    num_tokens: Any


class StepPasses:
    """The passes since the last optimizer step, to be made again after the next one.

    With the same random numbers, so that only the step makes the difference.
    """

    def __init__(self, model: nn.Module) -> None:
        """Of this model."""
        self._model = model
        self._devices = sorted({p.device for p in model.parameters()}, key=str)
        self._random: list[list[Tensor]] = []
        self._passes: list[_Pass] = []

    def begin(self) -> None:
        """Note the random numbers that a pass begins with."""
        self._random = self._states()

    def keep(
        self, sums_again: Callable[[], Any], sample_index: Any, loss_sums: Any, num_tokens: Any
    ) -> None:
        """Keep a pass that has ended.

        Args:
            sums_again: Makes it once more, with its gradient, and returns its sums then.
            sample_index: As for ``TraceRecorder.record``, and so on.
            loss_sums: What it gave.
            num_tokens: Of each.
        """
        self._passes.append(_Pass(sums_again, self._random, sample_index, loss_sums, num_tokens))

    def record_gains(self, recorder: TraceRecorder) -> None:
        """Make the passes again, and record what the step between has taught."""
        random, passes = self._states(), self._passes
        # A pass in training may change them, as that of a batch norm does.
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        self._passes = []
        for one in passes:
            self._set(one.random)
            # With gradients, though none is used: without them torch chooses other kernels.
            after = one.sums_again()
            recorder.record_gain(one.sample_index, one.loss_sums, after, one.num_tokens)
        self._set(random)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def _states(self) -> list[list[Tensor]]:
        return [rng_state(device) for device in self._devices]

    def _set(self, random: Sequence[Sequence[Tensor]]) -> None:
        for device, states in zip(self._devices, random, strict=True):
            set_rng_state(device, states)
