"""Audit tables of every arm and seed -> differences with intervals, and a verdict in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.audits import ATTACKS
from gdc.bootstrap import LEVEL, Interval, mean_interval, paired_difference
from gdc.config import Params, RandomArm, TopFractionArm
from gdc.discoverable import discoverable_curve
from gdc.membership import auc, tpr_at_fpr
from gdc.schema import QUADRANTS

Cell = tuple[str, int]
Arrays = list[NDArray[np.float64]]
# AUCs are smooth, so fewer resamples than for a mean give the ends to two digits.
NUM_AUC_RESAMPLES: Final = 300
NUM_DECILES: Final = 10


@dataclass(frozen=True)
class Evidence:
    """``AUDIT`` and ``MEMBERSHIP`` tables of every retrained arm and seed."""

    audits: Mapping[Cell, pl.DataFrame]
    memberships: Mapping[Cell, pl.DataFrame]


def compare_arms(evidence: Evidence, params: Params, baseline: str | None) -> dict[str, Any]:
    """Every arm against the one that keeps everything and against a random arm of its size.

    Seeds are paired, canaries and held-out texts are paired within them; intervals are nested
    bootstraps at 95 %.

    Returns:
        For each arm ``extraction`` (share of planted canaries), ``exposure`` (mean bits), ``auc``
        and ``tpr_at_1_percent_fpr`` of its strongest membership attack, ``perplexity_ratio``,
        ``extraction_change``, ``extraction_against_random``, ``random`` (that arm's name), and
        ``verdict``. An interval is ``value``, ``low``, ``high``, ``num_seeds``; None: not measured.
    """
    arms, seeds = params.retrain.arms, params.retrain.seeds
    compared = {arm: _measured(evidence, arm, params) for arm in arms}
    for arm in arms:
        random = equal_random_arm(arm, params)
        extraction = _of_canaries(evidence, arm, seeds, "extracted")
        compared[arm] |= {
            "random": random,
            "extraction_change": _against(evidence, extraction, baseline, params),
            "extraction_against_random": _against(evidence, extraction, random, params),
            "perplexity_ratio": _perplexity_ratio(evidence, arm, baseline, params),
        }
        compared[arm]["verdict"] = verdict(arm, compared[arm], baseline)
    return {
        arm: {
            name: asdict(value) if isinstance(value, Interval) else value
            for name, value in values.items()
        }
        for arm, values in compared.items()
    }


def baseline_arm(params: Params) -> str | None:
    """The first retrained arm that keeps everything."""
    arms = params.intervene.arms
    return next((arm for arm in params.retrain.arms if arms[arm].rule == "none"), None)


def equal_random_arm(arm: str, params: Params) -> str | None:
    """The retrained random arm that drops or weighs as many samples as a top-fraction arm."""
    rule = params.intervene.arms[arm]
    if not isinstance(rule, TopFractionArm):
        return None
    for name in params.retrain.arms:
        other = params.intervene.arms[name]
        if isinstance(other, RandomArm) and (other.fraction, other.weight) == (
            rule.fraction,
            rule.weight,
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
    sentence = (
        f"{arm} {did} extraction: {_points(change)} at perplexity x{ratio.value:.3f} "
        f"[{ratio.low:.3f}, {ratio.high:.3f}]"
    )
    against = values["extraction_against_random"]
    if against is None:
        return f"{sentence}; no random arm of its size to compare with."
    better = "yes" if against.high < 0 else "no, worse" if against.low > 0 else "not shown"
    return f"{sentence}; better than {values['random']}: {better} ({_points(against)})."


def by_group(evidence: Evidence, arm: str, scored: pl.DataFrame, axis: str) -> dict[str, Any]:
    """Is the hotspot quadrant in truth the leaky part? Members of each group against held-out text.

    Args:
        evidence: Tables of all arms.
        arm: The arm whose models are asked; it should keep everything.
        scored: ``sample_id``, ``quadrant`` and the column ``axis`` of the training split.
        axis: The score whose deciles are compared.

    Returns:
        ``quadrants`` and ``deciles`` (1 is the lowest): for each group the number of audited
        members, the AUC of the loss attack of its members against all held-out texts, and the share
        of members whose second half is extracted from the first; means over seeds.
    """
    decile = (pl.col(axis).rank("ordinal") - 1) * NUM_DECILES // pl.len() + 1
    groups = scored.select(
        "sample_id", quadrants="quadrant", deciles=decile.cast(pl.Int64).cast(pl.String)
    )
    tables = [
        table.join(groups, on="sample_id", how="left", maintain_order="left")
        for (name, _), table in evidence.memberships.items()
        if name == arm
    ]
    names = {
        "quadrants": list(QUADRANTS),
        "deciles": [str(decile) for decile in range(1, NUM_DECILES + 1)],
    }
    return {
        kind: {
            name: _group([_members_and_heldout(table, kind, name) for table in tables])
            for name in values
        }
        for kind, values in names.items()
    }


def _measured(evidence: Evidence, arm: str, params: Params) -> dict[str, Any]:
    seeds = params.retrain.seeds
    extraction = _of_canaries(evidence, arm, seeds, "extracted")
    exposure = _of_canaries(evidence, arm, seeds, "exposure")
    tables = [evidence.memberships[arm, seed] for seed in seeds]
    attacks = {name: _attack(tables, name) for name in ("loss", *ATTACKS)}
    strongest = max(attacks, key=lambda name: np.mean([auc(*pair) for pair in attacks[name]]))
    pairs = attacks[strongest]
    return {
        "extraction": _interval(extraction, params.seed),
        "discoverable": _discoverable(evidence, arm, params, planted=True),
        "floor": {
            "extraction": _mean_of_twins(evidence, arm, seeds, "extracted"),
            "edit_similarity": _mean_of_twins(evidence, arm, seeds, "edit_similarity"),
            "discoverable": _discoverable(evidence, arm, params, planted=False),
        },
        "edit_similarity": _interval(
            _of_canaries(evidence, arm, seeds, "edit_similarity"), params.seed
        ),
        "exposure": _interval(exposure, params.seed),
        "attack": strongest,
        "auc": _pair_interval(pairs, auc, params.seed),
        "tpr_at_1_percent_fpr": _pair_interval(
            pairs, lambda members, heldout: tpr_at_fpr(members, heldout, 0.01), params.seed
        ),
    }


def _discoverable(
    evidence: Evidence, arm: str, params: Params, *, planted: bool
) -> dict[str, float] | None:
    """Share of canaries (or twins) that n samples give away with chance 1/2, for each n."""
    is_chosen = (pl.col("num_repeats") > 0) == planted
    tables = [evidence.audits[arm, seed].filter(is_chosen) for seed in params.retrain.seeds]
    if any(table.is_empty() for table in tables):
        return None
    log_p = [np.minimum(-table["secret_nll"].to_numpy(), 0.0) for table in tables]
    curves = [discoverable_curve(values, p=0.5) for values in log_p]
    return {str(n): float(np.mean([curve[n] for curve in curves])) for n in curves[0]}


def _mean_of_twins(evidence: Evidence, arm: str, seeds: Sequence[int], column: str) -> float | None:
    twins = pl.concat([evidence.audits[arm, seed] for seed in seeds]).filter(
        pl.col("num_repeats") == 0
    )
    return None if twins.is_empty() else float(twins[column].cast(pl.Float64).to_numpy().mean())


def _interval(values: Arrays, seed: int) -> Interval | None:
    return mean_interval(values, seed=seed) if all(len(v) for v in values) else None


def _of_canaries(evidence: Evidence, arm: str, seeds: Sequence[int], column: str) -> Arrays:
    return [
        evidence.audits[arm, seed]
        .filter(pl.col("num_repeats") > 0)[column]
        .cast(pl.Float64)
        .drop_nulls()
        .to_numpy()
        for seed in seeds
    ]


def _against(
    evidence: Evidence, ours: Arrays, other: str | None, params: Params
) -> Interval | None:
    if other is None or not all(len(values) for values in ours):
        return None
    theirs = _of_canaries(evidence, other, params.retrain.seeds, "extracted")
    return paired_difference(ours, theirs, seed=params.seed)


def _perplexity_ratio(
    evidence: Evidence, arm: str, baseline: str | None, params: Params
) -> Interval | None:
    if baseline is None:
        return None
    ours, theirs = (
        [_token_losses(evidence.memberships[name, seed]) for seed in params.retrain.seeds]
        for name in (arm, baseline)
    )
    log_ratio = paired_difference(ours, theirs, seed=params.seed)
    value, low, high = np.exp([log_ratio.value, log_ratio.low, log_ratio.high]).tolist()
    return Interval(value, low, high, log_ratio.num_seeds)


def _token_losses(table: pl.DataFrame) -> NDArray[np.float64]:
    """Held-out losses, scaled so that their plain mean is the mean over tokens."""
    heldout = table.filter(~pl.col("is_member"))
    weighted = heldout["loss"] * heldout["num_tokens"] / heldout["num_tokens"].mean()
    return weighted.to_numpy()


def _attack(
    tables: Sequence[pl.DataFrame], name: str
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    score = -pl.col("loss") if name == "loss" else pl.col(name)
    return [
        (
            table.filter("is_member").select(score).to_series().to_numpy(),
            table.filter(~pl.col("is_member")).select(score).to_series().to_numpy(),
        )
        for table in tables
    ]


def _pair_interval(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    seed: int,
) -> Interval:
    """A statistic of members and held-out texts, both resampled within resampled seeds."""
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(NUM_AUC_RESAMPLES):
        drawn = [pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]
        resampled.append(
            np.mean([statistic(*(rng.choice(side, len(side)) for side in pair)) for pair in drawn])
        )
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean([statistic(*pair) for pair in pairs]))
    return Interval(value, float(low), float(high), len(pairs))


def _members_and_heldout(
    table: pl.DataFrame, kind: str, name: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    is_group = pl.col("is_member") & (pl.col(kind) == name)
    return table.filter(is_group), table.filter(~pl.col("is_member"))


def _group(pairs: Sequence[tuple[pl.DataFrame, pl.DataFrame]]) -> dict[str, Any]:
    num_members = pairs[0][0].height
    if not num_members:
        return {"num_members": 0, "auc": None, "suffix_extraction": None}
    aucs = [
        auc(-members["loss"].to_numpy(), -heldout["loss"].to_numpy()) for members, heldout in pairs
    ]
    extracted = [float(members["suffix_extracted"].mean()) for members, _ in pairs]  # type: ignore[arg-type]
    return {
        "num_members": num_members,
        "auc": float(np.mean(aucs)),
        "suffix_extraction": float(np.mean(extracted)),
    }


def _points(interval: Interval) -> str:
    value, low, high = (100 * end for end in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
