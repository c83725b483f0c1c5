"""The data set of a Trainer -> which sample of the user's each of its rows is."""

import copy
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from gdc.errors import ConfigError
from gdc.recording.loaders import ROWS
from gdc.recording.sample_ids import USUAL_COLUMNS
from gdc.recording.sample_losses import Batch
from gdc.statistics.label_weights import IGNORED

_NOTHING: Final = {"input_ids": [0], "labels": [IGNORED]}


class Samples:
    """A data set with the ids of its rows, whose samples are what the Trainer makes of them."""

    def __init__(
        self,
        dataset: Any,
        tokens: Any,
        id_column: str | None,
        places: Mapping[int, int] | None = None,
    ) -> None:
        """Look up where the ids are.

        Args:
            dataset: With the ids.
            tokens: Tokenized samples.
            id_column: As for ``TraceCallback``.
            places: Where in ``tokens`` the rows are that are there; None: all, in their order.
        """
        self.dataset, self.tokens, self.places = dataset, tokens, places
        columns = getattr(dataset, "column_names", ())
        wanted = USUAL_COLUMNS if id_column is None else (id_column,)
        self.id_column = next((name for name in wanted if name in columns), None)
        if self.id_column is None and id_column is not None:
            raise ConfigError(
                f"TraceCallback: expected a column {id_column!r} with the ids, got "
                f"{list(columns) or 'no columns'}. Name one of them as id_column, or leave it out."
            )
        self.column_names = ["id"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        if key == "id":
            return self.ids
        place = key if self.places is None else self.places.get(key)
        # The Trainer has left out a sample without labels.
        return _NOTHING if place is None else self.tokens[place]

    @property
    def ids(self) -> list[Any]:
        """Of all rows, in their order."""
        if self.id_column is None:
            return list(range(len(self.dataset)))
        return list(self.dataset[self.id_column])


def tokenized(trainer: Any, dataset: Any) -> Any:
    """The rows as TRL tokenizes them, one by one; without those of which it trains on nothing."""
    args = copy.copy(trainer.args)
    args.shuffle_dataset = False
    if getattr(args, "packing_strategy", "bfd") != "bfd":
        args.max_length = None
    numbered = dataset.add_column(ROWS, list(range(len(dataset))))
    return trainer._prepare_dataset(
        numbered, trainer.processing_class, args, False, trainer._formatting_func, "trace"
    )


def samples_of_rows(rows: Any, samples: Samples, args: Any) -> Iterator[list[int]]:
    """The samples in each row that TRL packed, found by their tokens.

    Equal samples are taken in their order.
    """
    free: dict[bytes, deque[int]] = defaultdict(deque)
    for row, place in (samples.places or {}).items():
        for part in _parts(samples.tokens[place], args):
            free[part].append(row)
    for packed in rows:
        ends = np.cumsum(packed["seq_lengths"]).tolist()
        keys = [_key(packed, slice(*part)) for part in zip([0, *ends[:-1]], ends, strict=True)]
        if not all(free[key] for key in keys):
            raise ConfigError(
                "TraceCallback: expected each packed sample in the data set, got one that is not "
                "there. Give the data set that SFTTrainer was given."
            )
        yield [free[key].popleft() for key in keys]


def _parts(sample: Batch, args: Any) -> Iterator[bytes]:
    length = len(sample["input_ids"])
    size = args.max_length
    last = size if args.packing_strategy == "bfd" else length
    for start in range(0, min(length, last), size):
        yield _key(sample, slice(start, start + size))


def _key(row: Batch, part: slice) -> bytes:
    return np.array([row["input_ids"][part], row["labels"][part]], np.int64).tobytes()


def rows_of_own(own: Samples, given: Samples, args: Any) -> Sequence[int]:
    """Row numbers in the given data set of the rows that the Trainer holds."""
    if own.id_column is not None and given.id_column is not None:
        row_of = {value: row for row, value in enumerate(given.ids)}
        missing = [value for value in own.ids if value not in row_of]
        if missing:
            raise ConfigError(
                f"TraceCallback: expected the Trainer's samples in the data set, got {len(missing)}"
                f" that are not there, such as {missing[0]!r}. Give the data set it was given."
            )
        return [row_of[value] for value in own.ids]
    if len(own) != len(given) or getattr(args, "shuffle_dataset", False):
        raise ConfigError(
            f"TraceCallback: expected the {len(given)} rows of the data set in their order, got "
            f"{len(own)} that the Trainer left out or shuffled. Add a column `id` to the data set "
            "before the Trainer is made."
        )
    return range(len(given))
