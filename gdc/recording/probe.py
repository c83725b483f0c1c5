"""A frozen model and a data set -> the loss of every sample."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gdc.errors import ConfigError
from gdc.recording.sample_sums import SampleSums
from gdc.recording.token_losses import TokenPass, Tokens
from gdc.recording.trace_files import Processes
from gdc.training.distributed import Group

Collate = Callable[[list[Any]], Any]
Losses = Callable[[Any, Any], tuple[Any, ...]]


class Evaluation(NamedTuple):
    """How samples become losses.

    Attributes:
        collate: Turns a list of samples into a batch.
        losses: Turns model and batch into loss sums and numbers of tokens of the samples; or into
            what ``TokenLosses`` are.
        batch_size: Samples of a batch.
        by_token: Whether ``losses`` are ``TokenLosses``.
    """

    collate: Collate
    losses: Losses
    batch_size: int
    by_token: bool = False


class Probed:
    """A data set that frozen models are run over."""

    def __init__(self, dataset: Any, name: str, processes: Group) -> None:
        """Take a data set; nothing of it is read before the first pass.

        Args:
            dataset: Samples; None: there are none.
            name: For messages.
            processes: Each runs its share.
        """
        self._dataset, self._name, self._processes = dataset, name, processes
        self._lengths: NDArray[np.int64] | None = None

    def run(self, model: nn.Module, how: Evaluation) -> tuple[SampleSums, Tokens | None]:
        """The sums of all samples, and the losses of their tokens if ``how`` gives these.

        Raises:
            ConfigError: Only the ids of the samples are known.
            DataError: A loss is not finite or below 0, or a sample has no token.
        """
        num_samples = 0 if self._dataset is None else len(self._dataset)
        if not num_samples:
            return SampleSums.zeros(0), None
        require_samples(self._dataset, self._name)
        if self._lengths is None:
            self._lengths = lengths_of(self._dataset)
        batches = evaluate(model, self._dataset, self._lengths, how, self._processes)
        of_tokens = TokenPass(num_samples)
        parts = of_tokens.sums_of(batches) if how.by_token else batches
        sums = SampleSums.of_parts(parts, num_samples, self._name).reduced(self._processes)
        return sums, of_tokens.joined(self._processes, self._name) if how.by_token else None


def lengths_of(dataset: Any) -> NDArray[np.int64]:
    """Tokens of each sample that holds ``input_ids``; otherwise 0 for all of them."""
    num_samples = len(dataset)
    first = dataset[0] if num_samples else None
    if not isinstance(first, Mapping) or "input_ids" not in first:
        return np.zeros(num_samples, np.int64)
    if "input_ids" in getattr(dataset, "column_names", ()):
        return np.fromiter(map(len, dataset["input_ids"]), np.int64, num_samples)
    return np.array([len(dataset[i]["input_ids"]) for i in range(num_samples)], np.int64)


def evaluate(
    model: nn.Module,
    dataset: Any,
    lengths: NDArray[np.int64],
    how: Evaluation,
    processes: Processes,
) -> Iterator[tuple[Any, ...]]:
    """Rows, and what ``losses`` gives of them, of this process's share of the batches.

    Samples of about one length are put together, so that little is padding.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    order = np.argsort(lengths, kind="stable")
    batches = [order[i : i + how.batch_size] for i in range(0, len(order), how.batch_size)]
    # A sharded model runs only in all processes together, so each runs as many batches.
    for first in range(0, len(batches), processes.world_size):
        index = first + processes.rank
        rows = batches[min(index, len(batches) - 1)]
        batch = _moved(how.collate([dataset[int(row)] for row in rows]), device)
        found = how.losses(model, batch)
        if index < len(batches):
            yield rows, *found


def require_samples(dataset: Any, name: str) -> None:
    """Refuse a data set that is a list of ids.

    Raises:
        ConfigError: Its first sample is a word or a number.
    """
    first = dataset[0]
    if isinstance(first, str | bytes | int | float | np.generic):
        raise ConfigError(
            f"{name}: probe: expected a data set of samples, got their ids alone, such as "
            f"{first!r}. Give TraceRecorder the data set."
        )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; mode, random numbers and cache are as before after it."""
    was_training = {module: module.training for module in model.modules()}
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    model.eval()
    if use_cache is not None:
        config.use_cache = False  # type: ignore[union-attr]  # it has one
    try:
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            yield
    finally:
        if use_cache is not None:
            config.use_cache = use_cache  # type: ignore[union-attr]  # as above
        for module, mode in was_training.items():
            module.training = mode


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
