"""The batches of a Trainer's optimizer step -> what the step taught of their samples."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from gdc.errors import ConfigError
from gdc.recording.loaders import ROWS
from gdc.recording.recorder import TraceRecorder
from gdc.recording.sample_losses import Batch, sums_of_samples, token_nll
from gdc.training.checkpoints import rng_state, set_rng_state

# Whose random numbers can be drawn again.
_DEVICES: Final = ("cpu", "cuda")


def require_whole_model(trainer: Any) -> None:
    """Refuse a Trainer of which no pass can be made a second time as it was.

    Raises:
        ConfigError: It shards its model, copies or compiles it, or cuts samples.
    """
    args, accelerator = trainer.args, trainer.accelerator
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    packing = getattr(args, "packing", False) and getattr(args, "packing_strategy", "bfd")
    found = {
        f"one in parts ({kind})": kind != "NO" and not kind.startswith("MULTI_"),
        "one in parts (parallelism_config)": getattr(accelerator, "parallelism_config", None),
        f"copies of it on {args.n_gpu} GPUs, which a launcher prevents": args.n_gpu > 1,
        "a compiled one (torch_compile)": args.torch_compile,
        f"one on a device {args.device.type}": args.device.type not in _DEVICES,
        f"samples that are cut (packing_strategy={packing!r})": packing not in {False, "bfd"},
    }
    wrong = next((what for what, is_so in found.items() if is_so), None)
    if wrong is not None:
        raise ConfigError(
            f"TraceCallback: gains: expected a whole model in each process, got {wrong}. Train "
            "otherwise, or leave gains out."
        )


class _Pass(NamedTuple):
    """A pass of the model in training, and what it gave."""

    batch: Batch
    call: tuple[tuple[Any, ...], Mapping[str, Any]]
    random: Sequence[Sequence[Tensor]]
    loss_sums: Tensor
    num_tokens: Tensor


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
        self, batch: Batch, args: tuple[Any, ...], kwargs: Mapping[str, Any], *sums: Tensor
    ) -> None:
        """Keep a pass that has ended: with which batch, how the model was called, and its sums."""
        self._passes.append(_Pass(batch, (args, dict(kwargs)), self._random, *sums))

    def record_gains(self, recorder: TraceRecorder) -> None:
        """Make the passes again, and record what the step between has taught."""
        random, passes = self._states(), self._passes
        # A pass in training may change them, as that of a batch norm does.
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        self._passes = []
        for one in passes:
            after = self._sums_again(one)
            recorder.record_gain(one.batch[ROWS], one.loss_sums, after, one.num_tokens)
        self._set(random)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)

    def _sums_again(self, one: _Pass) -> Tensor:
        self._set(one.random)
        args, kwargs = one.call
        # It keeps its gradient, though it is not used: without it torch chooses other kernels.
        outputs = self._model(*args, **kwargs)
        labels_BT = one.batch["labels"]
        nll_BT = token_nll(outputs, labels_BT)
        assert nll_BT is not None  # noqa: S101 - as in the first pass
        with torch.no_grad():
            return sums_of_samples(nll_BT, labels_BT, len(one.batch[ROWS]), one.batch)[0]

    def _states(self) -> list[list[Tensor]]:
        return [rng_state(device) for device in self._devices]

    def _set(self, random: Sequence[Sequence[Tensor]]) -> None:
        for device, states in zip(self._devices, random, strict=True):
            set_rng_state(device, states)
