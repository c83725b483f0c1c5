"""Audit tables of every arm and seed -> differences with intervals, and a verdict in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.comparison import leakage
from gdc.config import Params, RandomArm, ShuffledArm, TopFractionArm
from gdc.statistics.bootstrap import Measured, mean_interval, paired_difference

Cell = tuple[str, int]
Arrays = list[NDArray[np.float64]]
RARE_SHARE: Final = 0.1


@dataclass(frozen=True)
class Evidence:
    """``AUDIT`` and ``MEMBERSHIP`` tables of every retrained arm and seed.

    ``rare`` are the held-out sample ids that were hardest at the start: where a loss of utility
    that spares ordinary text would show. ``trained`` are, for each arm, the ids it trained on.
    """

    audits: Mapping[Cell, pl.DataFrame]
    memberships: Mapping[Cell, pl.DataFrame]
    rare: frozenset[str]
    trained: Mapping[str, frozenset[str]]

    def audits_of(self, arm: str, seeds: Sequence[int]) -> list[pl.DataFrame]:
        """One table for each seed."""
        return [self.audits[arm, seed] for seed in seeds]

    def memberships_of(self, arm: str, seeds: Sequence[int]) -> list[pl.DataFrame]:
        """One table for each seed."""
        return [self.memberships[arm, seed] for seed in seeds]


def compare_arms(evidence: Evidence, params: Params) -> dict[str, Any]:
    """Every arm against the one that keeps everything and against a random arm of its size.

    Seeds are paired, canaries and texts are paired within them; intervals are bootstraps at 95 %.
    The membership attack is chosen once, on the models that saw everything.

    Returns:
        For each arm ``canaries``, ``samples`` and ``roc`` as ``leakage`` gives them; ``trained``,
        as ``samples`` but of those members alone that the arm trained on (a dropped sample is a
        member no more, so an arm that drops lowers the first without protecting anybody);
        ``perplexity``, ``perplexity_ratio``, ``rare_perplexity_ratio`` (on rare texts) and
        ``perplexity_against_random``; ``extraction_change``, ``extraction_against_random``,
        ``exposure_change`` and ``auc_change`` against the baseline; ``random`` (the equal-size
        random arm) and ``verdict``. An interval is ``value``, ``low``, ``high``, ``num_seeds``;
        None: not measured.
    """
    arms, seeds = params.retrain.arms, params.retrain.seeds
    baseline = baseline_arm(params)
    attack = leakage.strongest_attack(evidence.memberships_of(asked_arm(params), seeds))
    compared = {}
    for arm in arms:
        memberships = evidence.memberships_of(arm, seeds)
        kept = [_only(table, evidence.trained[arm]) for table in memberships]
        of_all = leakage.of_samples(memberships, attack, seed=params.seed)
        random = equal_random_arm(arm, params)
        values = {
            "canaries": leakage.of_canaries(evidence.audits_of(arm, seeds), seed=params.seed),
            "samples": of_all,
            "trained": of_all
            if kept[0].height == memberships[0].height
            else leakage.of_samples(kept, attack, seed=params.seed),
            "roc": leakage.roc_curves(memberships, attack),
            "perplexity": _perplexity(memberships, params.seed),
            "random": random,
            "extraction_change": _against(evidence, arm, baseline, params),
            "extraction_against_random": _against(evidence, arm, random, params),
            "exposure_change": _against(evidence, arm, baseline, params, "exposure"),
            "auc_change": None
            if baseline is None
            else leakage.auc_change(
                memberships, evidence.memberships_of(baseline, seeds), attack, seed=params.seed
            ),
            "perplexity_ratio": _perplexity_ratio(evidence, arm, baseline, params),
            "perplexity_against_random": _perplexity_ratio(evidence, arm, random, params),
            "rare_perplexity_ratio": _perplexity_ratio(
                evidence, arm, baseline, params, only=evidence.rare
            ),
        }
        compared[arm] = as_plain(values | {"verdict": verdict(arm, values, baseline)})
    return compared


def as_plain(value: Any) -> Any:  # noqa: ANN401 - any nesting of intervals
    """The same with every ``Measured`` as a dictionary, ready for JSON."""
    if isinstance(value, Measured):
        return asdict(value)
    if isinstance(value, Mapping):
        return {name: as_plain(inner) for name, inner in value.items()}
    return [as_plain(inner) for inner in value] if isinstance(value, list) else value


def baseline_arm(params: Params) -> str | None:
    """The first retrained arm that keeps everything."""
    arms = params.intervene.arms
    return next((arm for arm in params.retrain.arms if arms[arm].rule == "none"), None)


def asked_arm(params: Params) -> str:
    """Whose models are asked about single samples: the baseline's, or else the first arm's."""
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


def verdict(arm: str, values: Mapping[str, Any], baseline: str | None) -> str:
    """One sentence that claims no more than its intervals."""
    change, ratio = values["extraction_change"], values["perplexity_ratio"]
    if arm == baseline:
        return f"{arm} keeps everything: the arm that the others are compared with."
    if change is None or ratio is None:
        return f"{arm}: not compared, extraction or a baseline is missing."
    did = "reduces" if change.high < 0 else "raises" if change.low > 0 else "is not shown to change"
    seeds = f"{change.num_seeds} seed{'s' if change.num_seeds > 1 else ''}"
    sentence = (
        f"{arm} {did} extraction: {_points(change)} at perplexity x{ratio.value:.3f} "
        f"[{ratio.low:.3f}, {ratio.high:.3f}], {seeds}"
    )
    against = values["extraction_against_random"]
    if against is None:
        return f"{sentence}; no random arm of its size to compare with."
    better = "yes" if against.high < 0 else "no, worse" if against.low > 0 else "not shown"
    return f"{sentence}; better than {values['random']}: {better} ({_points(against)})."


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


def _of_canaries(evidence: Evidence, arm: str, seeds: Sequence[int], column: str) -> Arrays:
    planted = [table.filter(pl.col("num_repeats") > 0) for table in evidence.audits_of(arm, seeds)]
    return [table[column].drop_nulls().cast(pl.Float64).to_numpy() for table in planted]


def _against(
    evidence: Evidence, arm: str, other: str | None, params: Params, column: str = "extracted"
) -> Measured | None:
    seeds = params.retrain.seeds
    ours = _of_canaries(evidence, arm, seeds, column)
    if other is None or not all(len(values) for values in ours):
        return None
    return paired_difference(ours, _of_canaries(evidence, other, seeds, column), seed=params.seed)


def _perplexity_ratio(
    evidence: Evidence,
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
            for table in evidence.memberships_of(name, params.retrain.seeds)
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


def _points(interval: Measured) -> str:
    value, low, high = (100 * end for end in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
