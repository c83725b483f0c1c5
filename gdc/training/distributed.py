"""Environment of torchrun or accelerate -> the processes that train one model together."""

import atexit
import copy
import os
import time
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from gdc.environment import parallel

Number = TypeVar("Number", bound=np.generic)
# What torch saves of a run: tensors, numbers, and lists and dictionaries of them.
State = dict[str, Any]
# Between two checks whether the launcher still runs, in seconds.
_CHECK_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Group:
    """The processes that train one model together, seen from the process of this rank.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        is_sharded: Whether each holds a shard of the model (FSDP) instead of all of it (DDP).
        process_group: Of torch, for the collectives; None: the default one.
    """

    rank: int = 0
    world_size: int = 1
    is_sharded: bool = False
    process_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes and logs what all of them made."""
        return self.rank == 0

    def share(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        """The windows of a batch that this rank trains on; each falls to exactly one rank."""
        return batch[self.rank :: self.world_size]

    def shard_rows(self, num_rows: int) -> slice:
        """The rows of a table that this rank writes; each is written by exactly one rank."""
        start, end = num_rows * self.rank, num_rows * (self.rank + 1)
        return slice(start // self.world_size, end // self.world_size)

    def all_reduce(
        self, values: NDArray[Number], operation: Literal["sum", "max"] = "sum"
    ) -> NDArray[Number]:
        """Elementwise sum or maximum over the ranks; shapes must match."""
        if self.world_size == 1:
            return values
        total = torch.from_numpy(values.copy())
        reduce_op = dist.ReduceOp.SUM if operation == "sum" else dist.ReduceOp.MAX
        dist.all_reduce(total, reduce_op, self.process_group)
        return total.numpy()

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        if self.world_size > 1:
            dist.barrier(self.process_group)

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Gather one tensor per rank; shapes must match."""
        if self.world_size == 1:
            return [tensor]
        tensors = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(tensors, tensor, self.process_group)
        return tensors


SINGLE_PROCESS: Final = Group()


def joined_group() -> Group:
    """The processes that a training loop of any kind has joined; otherwise this one alone.

    All of them must call this. Its collectives are apart from those of the training, and take
    arrays on the processor whatever device the training uses.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return SINGLE_PROCESS
    process_group = dist.new_group(backend="gloo")
    return Group(dist.get_rank(), dist.get_world_size(), process_group=process_group)


def init_group() -> Group:
    """Join the processes that the launcher has started with this one.

    ``GDC_PARALLEL`` says whether each holds the whole model (``ddp``) or a shard (``fsdp``).

    Raises:
        ConfigError: ``GDC_PARALLEL`` is neither.
    """
    if "RANK" not in os.environ:
        return SINGLE_PROCESS
    kind = parallel()
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        Thread(target=_end_with_launcher, daemon=True).start()
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)
    world_size = dist.get_world_size()
    # A single process holds the whole model in either case.
    is_sharded = kind == "fsdp" and world_size > 1
    return Group(dist.get_rank(), world_size, is_sharded=is_sharded)


def _end_with_launcher() -> None:
    """End this process when the launcher has ended.

    A SIGKILL of the launcher's process group does not reach this process: the launcher starts it in
    a session of its own.
    """
    launcher = os.getppid()
    while os.getppid() == launcher:
        time.sleep(_CHECK_SECONDS)
    os._exit(1)


def shard(module: nn.Module) -> nn.Module:
    """Copy a module so that every rank holds a shard of it: block by block, then the rest.

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


def gather_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """Copy all weights of a sharded module into a whole one, on every rank."""
    _free_gathered(sharded)
    with torch.no_grad():
        for part, weight in zip(sharded.parameters(), whole.parameters(), strict=True):
            weight.copy_(part.full_tensor())  # type: ignore[attr-defined]  # of a sharded one


def replicate(module: nn.Module) -> nn.Module:
    """Wrap a module so that each backward pass averages its gradients over the ranks."""
    return nn.parallel.DistributedDataParallel(module)


def full_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Gather ``model`` and ``optimizer`` by names on the main rank; the others get nothing."""
    from torch.distributed.checkpoint import state_dict  # noqa: PLC0415 - takes seconds

    _free_gathered(module)
    options = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, state = state_dict.get_state_dict(module, optimizer, options=options)
    return {"model": model, "optimizer": state}


def set_full_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Restore what ``full_state`` gave, which every rank has read."""
    from torch.distributed.checkpoint import state_dict  # noqa: PLC0415 - takes seconds

    state_dict.set_state_dict(
        module,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=state_dict.StateDictOptions(full_state_dict=True),
    )


def _free_gathered(module: nn.Module) -> None:
    """Free the weights that the last forward pass gathered; only a backward pass does so itself."""
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415 - takes seconds

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
