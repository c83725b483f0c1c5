"""A data loader of torch -> the same one, whose batches also say which samples they hold."""

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import torch

from gdc.errors import ConfigError

# Key of a batch: row numbers of its samples, in the order in which they lie in it.
ROWS: Final = "gdc_rows"


class NumberedSamples:
    """A data set whose samples come with their row number."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Any]:
        return int(row), self.dataset[row]

    def __getitems__(self, rows: Sequence[int]) -> list[tuple[int, Any]]:
        """Samples at once, which a data loader asks for where a data set can give them."""
        fetch = getattr(self.dataset, "__getitems__", None)
        samples = fetch(rows) if fetch else [self.dataset[row] for row in rows]
        return list(zip(map(int, rows), samples, strict=True))


class NumberedCollator:
    """Puts the row numbers of the samples into the batch that another collator makes."""

    def __init__(self, collate: Any, packed: Sequence[Sequence[int]] | None = None) -> None:
        """Wrap a collator.

        Args:
            collate: Turns a list of samples into a batch, a mapping.
            packed: The samples in each row of a packed data set; None: each row is a sample.
        """
        self.collate, self.packed = collate, packed

    def __call__(self, numbered: Sequence[tuple[int, Any]]) -> Any:
        """A batch of numbered samples, with ``gdc_rows``."""
        batch = self.collate([sample for _, sample in numbered])
        if not isinstance(batch, MutableMapping):
            raise ConfigError(
                f"recording: expected batches that are mappings, got {type(batch).__name__}. Let "
                "the data set give row numbers, and use gdc.TraceRecorder in the loop."
            )
        rows = [row for row, _ in numbered]
        if self.packed is not None:
            rows = [sample for row in rows for sample in self.packed[row]]
        batch[ROWS] = torch.tensor(rows, dtype=torch.int64)
        return batch


def number_samples(loader: Any, packed: Sequence[Sequence[int]] | None = None) -> None:
    """Let a data loader that was not iterated yet give row numbers in its batches.

    Args:
        loader: A ``DataLoader``, or what accelerate makes of one. Its order, its workers and its
            share of the processes stay as they are.
        packed: As for ``NumberedCollator``.

    Raises:
        ConfigError: Its samples have no numbers.
    """
    base = getattr(loader, "base_dataloader", loader)
    dataset = base.dataset
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ConfigError(
            f"recording: expected a data set whose samples have row numbers, got "
            f"{type(dataset).__name__}. Use a data set that is not streamed, or give "
            "gdc.TraceRecorder the row numbers in a loop of your own."
        )
    base.collate_fn = NumberedCollator(base.collate_fn, packed)
    # torch forbids to set it, so that a sampler keeps fitting; the samples are the same.
    object.__setattr__(base, "dataset", NumberedSamples(dataset))
