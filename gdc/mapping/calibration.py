"""Scores and probes -> a calibration card for each score, and the axis that ``auto`` stands for.

A probe is a planted canary. It counts as memorized when the tracked models find its secret
likelier, per token, than those of all never-planted twins of its family, however often it was
planted. Per token, because secrets of a family differ in length and a short one is likely to any
model. A canary that no model knows is memorized by chance in one of (twins + 1) cases, and any
score that reads the loss then finds it: so a family answers only where more are memorized than
chance gives. Label and score are of the same runs, which favours scores that read the last loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from math import comb
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import MIN_TWINS, PartitionConfig
from gdc.errors import DataError
from gdc.mapping.quadrants import threshold_value
from gdc.schema import CANARY_MEMORIZATION, SCORES, Verdict, require
from gdc.scores import cost_class
from gdc.statistics import ranks
from gdc.statistics.bootstrap import LEVEL, Measured, share_interval, stratified_weights
from gdc.statistics.exposure import sampled_exposure

NUM_RESAMPLES: Final = 1000
# The score of the paper, taken where no other is shown to be right.
FALLBACK: Final = "memorization"
# The other axis of the map, and one of which a high value is no sign of memorization.
NO_AXIS: Final = ("difficulty", "first_learned")
# Scores that auto asks at most, and the chance that one which knows nothing passes: Bonferroni.
NUM_ASKED: Final = 3
TAIL: Final = (1 - LEVEL) / 2
TAIL_ASKED: Final = TAIL / NUM_ASKED

Role = Literal["choose", "report"]
Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Family:
    """Probes of one family, of which some are memorized and some are not."""

    probes: pl.DataFrame  # sorted by canary_id; a column for every score
    role: Role
    seed: tuple[int, int]  # of the resamples, another for every family

    @cached_property
    def is_memorized(self) -> Mask:
        """The label of each probe."""
        return self.probes["is_memorized"].to_numpy()

    @cached_property
    def weights(self) -> NDArray[np.int64]:
        """Resamples x probes: how often each is drawn; both kinds keep their number."""
        return stratified_weights(self.is_memorized, num_resamples=NUM_RESAMPLES, seed=self.seed)

    @cached_property
    def shuffled(self) -> Mask:
        """Resamples x probes: the labels dealt out by chance."""
        rng = np.random.default_rng(self.seed)
        return rng.permuted(np.tile(self.is_memorized, (NUM_RESAMPLES, 1)), axis=1)

    def codes(self, score: str) -> ranks.Codes:
        """The ordinal of each probe's score."""
        return ranks.codes(self.probes[score].to_numpy())

    def auroc(self, score: str) -> float:
        """Of memorized against unmemorized probes."""
        weights = np.ones(len(self.is_memorized))
        return ranks.auroc(self.codes(score), self.is_memorized, weights)


def label_probes(canaries: pl.DataFrame, secret_losses: Sequence[Values]) -> pl.DataFrame:
    """Which planted canaries the tracked models know.

    Args:
        canaries: ``CANARIES`` table.
        secret_losses: For each tracked model the nats per token of every secret, in the order of
            ``canaries``; their mean decides.

    Returns:
        ``CANARY_MEMORIZATION`` table, the planted canaries alone; without twins they have no label.

    Source:
        Exposure, here at its cap: Carlini et al. 2019, arXiv:1802.08232.
    """
    asked = canaries.with_columns(loss=pl.Series(np.mean(secret_losses, axis=0), dtype=pl.Float64))
    families = [_label_family(table) for table in asked.partition_by("family", maintain_order=True)]
    return pl.concat([pl.DataFrame(schema=CANARY_MEMORIZATION), *families])


def calibrate(
    scores: pl.DataFrame,
    copies: pl.DataFrame,
    probes: pl.DataFrame,
    config: PartitionConfig,
    *,
    seed: int,
) -> dict[str, Any]:
    """Ask of every score whether it tells memorized from unmemorized probes of the same family.

    Families that can answer take turns, by name: the first chooses, the second reports, and so on;
    a single one reports. The order in which ``auto`` asks scores rests on the first kind alone.

    Args:
        scores: ``SCORES`` table with its further columns, rows in any order.
        copies: ``sample_id`` and ``canary_id`` of the planted rows; a probe has the mean of theirs.
        probes: ``CANARY_MEMORIZATION`` table.
        config: The cut on the memorization axis. One by value is in the units of ``config.axis``
            and a conformal one needs its p-values, so they give precision and recall to it alone.
        seed: Of the resamples.

    Returns:
        The content of ``calibration.json``: ``families`` by name (role, counts, and why one cannot
        answer), both counts over the reporting ones, ``cards`` in falling order of
        ``auroc_choose``, and ``auto``. A card has ``score``, ``cost``, ``may_be_axis``; the mean
        AUROC over choosing families (``auroc_choose``) and over reporting ones (``auroc_report``),
        with the low end that ``auto`` asks for (``low_for_auto``); in the reporting ones
        ``precision`` (memorized among those above the cut), ``recall`` and ``verdict``; and ``why``
        something is None. An interval is ``value``, ``low``, ``high``.

    Raises:
        DataError: A probe has no scored row.
        SchemaError: A table has other columns.
    """
    require(scores, SCORES, name="scores")
    require(probes, CANARY_MEMORIZATION, name="canary_memorization")
    names = [name for name, dtype in scores.schema.items() if dtype == pl.Float64]
    tables = {
        str(table["family"][0]): table
        for table in _with_scores(probes, scores, copies, names).partition_by("family")
    }
    described = {name: _describe(table) for name, table in sorted(tables.items())}
    usable = [name for name, family in described.items() if family["why"] is None]
    roles: dict[str, Role] = (
        dict(zip(usable, cycle(("choose", "report")), strict=False))
        if len(usable) > 1
        else dict.fromkeys(usable, "report")
    )
    families = [
        Family(tables[name], role, (seed, place))
        for place, (name, role) in enumerate(roles.items())
    ]
    cards = sorted((_card(scores[name], families, config) for name in names), key=_best_first)
    described = {name: family | {"role": roles.get(name)} for name, family in described.items()}
    reporting = [family for family in described.values() if family["role"] == "report"]
    return {
        "families": described,
        "num_memorized": sum(family["num_memorized"] for family in reporting),
        "num_unmemorized": sum(family["num_unmemorized"] for family in reporting),
        "cards": cards,
        "auto": choose_axis(cards, described),
    }


def choose_axis(cards: Sequence[Mapping[str, Any]], families: Mapping[str, Any]) -> dict[str, Any]:
    """The best score in the choosing families that predicts memorization in the reporting ones.

    Only scores that ask a model are eligible, and only those above chance in the choosing families.
    The best ``NUM_ASKED`` are asked, each at ``TAIL_ASKED``.

    Args:
        cards: In falling order of ``auroc_choose``.
        families: Why each cannot answer, or None.

    Returns:
        ``axis``, ``is_validated`` and ``reason``, a sentence; with none validated ``FALLBACK``.
    """
    above = [c for c in cards if c["may_be_axis"] and (c["auroc_choose"] or 0.0) > 0.5]
    asked = above[:NUM_ASKED]
    for place, card in enumerate(asked, start=1):
        if card["low_for_auto"] > 0.5:
            reason = (
                f"{card['score']} is the best in the choosing families that predicts memorization "
                f"in the reporting ones: {_in_words(card)}, number {place} by choice. {place} "
                f"asked, of at most {NUM_ASKED}, each at {TAIL_ASKED:.2%} one-sided."
            )
            return {"axis": card["score"], "is_validated": True, "reason": reason}
    return {"axis": FALLBACK, "is_validated": False, "reason": _why_none(asked, families)}


def _why_none(asked: Sequence[Mapping[str, Any]], families: Mapping[str, Any]) -> str:
    best = "; ".join(f"{c['score']} {_in_words(c)}" for c in asked)
    why = [f"{name}: {f['why']}" for name, f in families.items() if f["why"] is not None]
    num_usable = len(families) - len(why)
    none = (
        "No score that may be an axis and is above chance in the choosing families is validated "
        f"in the reporting ones: {len(asked)} asked, of at most {NUM_ASKED}, each at "
        f"{TAIL_ASKED:.2%} one-sided"
        if num_usable > 1
        else "auto cannot choose: one family of canaries has to choose and another one to report, "
        f"and {num_usable} can answer"
    )
    return (
        f"{none}. So auto takes {FALLBACK}, the paper's. "
        + (f"Best by choice: {best}. " if best else "")
        + (f"Families that cannot answer: {'; '.join(why)}. " if why else "")
        + "Plant canaries of two families, more of each (per_level), with more twins (num_twins) "
        "and at repeats that some but not all are memorized at, or name an axis."
    )


def _label_family(family: pl.DataFrame) -> pl.DataFrame:
    is_twin = pl.col("num_repeats") == 0
    planted, twins = family.filter(~is_twin), family.filter(is_twin)["loss"].to_numpy()
    loss = planted["loss"].to_numpy()
    labels: dict[str, pl.Series | None] = {"exposure": None, "is_memorized": None}
    if len(twins):
        labels["exposure"] = pl.Series(sampled_exposure(loss, twins))
        labels["is_memorized"] = pl.Series(loss < twins.min())
    return planted.with_columns(num_twins=pl.lit(len(twins)), **labels).select(
        pl.col(name).cast(dtype) for name, dtype in CANARY_MEMORIZATION.items()
    )


def _with_scores(
    probes: pl.DataFrame, scores: pl.DataFrame, copies: pl.DataFrame, names: Sequence[str]
) -> pl.DataFrame:
    """The probes by id with the mean of every score over their copies; null: a copy has none."""
    values = pl.col(names).fill_nan(None)
    means = (
        copies.join(scores.select("sample_id", *names), on="sample_id")
        .sort("sample_id")
        .group_by("canary_id")
        .agg(pl.when(values.null_count() == 0).then(values.mean()))
    )
    missing = probes.join(means, on="canary_id", how="anti")
    if missing.height:
        raise DataError(
            f"calibrate: expected a scored row of every planted canary, got {missing.height} "
            f"without, first {missing['canary_id'][0]}. Re-run: gdc run."
        )
    return probes.join(means, on="canary_id").sort("canary_id")


def _describe(probes: pl.DataFrame) -> dict[str, Any]:
    num_probes, num_twins = probes.height, probes["num_twins"][0]
    num_memorized = int(probes["is_memorized"].sum()) if num_twins else None
    why = None
    if num_memorized is None or num_twins < MIN_TWINS:
        why = f"expected at least {MIN_TWINS} twins (num_twins), got {num_twins}"
    elif num_memorized in {0, num_probes}:
        why = f"{num_memorized} of {num_probes} canaries are memorized"
    elif _chance_of(num_memorized, num_probes, num_twins) > TAIL:
        why = "no more are likelier than all twins than chance gives"
    return {
        "num_memorized": num_memorized,
        "num_unmemorized": None if num_memorized is None else num_probes - num_memorized,
        "num_twins": num_twins,
        "why": why,
    }


def _chance_of(num_memorized: int, num_probes: int, num_twins: int) -> float:
    """That as many or more are memorized where planted and twins are alike.

    That is, that the likeliest ``num_memorized`` of all secrets are planted ones. Exact, where a
    binomial would take labels that share their twins for independent, and find too much.
    """
    return comb(num_probes, num_memorized) / comb(num_probes + num_twins, num_memorized)


def _card(scores: pl.Series, families: Sequence[Family], config: PartitionConfig) -> dict[str, Any]:
    name, cost = scores.name, cost_class(scores.name)
    choosing, reporting = (
        [family for family in families if family.role == role] for role in ("choose", "report")
    )
    is_missing = scores.is_null() | scores.is_nan()
    card: dict[str, Any] = {
        "score": name,
        "cost": cost,
        "may_be_axis": cost != "no model" and name not in NO_AXIS and not is_missing.any(),
        "auroc_choose": None,
        "auroc_report": None,
        "low_for_auto": None,
        "precision": None,
        "recall": None,
        "verdict": "not shown",
        "why": None,
    }
    if not reporting:
        return card | {"why": "No family of canaries can answer."}
    if any(family.probes[name].null_count() for family in families):
        return card | {"why": f"{name} has no value for some of the canaries."}
    spread = _spread(name, reporting)
    interval = {"value": spread.value, "low": spread.low(TAIL), "high": spread.high(TAIL)}
    return card | {
        "auroc_choose": _mean_auroc(name, choosing) if choosing else None,
        "auroc_report": interval,
        "low_for_auto": spread.low(TAIL_ASKED),
        "verdict": _verdict(interval),
        **_at_the_cut(scores, reporting, config),
    }


def _best_first(card: Mapping[str, Any]) -> tuple[float, str]:
    return -(card["auroc_choose"] or 0.0), card["score"]


def _mean_auroc(score: str, families: Sequence[Family]) -> float:
    return float(np.mean([family.auroc(score) for family in families]))


class Spread(NamedTuple):
    """A mean AUROC over families, and what it is under two kinds of resamples.

    An end of its interval is the wider one of two. One is a bootstrap over probes, both kinds
    apart. It has no width where a few probes happen to be in order, so the other is as wide as
    labels dealt out by chance spread about one half.
    """

    value: float
    resampled: Values
    by_chance: Values

    def low(self, tail: float) -> float:
        """The low end, with ``tail`` below it."""
        chance = np.quantile(self.by_chance, 1 - tail, method="higher")
        return max(0.0, min(np.quantile(self.resampled, tail), self.value - (chance - 0.5)))

    def high(self, tail: float) -> float:
        """The high end, with ``tail`` above it."""
        chance = np.quantile(self.by_chance, tail, method="lower")
        return min(1.0, max(np.quantile(self.resampled, 1 - tail), self.value + (0.5 - chance)))


def _spread(score: str, families: Sequence[Family]) -> Spread:
    resampled, by_chance = [], []
    for family in families:
        codes, labels = family.codes(score), family.is_memorized
        even = np.ones(len(labels))
        resampled.append([ranks.auroc(codes, labels, weights) for weights in family.weights])
        by_chance.append([ranks.auroc(codes, dealt, even) for dealt in family.shuffled])
    return Spread(
        _mean_auroc(score, families), np.mean(resampled, axis=0), np.mean(by_chance, axis=0)
    )


def _verdict(auroc: Mapping[str, float]) -> Verdict:
    if auroc["low"] > 0.5:
        return "predicts memorization here"
    # No width: the score is one number for all of them.
    is_constant = auroc["low"] == auroc["high"]
    return "does not" if auroc["high"] < 0.5 or is_constant else "not shown"


def _at_the_cut(
    scores: pl.Series, families: Sequence[Family], config: PartitionConfig
) -> dict[str, Any]:
    """Precision and recall of a high score, over the probes of all ``families``."""
    rule = config.memorization
    if rule.kind != "quantile" and scores.name != config.axis:
        return {"why": f"The cut, {rule.kind}, is for {config.axis} alone."}
    cut = threshold_value(scores.fill_nan(None).drop_nulls().to_frame().lazy(), rule)
    is_high = np.concatenate([family.probes[scores.name].to_numpy() for family in families]) > cut
    is_memorized = np.concatenate([family.is_memorized for family in families])
    seed = families[0].seed[0]
    recall = _plain(share_interval([is_high[is_memorized]], seed=seed))
    if not is_high.any():
        return {"recall": recall, "why": "No canary is above the cut."}
    return {
        "recall": recall,
        "precision": _plain(share_interval([is_memorized[is_high]], seed=seed)),
    }


def _plain(interval: Measured) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _in_words(card: Mapping[str, Any]) -> str:
    auroc = card["auroc_report"]
    return (
        f"AUROC {card['auroc_choose']:.2f} there, {auroc['value']:.2f} "
        f"[{auroc['low']:.2f}, {auroc['high']:.2f}] in the reporting ones"
    )
