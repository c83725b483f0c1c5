"""Scores, labelled canaries and their calibration, small enough to check by hand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import polars as pl

from gdc.config import PartitionConfig
from gdc.mapping.calibration import calibrate
from gdc.schema import CANARIES, CANARY_MEMORIZATION, SCORES

# Families of canaries: (is_memorized, memorization), one row of the corpus each.
Families = Mapping[str, Sequence[tuple[bool, float]]]
PERFECT = [(True, 3.0)] * 6 + [(False, 1.0)] * 6
REVERSED = [(True, 1.0)] * 6 + [(False, 3.0)] * 6


def rule(value: float = 0.5, kind: str = "quantile", axis: str = "memorization") -> PartitionConfig:
    return PartitionConfig.model_validate(
        {
            "axis": axis,
            "difficulty": {"kind": "quantile", "value": 0.5},
            "memorization": {"kind": kind, "value": value},
        }
    )


def tables_of(
    families: Families,
    num_twins: int = 1000,
    ordinary: Sequence[float] = (),
    *,
    are_extracted: bool = False,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Scores, copies and canaries, the three tables that are judged; memorized may be extracted."""
    named = [
        (f"{family}-{index:02d}", family, is_memorized, score)
        for family, canaries in families.items()
        for index, (is_memorized, score) in enumerate(canaries)
    ]
    canaries = [
        (name, family, 1, num_twins, 0.0, label, label and are_extracted)
        for name, family, label, _ in named
    ]
    rows = [(f"{name}-0", 1.0, score, None, True) for name, *_, score in named]
    rows += [(f"text-{i}", 1.0, score, None, True) for i, score in enumerate(ordinary)]
    return (
        pl.DataFrame(rows, schema=SCORES, orient="row"),
        pl.DataFrame(
            [(f"{name}-0", name) for name, *_ in named],
            schema={"sample_id": pl.String, "canary_id": pl.String},
            orient="row",
        ),
        pl.DataFrame(canaries, schema=CANARY_MEMORIZATION, orient="row"),
    )


def calibrated(  # noqa: PLR0913 - as what it calls
    scores: pl.DataFrame,
    copies: pl.DataFrame,
    canaries: pl.DataFrame,
    config: PartitionConfig,
    *,
    seed: int,
    unseen: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """What ``calibrate`` returns, as nested dictionaries."""
    return asdict(calibrate(scores, copies, canaries, config, seed=seed, unseen=unseen, gaps=gaps))


def unseen_of(twins: Mapping[str, Sequence[float]], heldout: Sequence[float]) -> pl.DataFrame:
    """Scores on ``memorization`` of the twins of each family and of held-out text."""
    rows: list[tuple[str | None, float]] = [(f, value) for f, vs in twins.items() for value in vs]
    rows += [(None, value) for value in heldout]
    return pl.DataFrame(
        rows, schema={"family": pl.String, "memorization": pl.Float64}, orient="row"
    )


def card_of(built: Mapping[str, Any], score: str = "memorization") -> dict[str, Any]:
    return next(dict(card) for card in built["cards"] if card["score"] == score)


def judged(families: Families, **tables: Any) -> dict[str, Any]:  # noqa: ANN401 - of tables_of
    return card_of(calibrated(*tables_of(families, **tables), rule(), seed=0))


def canaries_of(names: Iterable[str]) -> pl.DataFrame:
    """Named family, repeats and number."""
    rows = [(name, name[0], "p", "s", "ps", int(name.split("-")[1])) for name in names]
    return pl.DataFrame(rows, schema=CANARIES, orient="row")
