"""A pass of a Trainer's model -> the same pass once more, for the gains of its step."""

from typing import Any

import torch
from torch import Tensor, nn

from gdc.errors import ConfigError
from gdc.recording.loaders import ROWS
from gdc.recording.sample_losses import Batch, sums_of_samples, token_nll
from gdc.recording.step_passes import DEVICES


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
        f"one on a device {args.device.type}": args.device.type not in DEVICES,
        f"samples that are cut (packing_strategy={packing!r})": packing not in {False, "bfd"},
    }
    wrong = next((what for what, is_so in found.items() if is_so), None)
    if wrong is not None:
        raise ConfigError(
            f"TraceCallback: gains: expected a whole model in each process, got {wrong}. Train "
            "otherwise, or leave gains out."
        )


def sums_again(model: nn.Module, batch: Batch, args: tuple[Any, ...], kwargs: Batch) -> Tensor:
    """Call the model as for this batch in training; returns the loss sums of its samples."""
    outputs = model(*args, **kwargs)
    labels_BT = batch["labels"]
    nll_BT = token_nll(outputs, labels_BT)
    assert nll_BT is not None  # noqa: S101 - as in the first pass
    with torch.no_grad():
        return sums_of_samples(nll_BT, labels_BT, len(batch[ROWS]), batch)[0]
