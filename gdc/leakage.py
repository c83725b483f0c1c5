"""Audit tables of one arm's seeds -> how much it leaks, every number with its interval.

A list holds one table for each seed; intervals are bootstraps nested in them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.audits import attacks_in, blind_in
from gdc.bootstrap import LEVEL, Interval, mean_interval
from gdc.discoverable import NUM_SAMPLES, is_discoverable
from gdc.membership import auc, leak_direction, tpr_at_fpr
from gdc.privacy import best_epsilon
from gdc.schema import QUADRANTS

Tables = Sequence[pl.DataFrame]
Groups = tuple[NDArray[np.float64], NDArray[np.float64]]  # scores of members, of held-out texts
# AUCs are smooth, so fewer resamples than for a mean give the ends to two digits.
NUM_AUC_RESAMPLES: Final = 300
NUM_DECILES: Final = 10
NUM_ROC_POINTS: Final = 40
# Chance with which n samples must contain a secret to count as giving it away.
CHANCE: Final = 0.5

# One row is a training sample that at least one model of an arm gives away.
LEAKED: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "num_suffix_tokens": pl.Int64,
        "num_models": pl.Int64,  # seeds whose model does
    }
)

_ATTACK_MEASURES: Final = ("auc", "tpr_at_1_percent_fpr", "tpr_at_01_percent_fpr", "epsilon")
_LOSS: Final = -pl.col("loss")
_CANARY_MEANS: Final = (
    "extracted", "extracted_shifted", "edit_similarity", "substring_share", "exposure",
    "exposure_fitted",
)  # fmt: skip


def of_canaries(audits: Tables, *, seed: int) -> dict[str, Any]:
    """What planted canaries give away, and their never-planted twins as the floor.

    Args:
        audits: ``AUDIT`` tables.
        seed: Seed of the resampling.

    Returns:
        ``planted`` and ``twins``, each with the mean of every measure and the ``discoverable``
        curves (share that n samples give away with chance one half, by n) at the planted and the
        ``shifted`` place; ``num_fits_beyond``, fitted exposures that are guesses; and ``levels``, a
        list by family and repeats. A mean that nothing was measured for is None.
    """
    planted, twins = (
        [table.filter((pl.col("num_repeats") > 0) == is_planted) for table in audits]
        for is_planted in (True, False)
    )
    levels = pl.concat(audits).select("family", "num_repeats").unique().sort(pl.all())
    return {
        "planted": _measures(planted, seed),
        "twins": _measures(twins, seed),
        "num_fits_beyond": sum(int(table["fit_is_beyond"].sum()) for table in planted),
        "levels": [
            {"family": family, "num_repeats": num_repeats}
            | _means(
                [t.filter(family=family, num_repeats=num_repeats) for t in audits],
                ("extracted", "exposure", "exposure_fitted"),
                seed,
            )
            for family, num_repeats in levels.iter_rows()
        ],
    }


def of_samples(memberships: Tables, attack: str, *, seed: int) -> dict[str, Any]:
    """What an attack and a prefix tell of ordinary training samples, beside held-out texts.

    Args:
        memberships: ``MEMBERSHIP`` tables; without held-out texts membership is not measured.
        attack: Whose scores are judged; ``strongest_attack`` names it.
        seed: Seed of the resampling.

    Returns:
        ``attack``, ``auc``, ``tpr_at_1_percent_fpr`` and ``tpr_at_01_percent_fpr``; ``epsilon``,
        the mean over seeds of a lower bound at 95 %; ``members`` and ``heldout``, each with the
        share of second halves that greedy decoding ``extracted`` and their ``discoverable`` curve;
        ``blind``, AUCs of scores that never ask a model, and ``blind_leaks``, which of them tell
        the two groups apart, so that an attack may see the texts and not the model.
    """
    members, heldout = (
        [table.filter(pl.col("is_member") == value) for table in memberships]
        for value in (True, False)
    )
    measured: Mapping[str, Any] = dict.fromkeys(_ATTACK_MEASURES)
    blind: dict[str, Groups] = {}
    if all(table.height for table in heldout):
        measured = _attack_measures(scores_of(memberships, attack), seed)
        blind = {name: scores_of(memberships, name)[0] for name in blind_in(memberships[0])}
    return {
        "attack": attack,
        **measured,
        "members": _suffixes(members, seed),
        "heldout": _suffixes(heldout, seed),
        "blind": {name: auc(*pair) for name, pair in blind.items()},
        "blind_leaks": [name for name, pair in blind.items() if leak_direction(*pair) != "none"],
    }


def roc_curves(memberships: Tables, attack: str) -> dict[str, list[float]]:
    """``fpr`` from one held-out text up to all of them, and the mean ``tpr`` over seeds there."""
    groups = scores_of(memberships, attack)
    rates = np.geomspace(1 / len(groups[0][1]), 1, NUM_ROC_POINTS)
    rates[-1] = 1.0
    tpr = [[tpr_at_fpr(*pair, rate) for rate in rates] for pair in groups]
    return {"fpr": rates.tolist(), "tpr": np.mean(tpr, axis=0).tolist()}


def strongest_attack(memberships: Tables) -> str:
    """The attack whose AUC is farthest from 0.5, on either side; the first of equals."""
    return max(
        attacks_in(memberships[0]),
        key=lambda name: abs(
            np.mean([auc(*pair) for pair in scores_of(memberships, name)]).item() - 0.5
        ),
    )


def scores_of(memberships: Tables, attack: str) -> list[Groups]:
    """Scores of members and of held-out texts, for each seed."""
    score = _LOSS if attack == "loss" else pl.col(attack)
    return [
        (
            table.filter("is_member").select(score).to_series().to_numpy(),
            table.filter(~pl.col("is_member")).select(score).to_series().to_numpy(),
        )
        for table in memberships
    ]


def verbatim_samples(memberships: Tables) -> pl.DataFrame:
    """Training samples whose second half greedy decoding of the first gives: a ``LEAKED`` table.

    Of the samples that any model gives away, the longest first.
    """
    return (
        pl.concat(memberships)
        .filter("is_member", "suffix_extracted")
        .group_by("sample_id", "num_suffix_tokens")
        .agg(num_models=pl.len().cast(pl.Int64))
        .sort("num_suffix_tokens", "num_models", "sample_id", descending=[True, True, False])
        .match_to_schema(LEAKED)
    )


def by_group(memberships: Tables, scored: pl.DataFrame, axis: str, *, seed: int) -> dict[str, Any]:
    """Is the hotspot quadrant in truth the leaky part? Members of each group against held-out text.

    Args:
        memberships: ``MEMBERSHIP`` tables of models that saw everything.
        scored: ``sample_id``, ``quadrant`` and the column ``axis`` of the training split.
        axis: The score whose deciles are compared.
        seed: Seed of the resampling.

    Returns:
        ``quadrants`` and ``deciles`` (1 is the lowest): for each group the number of audited
        members, the AUC of the loss attack of its members against all held-out texts, and the share
        of members whose second half is extracted from the first.
    """
    decile = (pl.col(axis).rank("ordinal") - 1) * NUM_DECILES // pl.len() + 1
    groups = scored.sort("sample_id").select(
        "sample_id", quadrants="quadrant", deciles=decile.cast(pl.Int64).cast(pl.String)
    )
    tables = [
        table.join(groups, on="sample_id", how="left", maintain_order="left")
        for table in memberships
    ]
    names = {
        "quadrants": list(QUADRANTS),
        "deciles": [str(decile) for decile in range(1, NUM_DECILES + 1)],
    }
    return {
        kind: {name: _group(tables, pl.col(kind) == name, seed) for name in values}
        for kind, values in names.items()
    }


def group_interval(
    groups: Sequence[Groups],
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    seed: int,
) -> Interval:
    """A statistic of members and held-out texts, both resampled within resampled seeds."""
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(NUM_AUC_RESAMPLES):
        drawn = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        resampled.append(
            np.mean([statistic(*(rng.choice(side, len(side)) for side in pair)) for pair in drawn])
        )
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(np.mean([statistic(*pair) for pair in groups]))
    return Interval(value, float(low), float(high), len(groups))


def _attack_measures(groups: Sequence[Groups], seed: int) -> Mapping[str, Any]:
    measures = (
        group_interval(groups, auc, seed),
        group_interval(groups, _tpr(0.01), seed),
        group_interval(groups, _tpr(0.001), seed),
        _epsilon(groups, seed),
    )
    return dict(zip(_ATTACK_MEASURES, measures, strict=True))


def _epsilon(groups: Sequence[Groups], seed: int) -> float | None:
    """None where a single text is on a side: one half of a side chooses, the other is judged."""
    if min(len(side) for pair in groups for side in pair) < 2:
        return None
    bounds = [best_epsilon(*pair, alpha=1 - LEVEL, seed=seed) for pair in groups]
    return float(np.mean(bounds))


def _measures(audits: Tables, seed: int) -> dict[str, Any]:
    return _means(audits, _CANARY_MEANS, seed) | {
        "discoverable": _curve([t["secret_nll"] for t in audits], seed),
        "discoverable_shifted": _curve([t["secret_nll_shifted"] for t in audits], seed),
    }


def _suffixes(memberships: Tables, seed: int) -> dict[str, Any]:
    asked = [table.filter(pl.col("num_suffix_tokens") > 0) for table in memberships]
    return {
        "extracted": _mean([table["suffix_extracted"] for table in asked], seed),
        "discoverable": _curve([table["suffix_nll"] for table in asked], seed),
    }


def _group(tables: Tables, is_group: pl.Expr, seed: int) -> dict[str, Any]:
    members = [table.filter("is_member", is_group) for table in tables]
    num_members = members[0].height
    if not num_members:
        return {"num_members": 0, "auc": None, "extracted": None}
    heldout = [table.filter(~pl.col("is_member")) for table in tables]
    pairs = [pl.concat(pair) for pair in zip(members, heldout, strict=True)]
    return {
        "num_members": num_members,
        "auc": group_interval(scores_of(pairs, "loss"), auc, seed),
        "extracted": _mean([table["suffix_extracted"] for table in members], seed),
    }


def _means(tables: Tables, columns: Sequence[str], seed: int) -> dict[str, Any]:
    return {column: _mean([table[column] for table in tables], seed) for column in columns}


def _mean(columns: Sequence[pl.Series], seed: int) -> Interval | None:
    values = [column.drop_nulls().cast(pl.Float64).to_numpy() for column in columns]
    return mean_interval(values, seed=seed) if all(len(v) for v in values) else None


def _curve(nll: Sequence[pl.Series], seed: int) -> dict[str, Interval | None]:
    log_p = [np.minimum(-column.drop_nulls().to_numpy(), 0.0) for column in nll]
    return {
        str(n): _mean([pl.Series(is_discoverable(values, n, CHANCE)) for values in log_p], seed)
        for n in NUM_SAMPLES
    }


def _tpr(rate: float) -> Callable[[NDArray[np.float64], NDArray[np.float64]], float]:
    return lambda members, heldout: tpr_at_fpr(members, heldout, rate)
