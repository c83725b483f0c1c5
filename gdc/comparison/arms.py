"""Audit tables of every arm and seed -> each arm's leakage and cost against other arms."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.comparison import leakage
from gdc.comparison.generalization import arm_losses, gap_difference, generalization_gap
from gdc.comparison.results import ArmAudits, SampleLeakage
from gdc.config import Params, RandomArm, ShuffledArm, TopFractionArm
from gdc.statistics import wording
from gdc.statistics.bootstrap import Measured, mean_interval, paired_difference

Cell = tuple[str, int]
Arrays = list[NDArray[np.float64]]
RARE_SHARE: Final = 0.1


@dataclass(frozen=True)
class AuditTables:
    """``AUDIT`` and ``MEMBERSHIP`` tables of every retrained arm and seed.

    ``rare`` are the held-out sample ids that were hardest at the start: where a loss of utility
    that spares ordinary text would show. ``trained`` are, for each arm, the ids it trained on.
    """

    audits: Mapping[Cell, pl.DataFrame]
    memberships: Mapping[Cell, pl.DataFrame]
    rare: frozenset[str]
    trained: Mapping[str, frozenset[str]]

    def arm_audits(self, arm: str, seeds: Sequence[int]) -> list[pl.DataFrame]:
        """One ``AUDIT`` table for each seed."""
        return [self.audits[arm, seed] for seed in seeds]

    def arm_memberships(self, arm: str, seeds: Sequence[int]) -> list[pl.DataFrame]:
        """One ``MEMBERSHIP`` table for each seed."""
        return [self.memberships[arm, seed] for seed in seeds]


def compare_arms(tables: AuditTables, params: Params) -> dict[str, ArmAudits]:
    """Compare every arm with the one that keeps everything and with a random arm of its size.

    Seeds are paired, canaries and texts are paired within them; intervals are bootstraps at 95 %.
    The membership attack is chosen once, on the models that saw everything.

    Returns:
        By arm, in the order of ``retrain.arms``.
    """
    seeds = params.retrain.seeds
    attack = leakage.strongest_attack(tables.arm_memberships(queried_arm(params), seeds))
    return {arm: _compare_arm(arm, tables, attack, params) for arm in params.retrain.arms}


def _compare_arm(
    arm: str, tables: AuditTables, attack: leakage.Attack, params: Params
) -> ArmAudits:
    seeds, seed, baseline = params.retrain.seeds, params.seed, baseline_arm(params)
    memberships = tables.arm_memberships(arm, seeds)
    of_all = leakage.sample_leakage(memberships, attack, seed=seed)
    random = equal_random_arm(arm, params)
    audits = ArmAudits(
        canaries=leakage.canary_leakage(tables.arm_audits(arm, seeds), seed=seed),
        samples=of_all,
        trained=_trained_leakage(memberships, tables.trained[arm], of_all, attack, seed),
        roc=leakage.roc_curve(memberships, attack),
        perplexity=_perplexity(memberships, seed),
        random=random,
        extraction_change=_against(tables, arm, baseline, params),
        extraction_against_random=_against(tables, arm, random, params),
        exposure_change=_against(tables, arm, baseline, params, "exposure"),
        auc_change=None
        if baseline is None
        else leakage.auc_change(
            memberships, tables.arm_memberships(baseline, seeds), attack, seed=seed
        ),
        perplexity_ratio=_perplexity_ratio(tables, arm, baseline, params),
        perplexity_against_random=_perplexity_ratio(tables, arm, random, params),
        rare_perplexity_ratio=_perplexity_ratio(tables, arm, baseline, params, only=tables.rare),
        verdict="",
        **_gaps(arm, random, tables, params),
    )
    plans = [name for name in params.retrain.arms if equal_random_arm(name, params) == arm]
    return replace(audits, verdict=verdict(arm, audits, baseline, control_of=plans))


def _gaps(
    arm: str, random: str | None, tables: AuditTables, params: Params
) -> dict[str, Measured | None]:
    """The generalization gap of the arm, and its difference to that of its random arm."""
    ours, theirs = (
        None
        if name is None
        else arm_losses(tables.arm_memberships(name, params.retrain.seeds), tables.trained[name])
        for name in (arm, random)
    )
    seed = params.seed
    return {
        "generalization_gap": generalization_gap(ours, seed=seed) if ours else None,
        "gap_against_random": gap_difference(ours, theirs, seed=seed) if ours and theirs else None,
    }


def _trained_leakage(
    memberships: Sequence[pl.DataFrame],
    trained: frozenset[str],
    of_all: SampleLeakage,
    attack: leakage.Attack,
    seed: int,
) -> SampleLeakage:
    """Leakage of the members that the arm trained on; ``of_all`` where these are all members."""
    kept = [_only(table, trained) for table in memberships]
    if kept[0].height == memberships[0].height:
        return of_all
    return leakage.sample_leakage(kept, attack, seed=seed)


def baseline_arm(params: Params) -> str | None:
    """The first retrained arm that keeps everything."""
    arms = params.intervene.arms
    return next((arm for arm in params.retrain.arms if arms[arm].rule == "none"), None)


def queried_arm(params: Params) -> str:
    """The arm whose models are queried about single samples: the baseline, or else the first."""
    return baseline_arm(params) or params.retrain.arms[0]


def equal_random_arm(arm: str, params: Params) -> str | None:
    """The retrained arm that does by chance what this one does by choice, to as many samples."""
    rule = params.intervene.arms[arm]
    for name in params.retrain.arms:
        other = params.intervene.arms[name]
        if isinstance(other, ShuffledArm) and other.of == arm:
            return name
        if (
            isinstance(rule, TopFractionArm)
            and isinstance(other, RandomArm)
            and (other.fraction, other.weight) == (rule.fraction, rule.weight)
        ):
            return name
    return None


def verdict(
    arm: str, audits: ArmAudits, baseline: str | None, *, control_of: Sequence[str] = ()
) -> str:
    """One sentence that claims no more than its intervals.

    Args:
        arm: Its name.
        audits: Of its models.
        baseline: The arm that keeps everything.
        control_of: Arms that act by choice on as many samples as this one by chance.
    """
    change, ratio = audits.extraction_change, audits.perplexity_ratio
    if arm == baseline:
        return f"{arm} keeps everything: the arm that the others are compared with."
    if change is None or ratio is None:
        return f"{arm}: not compared, extraction or a baseline is missing."
    did = "reduces" if change.high < 0 else "raises" if change.low > 0 else "is not shown to change"
    sentence = (
        f"{arm} {did} extraction: {_points(change)} at perplexity "
        f"x{wording.interval(ratio, wording.decimals)}, {wording.counted(change.num_seeds, 'seed')}"
    )
    against = audits.extraction_against_random
    if control_of:
        return f"{sentence}; the random arm that {' and '.join(control_of)} is compared with."
    if against is None:
        return f"{sentence}; no random arm of its size to compare with."
    better = "yes" if against.high < 0 else "no, worse" if against.low > 0 else "not shown"
    return f"{sentence}; better than {audits.random}: {better} ({_points(against)})."


def rarest(initial: pl.DataFrame, membership: pl.DataFrame) -> frozenset[str]:
    """The tenth of the audited held-out texts that was hardest at the start.

    Args:
        initial: ``sample_id`` and ``loss`` of held-out texts at the first checkpoint of a run that
            is no part of the comparison.
        membership: ``MEMBERSHIP`` table; it says which texts are audited.
    """
    audited = membership.filter(~pl.col("is_member")).select("sample_id")
    ranked = initial.join(audited, on="sample_id", how="semi").sort(
        "loss", "sample_id", descending=[True, False], nulls_last=True
    )
    return frozenset(ranked["sample_id"].head(math.ceil(ranked.height * RARE_SHARE)))


def _only(membership: pl.DataFrame, trained: frozenset[str]) -> pl.DataFrame:
    is_trained = pl.col("sample_id").is_in(list(trained))
    return membership.filter(~pl.col("is_member") | is_trained)


def _planted_values(tables: AuditTables, arm: str, seeds: Sequence[int], column: str) -> Arrays:
    planted = [table.filter(pl.col("num_repeats") > 0) for table in tables.arm_audits(arm, seeds)]
    return [table[column].drop_nulls().cast(pl.Float64).to_numpy() for table in planted]


def _against(
    tables: AuditTables, arm: str, other: str | None, params: Params, column: str = "extracted"
) -> Measured | None:
    seeds = params.retrain.seeds
    ours = _planted_values(tables, arm, seeds, column)
    if other is None or not all(len(values) for values in ours):
        return None
    return paired_difference(ours, _planted_values(tables, other, seeds, column), seed=params.seed)


def _perplexity_ratio(
    tables: AuditTables,
    arm: str,
    baseline: str | None,
    params: Params,
    only: frozenset[str] | None = None,
) -> Measured | None:
    if baseline is None or only == frozenset():
        return None
    chosen = pl.lit(value=True) if only is None else pl.col("sample_id").is_in(list(only))
    ours, theirs = (
        [
            table.filter(~pl.col("is_member"), chosen)
            for table in tables.arm_memberships(name, params.retrain.seeds)
        ]
        for name in (arm, baseline)
    )
    log_ratio = paired_difference(
        [table["loss"].to_numpy() for table in ours],
        [table["loss"].to_numpy() for table in theirs],
        seed=params.seed,
        weights_by_seed=[table["num_tokens"].to_numpy() for table in ours],
    )
    return _exponential(log_ratio)


def _perplexity(memberships: Sequence[pl.DataFrame], seed: int) -> Measured:
    heldout = [table.filter(~pl.col("is_member")) for table in memberships]
    log_perplexity = mean_interval(
        [table["loss"].to_numpy() for table in heldout],
        seed=seed,
        weights_by_seed=[table["num_tokens"].to_numpy() for table in heldout],
    )
    return _exponential(log_perplexity)


def _exponential(interval: Measured) -> Measured:
    value, low, high = np.exp([interval.value, interval.low, interval.high]).tolist()
    return Measured(value, low, high, interval.num_seeds)


def _points(measured: Measured) -> str:
    return f"{wording.points(measured.value)} points {wording.ends(measured, wording.points)}"
