"""The processes that train one model together, as torchrun or accelerate starts them."""

import atexit
import copy
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gdc.errors import ConfigError

Number = TypeVar("Number", bound=np.generic)
_KINDS: Final = ("ddp", "fsdp")
# Between two looks at whether the launcher still runs, in seconds.
_LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Processes:
    """This process among ``count``; by itself it is the first of one."""

    rank: int = 0
    count: int = 1
    is_sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this one writes and logs what all of them made."""
        return self.rank == 0

    def share(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of the chosen that fall to this process; each falls to one."""
        return chosen[self.rank :: self.count]

    def rows(self, num_rows: int) -> slice:
        """The rows of a table that this process writes; each is written by one."""
        return slice(num_rows * self.rank // self.count, num_rows * (self.rank + 1) // self.count)

    def add(self, values: NDArray[Number]) -> NDArray[Number]:
        """Elementwise sum over the processes."""
        if self.count == 1:
            return values
        total = torch.from_numpy(values.copy())
        dist.all_reduce(total)
        return total.numpy()

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            dist.barrier()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """That of each process; all are alike in shape."""
        if self.count == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(tensors, tensor)
        return tensors


ALONE: Final = Processes()


def join() -> Processes:
    """Join the processes that were started with this one.

    ``GDC_PARALLEL`` says whether each holds the whole model (``ddp``) or a shard (``fsdp``).

    Raises:
        ConfigError: It says something else.
    """
    if "RANK" not in os.environ:
        return ALONE
    kind = os.environ.get("GDC_PARALLEL", "ddp")
    if kind not in _KINDS:
        raise ConfigError(f"GDC_PARALLEL: expected one of {list(_KINDS)}, got {kind!r}.")
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        Thread(target=_end_with_launcher, daemon=True).start()
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)
    count = dist.get_world_size()
    # One process has the whole model, whatever it is called.
    return Processes(dist.get_rank(), count, is_sharded=kind == "fsdp" and count > 1)


def _end_with_launcher() -> None:
    """A SIGKILL of the launcher's process group misses us: it starts us in sessions of our own."""
    launcher = os.getppid()
    while os.getppid() == launcher:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def shard(module: nn.Module) -> nn.Module:
    """A copy of which every process holds a part: block by block, then the rest.

    Source: Zhao et al. 2023, arXiv:2304.11277, as ``fully_shard`` of torch does it.
    """
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 - takes seconds

    sharded = copy.deepcopy(module)
    blocks = {
        name
        for part in sharded.modules()
        for name in getattr(part, "_no_split_modules", None) or ()
    }
    for part in sharded.modules():
        if type(part).__name__ in blocks:
            fully_shard(part)
    fully_shard(sharded)
    return sharded


def copy_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """Give every process the whole of each weight in turn."""
    _hold_parts(sharded)
    with torch.no_grad():
        for part, weight in zip(sharded.parameters(), whole.parameters(), strict=True):
            weight.copy_(part.full_tensor())  # type: ignore[attr-defined]  # of a sharded one


def replicate(module: nn.Module) -> nn.Module:
    """The module, with gradients averaged over the processes in each backward pass."""
    return nn.parallel.DistributedDataParallel(module)


def full_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """``model`` and ``optimizer`` by names, whole on the first process; the others get nothing."""
    from torch.distributed.checkpoint import state_dict  # noqa: PLC0415 - takes seconds

    _hold_parts(module)
    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, state = state_dict.get_state_dict(module, optimizer, options=options)
    return {"model": model, "optimizer": state}


def set_full_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Put back what ``full_state`` gave, which every process has read."""
    from torch.distributed.checkpoint import state_dict  # noqa: PLC0415 - takes seconds

    state_dict.set_state_dict(
        module,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=state_dict.StateDictOptions(full_state_dict=True),
    )


def _hold_parts(module: nn.Module) -> None:
    """Let go of what the last forward pass has gathered; only a backward pass does so by itself."""
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415 - takes seconds

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
