"""Builders of thresholds, of the rules that cut a map, and of losses in which spans are found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from gdc.config import PartitionConfig
from gdc.corpus.tokenizer import Offsets
from gdc.schema import TOKEN_LOSSES


def absolute(value: float) -> dict[str, object]:
    return {"kind": "absolute", "value": value}


def quantile(value: float) -> dict[str, object]:
    return {"kind": "quantile", "value": value}


def config(
    difficulty: dict[str, object], memorization: dict[str, object], axis: str = "memorization"
) -> PartitionConfig:
    return PartitionConfig.model_validate(
        {"axis": axis, "difficulty": difficulty, "memorization": memorization}
    )


Losses = tuple[Sequence[float], Sequence[float]]


def losses_of(*samples: Losses) -> pl.DataFrame:
    """A TOKEN_LOSSES table from early and late losses, ids s0, s1, ..."""
    rows = [(f"s{i}", early, late) for i, (early, late) in enumerate(samples)]
    return pl.DataFrame(rows, schema=TOKEN_LOSSES, orient="row")


def letters(num_tokens: int) -> Offsets:
    """A token for each character."""
    return [(i, i + 1) for i in range(num_tokens)]


# 500 hard held-out tokens that end between 3 and 4, and 500 easy ones that end at or near 0.
HELDOUT = losses_of(
    ([6.0] * 500, np.linspace(3, 4, 500).tolist()),
    ([0.1] * 500, [0.0] * 250 + [0.05] * 250),
)


class FakeRun:
    """Takes what a stage logs."""

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Take numbers."""

    def log_artifact(self, path: Path) -> None:
        """Take a file that exists."""
        assert path.exists()
