"""Losses of samples, batch by batch -> their sums since the last checkpoint."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gdc.errors import DataError
from gdc.training.distributed import Group, State

# A loss this little below 0 is the rounding of one that is 0; nats per token.
_ROUNDING: Final = 1e-5
# Records on another device that wait to be fetched at once.
_MAX_WAITING: Final = 512


@dataclass
class SampleSums:
    """What was recorded of each sample since the last checkpoint.

    Attributes:
        loss_sums: Float64, nats.
        num_tokens: Int64, tokens that the sums are of.
        lengths: Int64, most tokens of the sample in one record; 0: not seen yet.
    """

    loss_sums: NDArray[np.float64]
    num_tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_samples: int) -> Self:
        """Nothing recorded yet."""
        return cls(
            np.zeros(num_samples), np.zeros(num_samples, np.int64), np.zeros(num_samples, np.int64)
        )

    def clear(self) -> None:
        """Forget what was recorded, but not the lengths."""
        self.loss_sums[:] = 0
        self.num_tokens[:] = 0

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[Any, Any, Any]], num_samples: int, name: str) -> Self:
        """The sums of ``parts``: rows, loss sums and numbers of tokens, as ``add`` takes them."""
        sums = cls.zeros(num_samples)
        # All parts first: the device is waited for once.
        waiting = [[detached(value) for value in part] for part in parts]
        for index, loss_sums, num_tokens in waiting:
            sums.add(fetched(index), fetched(loss_sums), fetched(num_tokens), name)
        return sums

    def add(
        self, index: NDArray[Any], loss_sums: NDArray[Any], num_tokens: NDArray[Any], name: str
    ) -> None:
        """Add the losses of some samples, one of which may come more than once.

        Raises:
            DataError: A value cannot be; the message begins with ``name``.
        """
        index, loss_sums = np.atleast_1d(index), np.atleast_1d(loss_sums).astype(np.float64)
        if num_tokens.ndim == 0:
            num_tokens = np.broadcast_to(num_tokens, index.shape)
        require_sums(index, loss_sums, num_tokens, len(self.loss_sums), name)
        rows, place = np.unique(index, return_inverse=True)
        counts = np.zeros(len(rows), np.int64)
        np.add.at(counts, place, num_tokens.astype(np.int64))
        np.add.at(self.loss_sums, index, loss_sums.clip(min=0))
        self.num_tokens[rows] += counts
        self.lengths[rows] = np.maximum(self.lengths[rows], counts)

    def reduced(self, group: Group) -> Self:
        """Sums over all processes."""
        return type(self)(
            group.all_reduce(self.loss_sums),
            group.all_reduce(self.num_tokens),
            group.all_reduce(self.lengths, "max"),
        )

    def means(self) -> NDArray[np.float32]:
        """Nats per token; NaN: not seen."""
        is_seen = self.num_tokens > 0
        means = np.full(len(is_seen), np.nan)
        np.divide(self.loss_sums, self.num_tokens, out=means, where=is_seen)
        return means.astype(np.float32)

    def state_dict(self, group: Group) -> State:
        """What all processes have recorded, the same in all of them."""
        total = vars(self.reduced(group))
        return {name: torch.from_numpy(values.copy()) for name, values in total.items()}

    def load_state_dict(self, state: State, group: Group) -> None:
        """Go back to a state; one of the processes holds what all had recorded."""
        for name, values in vars(self).items():
            values[:] = state[name].cpu().numpy()
        if not group.is_main:
            self.clear()


class Waiting:
    """What was recorded and may lie on another device, to be fetched together."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._waiting: list[tuple[Callable[..., None], list[Any]]] = []

    def add(self, take: Callable[..., None], *values: Any) -> None:
        """Let ``take`` have the values in numpy: at once, or together with others of a device."""
        kept = [detached(value) for value in values]
        self._waiting.append((take, kept))
        is_elsewhere = any(isinstance(value, Tensor) for value in kept)
        if not is_elsewhere or len(self._waiting) > _MAX_WAITING:
            self.fetch()

    def fetch(self) -> None:
        """Let all have what waits for them, in its order; the device is waited for once."""
        waiting, self._waiting = self._waiting, []
        for take, values in waiting:
            take(*map(fetched, values))

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


def require_sums(
    index: NDArray[Any],
    loss_sums: NDArray[Any],
    num_tokens: NDArray[Any],
    num_samples: int,
    name: str,
) -> None:
    """Refuse losses of samples that cannot be.

    Raises:
        DataError: One cannot be; the message begins with ``name``.
    """
    shapes = {"sample_index": index, "loss_sums": loss_sums, "num_tokens": num_tokens}
    if index.ndim != 1 or not index.shape == loss_sums.shape == num_tokens.shape:
        got = ", ".join(f"{key} {list(value.shape)}" for key, value in shapes.items())
        raise DataError(f"{name}: expected one value for each sample of a batch, got {got}.")
    if index.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected row numbers as integers in sample_index, got {index.dtype}. "
            "Give the place of the sample in the data set, not its id."
        )
    _require_each(
        (index >= 0) & (index < num_samples), index, index,
        f"{name}: expected row numbers from 0 to {num_samples - 1}",
    )  # fmt: skip
    is_loss = np.isfinite(loss_sums) & (loss_sums >= -_ROUNDING * np.maximum(num_tokens, 1))
    _require_each(is_loss, loss_sums, index, f"{name}: expected finite loss sums of at least 0")
    is_number = (num_tokens >= 0) & (num_tokens == np.floor(num_tokens))
    is_number &= (num_tokens > 0) | (loss_sums <= 0)
    _require_each(
        is_number, num_tokens, index,
        f"{name}: expected whole numbers of tokens, above 0 where there is a loss",
    )  # fmt: skip


def _require_each(
    is_right: NDArray[np.bool_], values: NDArray[Any], index: NDArray[Any], expected: str
) -> None:
    if not is_right.all():
        place = int(np.argmin(is_right))
        raise DataError(
            f"{expected}, got {values[place]} for sample {index[place]} ({(~is_right).sum()} "
            "in this batch). Mend what the loop records."
        )


def detached(values: Any) -> Any:
    """Numpy where that costs no wait; a tensor of another device stays there, as it is now."""
    if not isinstance(values, Tensor):
        return np.array(values)
    values = values.detach()
    return values.clone() if values.device.type != "cpu" else fetched(values)


def fetched(values: Any) -> NDArray[Any]:
    """A copy in numpy, for which the device of a tensor is waited for."""
    if not isinstance(values, Tensor):
        return np.array(values)
    values = values.detach().cpu()
    # numpy has no bfloat16.
    array: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array.copy()
