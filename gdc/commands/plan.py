"""The plan of an arm -> how many samples it keeps, drops, weights, copies and masks, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import polars as pl
from rich.table import Table

from gdc.comparison.results import CuratedChoice
from gdc.config import AUTO, Params
from gdc.errors import ConfigError, DataError
from gdc.schema import Action
from gdc.workspace import files, paths, tables

# What differs from sample to sample within one reason: ids, then numbers.
_ID = r"\b[0-9a-f]{8,}(-\d+)?\b"
_NEAR_COPY = r"^near copy of .*, similarity"
_NUMBER = r"\d[\d.,]*\d|\d"


@dataclass(frozen=True)
class Reason:
    """Samples that have the same action for the same reason; its ids and numbers are left out."""

    action: str
    reason: str
    num_samples: int


@dataclass(frozen=True)
class PlanSummary:
    """What an arm does with the training samples."""

    arm: str
    rule: str
    num_samples: int
    actions: Mapping[str, int]  # samples by action, most first
    reasons: tuple[Reason, ...]  # most samples first


def summarize_plan(params: Params, arm: str | None = None) -> PlanSummary:
    """Count the actions and reasons of a plan of the last run.

    Args:
        params: Of the workspace in the current folder.
        arm: Of ``intervene.arms``; None: the one whose plan made the curated data.

    Raises:
        ConfigError: There is no such arm.
        SchemaError: Its plan is missing.
        DataError: It is damaged, or has an unknown action.
    """
    arms = params.intervene.arms
    name = arm or curated_arm(params)
    if name not in arms:
        raise ConfigError(f"arm: expected one of {', '.join(arms)}, got {name!r}.")
    with tables.naming_damage(paths.plan_path(name).parent, remedy=tables.RUN):
        return count_reasons(tables.scan_plan(name), name, arms[name].rule)


def count_reasons(plan: pl.LazyFrame, arm: str, rule: str) -> PlanSummary:
    """Count the actions and reasons of a plan.

    Args:
        plan: ``PLAN`` table.
        arm: Its name.
        rule: What it was made by.

    Raises:
        DataError: It has an unknown action.
    """
    reason = pl.col("reason").str.replace(_NEAR_COPY, "near copy of …, similarity")
    worded = reason.str.replace_all(_ID, "…").str.replace_all(_NUMBER, "…")
    rows = (
        plan.group_by("action", reason=worded)
        .agg(num_samples=pl.len())
        .sort("num_samples", "action", "reason", descending=[True, False, False])
        .collect()
    )
    odd = set(rows["action"]) - set(get_args(Action))
    if odd:
        raise DataError(
            f"plan of arm {arm}: expected actions {', '.join(get_args(Action))}, got "
            f"{', '.join(sorted(map(repr, odd)))}. {tables.RUN}"
        )
    actions = rows.group_by("action").agg(pl.col("num_samples").sum())
    return PlanSummary(
        arm=arm,
        rule=rule,
        num_samples=sum(rows["num_samples"]),
        actions=dict(actions.sort("num_samples", "action", descending=[True, False]).iter_rows()),
        reasons=tuple(Reason(**row) for row in rows.iter_rows(named=True)),
    )


def curated_arm(params: Params) -> str:
    """The arm whose plan made the curated data of the last run.

    Raises:
        SchemaError: ``intervene.curated_arm`` is auto and no run has come to its end.
    """
    named = params.intervene.curated_arm
    return files.read_as(CuratedChoice, paths.CHOICE).arm if named == AUTO else named


def plan_table(summary: PlanSummary) -> Table:
    """The reasons of a plan as a table for the terminal."""
    counts = ", ".join(f"{count:,} {action}" for action, count in summary.actions.items())
    table = Table(
        title=f"Plan of arm {summary.arm} (rule {summary.rule}): {summary.num_samples:,} samples",
        caption=counts,
    )
    table.add_column("action")
    table.add_column("reason")
    table.add_column("samples", justify="right")
    for row in summary.reasons:
        table.add_row(row.action, row.reason, f"{row.num_samples:,}")
    return table
