"""A plan file -> the rows, weights, masks and labels of somebody's own data set."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, Self, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.corpus.tokenizer import Offsets, masked_tokens
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.filesystem import table_files
from gdc.recording.sample_ids import index_of
from gdc.schema import PLAN, require
from gdc.statistics.label_weights import weigh_labels

_NUM_SHOWN: Final = 3
_OF_TRAINING: Final = ("live", "private")
# A row of any data set, with fields of any type.
Row = Mapping[str, Any]


class MapStyle(Protocol):
    """A data set of rows by number, as torch reads it."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - a row of any form
        """One row."""


class Plan:
    """What to do with each sample, and how to train by it elsewhere.

    Args:
        table: ``PLAN`` table; every ``sample_id`` once.

    Raises:
        ConfigError: The plan changes how a model is trained, which no data set shows.
        DataError: A sample stands in two rows.
    """

    def __init__(self, table: pl.DataFrame) -> None:
        require(table, PLAN, name="plan", remedy="Make it again: gdc plan.")
        repeated = table.filter(pl.col("sample_id").is_duplicated())["sample_id"]
        if len(repeated):
            raise DataError(
                f"plan: expected every sample once, got {repeated[0]!r} in two rows or more. Make "
                "it again: gdc plan."
            )
        if len(odd := table.filter(pl.col("action").is_in(_OF_TRAINING))["action"]):
            raise ConfigError(
                f"plan: expected one that a data set can show, got action {odd[0]!r}, which only "
                "stage retrain does. Take the plan of an arm of another rule than live or dp-sgd."
            )
        self.table = table

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a plan that ``gdc plan`` or the pipeline wrote.

        Raises:
            ConfigError: It changes how a model is trained, which no data set shows.
            DataError: It is damaged, or a sample stands in two rows.
            SchemaError: It is not there, or is no plan.
        """
        path = Path(path)
        try:
            table = table_files.read_parquet(path)
        except FileNotFoundError:
            raise SchemaError(f"{path}: not found. Make it: gdc plan.") from None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{path}: expected a plan in Parquet, got {type(error).__name__}. Make it again: "
                "gdc plan."
            ) from None
        require(table, PLAN, name=str(path), remedy="Make it again: gdc plan.")
        return cls(table)

    def weights(self, ids: Sequence[object]) -> NDArray[np.float64]:
        """The factor of the loss of each sample; 0 for a dropped one.

        Raises:
            DataError: A sample has no plan.
        """
        return self._of(ids)["weight"].to_numpy()

    def copies(self, ids: Sequence[object]) -> NDArray[np.int64]:
        """How often each sample comes in an epoch; 0 for a dropped one.

        Raises:
            DataError: A sample has no plan.
        """
        return self._of(ids)["copies"].to_numpy()

    def is_early(self, ids: Sequence[object]) -> NDArray[np.bool_]:
        """Whether each sample comes before all others in an epoch.

        Raises:
            DataError: A sample has no plan.
        """
        return (self._of(ids)["action"] == "early").to_numpy()

    def label_mask(
        self, ids: Sequence[object], offsets: Sequence[Offsets]
    ) -> list[NDArray[np.bool_]]:
        """Which tokens of each sample are not to be learned.

        Args:
            ids: Of the samples.
            offsets: Start and end of each token of each sample, in characters of its text, as a
                tokenizer's ``return_offsets_mapping`` gives them.

        Raises:
            DataError: A sample has no plan.
        """
        spans = self._of(ids)["masked"].to_list()
        return [masked_tokens(of, masked) for of, masked in zip(offsets, spans, strict=True)]

    def labels(
        self, sample_id: object, labels: Sequence[int], offsets: Offsets | None = None
    ) -> list[int]:
        """The labels of one sample with its weight in them, and without what is masked.

        Args:
            sample_id: Of the sample.
            labels: Token ids, -100 where there is no loss.
            offsets: Of its tokens; needed where spans of it are masked.

        Returns:
            Labels that ``gdc.weighted_loss`` reads; those of weight 1 are as they were.

        Raises:
            ConfigError: Spans are masked and there are no offsets.
            DataError: The sample has no plan, or other numbers of tokens and offsets.
        """
        return self._labels(self._row(str(sample_id)), labels, offsets)

    def sampler(self, ids: Sequence[object], *, seed: int) -> "PlanSampler":
        """A sampler for torch's ``DataLoader``: each row as often as planned, in random order.

        Those that a plan of rule ``order`` names come first in each epoch.

        Args:
            ids: Of the rows of the data set, in order.
            seed: Of the order, with the number of the epoch.

        Raises:
            DataError: A sample has no plan.
        """
        rows = self._rows_of(ids)
        return PlanSampler(rows, seed, int(self.is_early(ids)[rows].sum()))

    def apply(self, dataset: Any, id_field: str | None = None) -> Any:  # noqa: ANN401
        """The data set to train on: rows dropped and repeated, with weights and masks.

        Those that a plan of rule ``order`` names come first: do not shuffle, or take ``sampler``.

        Args:
            dataset: A ``datasets.Dataset``, or any data set of rows by number whose rows are
                mappings.
            id_field: The field that holds the ids of the plan; None: ``sample_id`` or ``id`` where
                there is one, otherwise ids are row numbers, from 0, as for ``TraceRecorder``.

        Returns:
            The same kind, with ``weight`` and ``masked`` (spans in characters) in each row. Where a
            row has ``input_ids`` its ``labels`` (else these ids) hold the weight and leave out what
            is masked, for which it needs ``offset_mapping``: they come through a trainer that
            removes columns, and through packing.

        Raises:
            ConfigError: Spans are masked and a row has no ``offset_mapping``.
            DataError: A row has no plan, or row numbers are not those of the plan.
        """
        ids = self._ids_of(dataset, id_field)
        rows = self._rows_of(ids)
        if not hasattr(dataset, "select") or not hasattr(dataset, "map"):
            return PlannedDataset(dataset, self, [ids[row] for row in rows], rows)
        kept = dataset.select(rows)
        names = [ids[row] for row in rows]
        return kept.map(lambda row, number: self.row(row, names[number]), with_indices=True)

    def row(self, row: Row, sample_id: str) -> Row:
        """One row of ``apply``."""
        plan = self._row(sample_id)
        planned = {**row, "weight": plan["weight"], "masked": plan["masked"]}
        if "input_ids" in row:
            labels = row.get("labels", row["input_ids"])
            planned["labels"] = self._labels(plan, labels, row.get("offset_mapping"))
        return planned

    def _rows_of(self, ids: Sequence[object]) -> NDArray[np.int64]:
        """The row numbers of an epoch: each as often as planned, the early ones first."""
        rows = np.repeat(np.arange(len(ids)), self.copies(ids))
        return rows[np.argsort(~self.is_early(ids)[rows], kind="stable")]

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {str(row["sample_id"]): row for row in self.table.iter_rows(named=True)}

    def _row(self, sample_id: str) -> Row:
        if sample_id not in self._rows:
            raise DataError(_unplanned([sample_id], self.table["sample_id"]))
        return self._rows[sample_id]

    def _labels(self, plan: Row, labels: Sequence[int], offsets: Offsets | None) -> list[int]:
        weights = np.full(len(labels), plan["weight"], dtype=np.float32)
        if plan["masked"]:
            if offsets is None:
                raise ConfigError(
                    f"plan: spans of sample {plan['sample_id']!r} are masked, expected the offsets "
                    "of its tokens, got none. Tokenize with return_offsets_mapping=True."
                )
            if len(offsets) != len(labels):
                raise DataError(
                    f"plan: expected offsets for the {len(labels)} tokens of sample "
                    f"{plan['sample_id']!r}, got {len(offsets)}. Cut both alike."
                )
            weights[masked_tokens(offsets, plan["masked"])] = 0
        return cast("list[int]", weigh_labels(labels, weights).tolist())

    def _of(self, ids: Sequence[object]) -> pl.DataFrame:
        asked = pl.DataFrame(
            {"sample_id": [str(name) for name in ids]}, schema={"sample_id": pl.String}
        )
        missing = asked.join(self.table, on="sample_id", how="anti")["sample_id"]
        if len(missing):
            raise DataError(_unplanned(missing.to_list(), self.table["sample_id"]))
        return asked.join(self.table, on="sample_id", how="left", maintain_order="left")

    def _ids_of(self, dataset: Any, id_field: str | None) -> list[str]:  # noqa: ANN401
        ids: list[str] = index_of(dataset, id_field, "dataset")["sample_id"].to_list()
        if ids == [str(row) for row in range(len(ids))] and len(ids) != self.table.height:
            raise DataError(
                f"plan: expected as many rows as it has samples, {self.table.height:,}, as ids are "
                f"taken for row numbers, got {len(ids):,}. Give the data set that was mapped, or "
                "name the field that holds the ids: id_field."
            )
        return ids


class PlannedDataset:
    """The rows of another data set as a plan has them; see ``Plan.apply``."""

    def __init__(
        self, dataset: MapStyle, plan: Plan, ids: Sequence[str], rows: NDArray[np.int64]
    ) -> None:
        self._dataset, self._plan, self._ids, self._rows = dataset, plan, ids, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        """The row at an index."""
        return self._plan.row(self._dataset[int(self._rows[index])], self._ids[index])


class PlanSampler:
    """Row numbers in an order of their own for each epoch; see ``Plan.sampler``."""

    def __init__(self, rows: NDArray[np.int64], seed: int, num_first: int = 0) -> None:
        self._rows, self._seed, self._epoch = rows, seed, 0
        self._num_first = num_first

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        """The rows of an epoch."""
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._rows))
        order = order[np.argsort(order >= self._num_first, kind="stable")]
        self._epoch += 1
        return iter(self._rows[order].tolist())

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; they follow each other otherwise."""
        self._epoch = epoch


def _unplanned(missing: Sequence[str], known: pl.Series) -> str:
    shown = ", ".join(repr(name[:40]) for name in missing[:_NUM_SHOWN])
    planned = ", ".join(repr(name[:40]) for name in known.head(_NUM_SHOWN))
    return (
        f"plan: expected a plan for every sample, got none for {len(missing):,}, such as {shown}; "
        f"its {len(known):,} samples are such as {planned}. Name the field that holds the ids, or "
        "plan from a map of this data set."
    )
