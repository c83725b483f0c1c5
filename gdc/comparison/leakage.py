"""Audit tables of one arm's seeds -> how much it leaks, every number with its interval.

A list holds one table for each seed, all of the same canaries or texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.audit.attack_metrics import auc, ranked, roc, tail_rate
from gdc.audit.discoverability import NUM_SAMPLES, is_discoverable
from gdc.audit.epsilon_bound import best_epsilon
from gdc.audit.membership_table import (
    ELSEWHERE,
    MIN_SUFFIX_TOKENS,
    TAIL_QUANTILES,
    attacks_in,
    blind_in,
    is_memorized,
)
from gdc.comparison.results import (
    AllAttacks,
    AttackMeasures,
    CanaryLeakage,
    CanaryLevel,
    CanaryMeasures,
    Curve,
    GroupLeakage,
    LeakageByGroup,
    RocCurve,
    SampleLeakage,
    SuffixLeakage,
)
from gdc.schema import QUADRANTS
from gdc.statistics.bootstrap import (
    LEVEL,
    Counts,
    Measured,
    Statistic,
    mean_interval,
    share_interval,
    two_sample_interval,
)

Tables = Sequence[pl.DataFrame]
# Scores of members and of held-out texts.
Groups = tuple[NDArray[np.float64], NDArray[np.float64]]
NUM_DECILES: Final = 10
NUM_ROC_POINTS: Final = 40
# Chance with which n samples must contain a secret to count as giving it away.
CHANCE: Final = 0.5


@dataclass(frozen=True)
class Attack:
    """A membership attack by name; ``is_turned``: members score lower, so its sign is changed."""

    name: str
    is_turned: bool = False


# One row is a training sample that at least one model of an arm gives away.
LEAKED: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "num_suffix_tokens": pl.Int64,
        "num_models": pl.Int64,  # seeds whose model does
    }
)

_LOSS: Final = -pl.col("loss")
_NOT_MEASURED: Final = AttackMeasures(None, None, None, None)


def canary_leakage(audits: Tables, *, seed: int) -> CanaryLeakage:
    """What models give away of planted canaries and, as the floor, of their twins.

    Args:
        audits: ``AUDIT`` tables.
        seed: Seed of the resampling.
    """
    planted, twins = (
        [table.filter((pl.col("num_repeats") > 0) == is_planted) for table in audits]
        for is_planted in (True, False)
    )
    levels = audits[0].select("family", "num_repeats")
    return CanaryLeakage(
        planted=_canary_measures(planted, seed),
        twins=_canary_measures(twins, seed),
        num_fits_beyond=sum(int(table["fit_is_beyond"].sum()) for table in planted),
        levels=[
            _level(audits, family, num_repeats, seed)
            for family, num_repeats in levels.unique().sort("family", "num_repeats").iter_rows()
        ],
    )


def sample_leakage(memberships: Tables, attack: Attack, *, seed: int) -> SampleLeakage:
    """What an attack and a prefix tell of ordinary training samples, beside held-out texts.

    Args:
        memberships: ``MEMBERSHIP`` tables; without held-out texts membership is not measured.
        attack: Whose scores are judged; ``strongest_attack`` names it.
        seed: Seed of the resampling.

    Returns:
        Second halves count where they have at least ``MIN_SUFFIX_TOKENS`` tokens.
    """
    members, heldout = (
        [table.filter(pl.col("is_member") == value) for table in memberships]
        for value in (True, False)
    )
    measured, tail = _NOT_MEASURED, None
    if all(table.height for table in heldout):
        measured = attack_measures(scores_of(memberships, attack), seed)
        losses = scores_of(memberships, Attack("loss"))
        tail = two_sample_interval([_tail_rate(pair) for pair in losses], _sizes(losses), seed)
    return SampleLeakage(
        **vars(measured),
        attack=attack.name,
        members=_suffixes(members, seed),
        heldout=_suffixes(heldout, seed),
        tail_rate=tail,
    )


def all_attacks(memberships: Tables, *, seed: int) -> AllAttacks:
    """Every attack and every blind baseline; none where there are no held-out texts."""
    if not all((~table["is_member"]).any() for table in memberships):
        return AllAttacks({}, {}, [])
    attacks, blind = (
        {name: attack_measures(scores_of(memberships, Attack(name)), seed) for name in names}
        for names in (attacks_in(memberships[0]), blind_in(memberships[0]))
    )
    leaks = [name for name, m in blind.items() if m.auc and not m.auc.low <= 0.5 <= m.auc.high]
    return AllAttacks(attacks, blind, leaks)


def roc_curve(memberships: Tables, attack: Attack) -> RocCurve:
    """False positive rates from one held-out text up to all of them, and the mean TPR there."""
    groups = scores_of(memberships, attack)
    rates = np.geomspace(1 / len(groups[0][1]), 1, NUM_ROC_POINTS)
    rates[-1] = 1.0
    tpr = [[points.tpr_at(rate) for rate in rates] for points in (roc(*pair) for pair in groups)]
    return RocCurve(fpr=rates.tolist(), tpr=np.mean(tpr, axis=0).tolist())


def strongest_attack(memberships: Tables) -> Attack:
    """The attack whose AUC is farthest from 0.5, turned round if it is below; the first of equals.

    It is chosen on the texts that it is then judged on, which favours it a little.
    """
    aucs = {
        name: np.mean([auc(*pair) for pair in scores_of(memberships, Attack(name))]).item()
        for name in attacks_in(memberships[0])
    }
    name = max(aucs, key=lambda attack: abs(aucs[attack] - 0.5))
    return Attack(name, is_turned=aucs[name] < 0.5)


def scores_of(memberships: Tables, attack: Attack) -> list[Groups]:
    """Scores of members and of held-out texts, for each seed."""
    score = _LOSS if attack.name == "loss" else pl.col(attack.name)
    if attack.is_turned:
        score = -score
    return [
        (
            table.filter("is_member").select(score).to_series().to_numpy(),
            table.filter(~pl.col("is_member")).select(score).to_series().to_numpy(),
        )
        for table in memberships
    ]


def auc_change(ours: Tables, theirs: Tables, attack: Attack, *, seed: int) -> Measured:
    """AUC of ours minus AUC of theirs, paired by seed and by text."""
    mine, other = scores_of(ours, attack), scores_of(theirs, attack)
    differences = [_auc_difference(*pair) for pair in zip(mine, other, strict=True)]
    return two_sample_interval(differences, _sizes(mine), seed)


def verbatim_samples(memberships: Tables) -> pl.DataFrame:
    """Training samples whose second half greedy decoding of the first gives: a ``LEAKED`` table.

    Of the samples that any model gives away, the longest first.
    """
    return (
        pl.concat(memberships)
        .filter("is_member", "suffix_extracted", pl.col("num_suffix_tokens") >= MIN_SUFFIX_TOKENS)
        .group_by("sample_id", "num_suffix_tokens")
        .agg(num_models=pl.len().cast(pl.Int64))
        .sort("num_suffix_tokens", "num_models", "sample_id", descending=[True, True, False])
        .match_to_schema(LEAKED)
    )


def leakage_by_group(
    memberships: Tables, scored: pl.DataFrame, axis: str, *, seed: int
) -> LeakageByGroup:
    """Compare the members of each quadrant and of each decile with all held-out texts.

    Args:
        memberships: ``MEMBERSHIP`` tables of models that saw everything.
        scored: ``sample_id``, ``quadrant`` and the column ``axis`` of the training split.
        axis: The score whose deciles are compared.
        seed: Seed of the resampling.

    Returns:
        The attack is the reference ratio where there are reference models, for it knows how hard a
        text is, else the loss.
    """
    # Samples with equal scores share a decile, that of their middle, and leave others empty.
    decile = (pl.col(axis).rank("average") - 0.5) * NUM_DECILES // pl.len() + 1
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
    known = attacks_in(memberships[0])
    attack = Attack("reference_ratio" if "reference_ratio" in known else "loss")
    found = {
        kind: {name: _group(tables, pl.col(kind) == name, attack, seed) for name in values}
        for kind, values in names.items()
    }
    return LeakageByGroup(found["quadrants"], found["deciles"], attack.name)


def attack_measures(groups: Sequence[Groups], seed: int) -> AttackMeasures:
    """AUC, true positive rates and the bound on epsilon of one attack."""
    sides = [ranked(*pair) for pair in groups]
    sizes = _sizes(groups)
    at_1_percent, at_01_percent = (
        two_sample_interval([partial(side.tpr_at_fpr, fpr=rate) for side in sides], sizes, seed)
        if sizes[1] * rate >= 1
        else None
        for rate in (0.01, 0.001)
    )
    return AttackMeasures(
        auc=two_sample_interval([side.auroc for side in sides], sizes, seed),
        tpr_at_1_percent_fpr=at_1_percent,
        tpr_at_01_percent_fpr=at_01_percent,
        epsilon_bound=_epsilon_bound(groups, seed),
    )


def _epsilon_bound(groups: Sequence[Groups], seed: int) -> float | None:
    """None where a single text is on a side: one half of a side chooses, the other is judged."""
    if min(len(side) for pair in groups for side in pair) < 2:
        return None
    bounds = [best_epsilon(*pair, alpha=1 - LEVEL, seed=seed) for pair in groups]
    return float(np.mean(bounds))


def _canary_measures(audits: Tables, seed: int) -> CanaryMeasures:
    def mean(column: str) -> Measured | None:
        return _mean([table[column] for table in audits], seed)

    return CanaryMeasures(
        extracted=mean("extracted"),
        extracted_shifted=mean("extracted_shifted"),
        edit_similarity=mean("edit_similarity"),
        substring_share=mean("substring_share"),
        exposure=mean("exposure"),
        exposure_fitted=mean("exposure_fitted"),
        discoverable=_curve([t["secret_nll"] for t in audits], seed),
        discoverable_shifted=_curve([t["secret_nll_shifted"] for t in audits], seed),
    )


def _level(audits: Tables, family: str, num_repeats: int, seed: int) -> CanaryLevel:
    tables = [table.filter(family=family, num_repeats=num_repeats) for table in audits]
    return CanaryLevel(
        family=family,
        num_repeats=num_repeats,
        num_canaries=tables[0].height,
        extracted=_mean([table["extracted"] for table in tables], seed),
        exposure=_mean([table["exposure"] for table in tables], seed),
        exposure_fitted=_mean([table["exposure_fitted"] for table in tables], seed),
    )


def _suffixes(memberships: Tables, seed: int) -> SuffixLeakage:
    long = [t.filter(pl.col("num_suffix_tokens") >= MIN_SUFFIX_TOKENS) for t in memberships]
    return SuffixLeakage(
        extracted=_mean([table["suffix_extracted"] for table in long], seed),
        discoverable=_curve([table["suffix_nll"] for table in long], seed),
        memorized=_mean([is_memorized(table) for table in long], seed)
        if all(ELSEWHERE in table.columns for table in long)
        else None,
    )


def _group(tables: Tables, is_group: pl.Expr, attack: Attack, seed: int) -> GroupLeakage:
    members = [table.filter("is_member", is_group) for table in tables]
    num_members = members[0].height
    if not num_members:
        return GroupLeakage(0, None, None)
    heldout = [table.filter(~pl.col("is_member")) for table in tables]
    pairs = [pl.concat(pair) for pair in zip(members, heldout, strict=True)]
    groups = scores_of(pairs, attack)
    return GroupLeakage(
        num_members,
        auc=two_sample_interval([ranked(*pair).auroc for pair in groups], _sizes(groups), seed),
        extracted=_suffixes(members, seed).extracted,
    )


def _mean(columns: Sequence[pl.Series], seed: int) -> Measured | None:
    known = [column.drop_nulls() for column in columns]
    if not all(len(column) for column in known):
        return None
    if known[0].dtype == pl.Boolean:
        return share_interval([column.to_numpy() for column in known], seed=seed)
    return mean_interval([column.to_numpy() for column in known], seed=seed)


def _curve(nll: Sequence[pl.Series], seed: int) -> Curve:
    log_p = [np.minimum(-column.drop_nulls().to_numpy(), 0.0) for column in nll]
    return {
        str(n): _mean([pl.Series(is_discoverable(values, n, CHANCE)) for values in log_p], seed)
        for n in NUM_SAMPLES
    }


def _tail_rate(groups: Groups) -> Statistic:
    # The scores of the loss attack are minus the losses.
    members, heldout = (-scores for scores in groups)

    def rate(member_counts: Counts, heldout_counts: Counts) -> float:
        drawn = np.repeat(members, member_counts), np.repeat(heldout, heldout_counts)
        return tail_rate(*drawn, TAIL_QUANTILES[0])

    return rate


def _auc_difference(ours: Groups, theirs: Groups) -> Statistic:
    mine, other = ranked(*ours), ranked(*theirs)

    def difference(members: Counts, heldout: Counts) -> float:
        return mine.auroc(members, heldout) - other.auroc(members, heldout)

    return difference


def _sizes(groups: Sequence[Groups]) -> tuple[int, int]:
    members, heldout = groups[0]
    return len(members), len(heldout)
