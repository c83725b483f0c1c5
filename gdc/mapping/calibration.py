"""Scores and labelled canaries -> a card for each score.

A score is asked to tell the memorized canaries of a family from those that are not and from its
twins, where it is known for them, and from ordinary training text where a family has neither. Its
card says what it was asked, and how it does against each. A score that puts canaries which a model
says verbatim below ordinary text is never an axis, whatever else it tells; nor is one that orders
ordinary text against what half-models measure on it, where there are some to ask.

A planted canary counts as memorized when the tracked models find its secret likelier, per token,
than those of all never-planted twins of its family, however often it was planted. Per token,
because secrets of a family differ in length and a short one is likely to any model. A canary that
no model knows is memorized by chance in one of (twins + 1) cases, and any score that reads the loss
then finds it: so a family judges scores only where more are memorized than chance gives. Label and
score are of the same runs, which favours scores that read the last loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from math import comb
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import AUTO, MIN_TWINS, PartitionConfig
from gdc.errors import DataError
from gdc.mapping.auto_axis import NO_AXIS, TAIL, TAIL_TESTED, choose_axis, require_some
from gdc.mapping.canary_families import Family, mean_auroc, spread_of
from gdc.mapping.quadrants import threshold_value
from gdc.mapping.score_cards import Calibration, CanaryCounts, Role, ScoreCard
from gdc.schema import CANARY_MEMORIZATION, SCORES, Verdict, require
from gdc.scores import cost_class
from gdc.statistics import ranks
from gdc.statistics.bootstrap import Estimate, share_interval
from gdc.statistics.exposure import sampled_exposure

# Ordinary texts that half-models know, below which they are not asked about scores.
MIN_MEASURED: Final = 100

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def label_canaries(
    canaries: pl.DataFrame,
    secret_losses: Sequence[Values],
    extracted: Sequence[Mask] | None = None,
) -> pl.DataFrame:
    """Which planted canaries the tracked models know.

    Args:
        canaries: ``CANARIES`` table.
        secret_losses: For each tracked model the nats per token of every secret, in the order of
            ``canaries``; their mean decides.
        extracted: Likewise, whether greedy decoding gives the secret; one model suffices. None:
            not known.

    Returns:
        ``CANARY_MEMORIZATION`` table, the planted canaries alone; without twins they have no label.

    Source:
        Exposure, here at its cap: Carlini et al. 2019, arXiv:1802.08232.
    """
    labelled = canaries.with_columns(
        loss=pl.Series(np.mean(secret_losses, axis=0), dtype=pl.Float64),
        is_extracted=pl.lit(None, pl.Boolean)
        if extracted is None
        else pl.Series(np.any(extracted, axis=0), dtype=pl.Boolean),
    )
    families = [
        _label_family(table) for table in labelled.partition_by("family", maintain_order=True)
    ]
    return pl.concat([pl.DataFrame(schema=CANARY_MEMORIZATION), *families])


def calibrate(  # noqa: PLR0913 - what is judged, and what it is compared with
    scores: pl.DataFrame,
    copies: pl.DataFrame,
    labelled: pl.DataFrame,
    config: PartitionConfig,
    *,
    seed: int,
    unseen: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
    fallback: str | None = None,
) -> Calibration:
    """Test how well every score tells memorized canaries from the others of the same family.

    Families that can judge take turns, by name: the first chooses, the second reports, and so on;
    a single one reports. The order in which ``auto`` tests scores rests on the first kind alone.

    Args:
        scores: ``SCORES`` table with its further columns, rows in any order; those that are not in
            ``copies`` are ordinary training text.
        copies: ``sample_id`` and ``canary_id`` of the planted rows; a canary has the mean of
            theirs.
        labelled: ``CANARY_MEMORIZATION`` table.
        config: The cut on the memorization axis. One by value is in the units of ``config.axis``
            and a conformal one needs its p-values, so they give precision and recall to it alone.
        seed: Of the resamples.
        unseen: ``UNSEEN_SCORES`` table with the ``family`` of each twin, null for held-out text;
            None: only planted canaries and training text are compared with.
        gaps: ``sample_id`` and ``gap``: the loss of a training sample under half-models that did
            not see it, minus that under those that did; None: there are none to ask.
        fallback: The axis that comes first where ``auto`` finds none validated.

    Raises:
        DataError: A canary has no scored row, or the axis is ``auto`` and every score is refused.
        SchemaError: A table has other columns.
    """
    require(scores, SCORES, name="scores")
    require(labelled, CANARY_MEMORIZATION, name="canary_memorization")
    names = [name for name, dtype in scores.schema.items() if dtype == pl.Float64]
    tables = {
        str(table["family"][0]): table
        for table in _with_scores(labelled, scores, copies, names).partition_by("family")
    }
    counts = _with_roles({name: _count(table) for name, table in sorted(tables.items())})
    text = scores.join(copies, on="sample_id", how="anti")
    families = [
        _family(tables[name], text.select(names), unseen, family.role, (seed, index))
        for index, (name, family) in enumerate(counts.items())
    ]
    measured = pl.DataFrame() if gaps is None else text.join(gaps.drop_nulls(), on="sample_id")
    of_canaries = [_card(scores[name], families, config) for name in names]
    of_extracted = [_not_below_text(card, families) for card in of_canaries]
    cards = [_of_text(card, measured, len(names)) for card in of_extracted]
    cards.sort(key=_best_first)
    auto = choose_axis(cards, counts, fallback)
    if config.axis == AUTO:
        require_some(auto)
    reporting = [family for family in counts.values() if family.role == "report"]
    return Calibration(
        families=counts,
        num_memorized=sum(family.num_memorized or 0 for family in reporting),
        num_unmemorized=sum(family.num_unmemorized or 0 for family in reporting),
        cards=cards,
        auto=auto,
    )


def _family(
    canaries: pl.DataFrame,
    text: pl.DataFrame,
    unseen: pl.DataFrame | None,
    role: Role | None,
    seed: tuple[int, int],
) -> Family:
    others = pl.DataFrame(schema={"family": pl.String}) if unseen is None else unseen
    return Family(
        canaries=canaries,
        twins=others.filter(pl.col("family") == canaries["family"][0]),
        training_text=text,
        heldout_text=others.filter(pl.col("family").is_null()),
        role=role,
        seed=seed,
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
    labelled: pl.DataFrame, scores: pl.DataFrame, copies: pl.DataFrame, names: Sequence[str]
) -> pl.DataFrame:
    """The canaries by id with the mean of every score over their copies; null: a copy has none."""
    values = pl.col(names).fill_nan(None)
    means = (
        copies.join(scores.select("sample_id", *names), on="sample_id")
        .sort("sample_id")
        .group_by("canary_id")
        .agg(pl.when(values.null_count() == 0).then(values.mean()))
    )
    missing = labelled.join(means, on="canary_id", how="anti")
    if missing.height:
        raise DataError(
            f"calibrate: expected a scored row of every planted canary, got {missing.height} "
            f"without, first {missing['canary_id'][0]}. Re-run: gdc run."
        )
    return labelled.join(means, on="canary_id").sort("canary_id")


def _count(canaries: pl.DataFrame) -> CanaryCounts:
    num_canaries, num_twins = canaries.height, canaries["num_twins"][0]
    num_memorized = int(canaries["is_memorized"].sum()) if num_twins else None
    why = None
    if num_memorized is None or num_twins < MIN_TWINS:
        why = f"expected at least {MIN_TWINS} twins (num_twins), got {num_twins}"
    elif not num_memorized:
        why = f"0 of {num_canaries} canaries are memorized"
    elif _chance_of(num_memorized, num_canaries, num_twins) > TAIL:
        why = "no more are likelier than all twins than chance gives"
    return CanaryCounts(
        num_memorized=num_memorized,
        num_unmemorized=None if num_memorized is None else num_canaries - num_memorized,
        num_twins=num_twins,
        why=why,
        role=None,
        num_extracted=int(canaries["is_extracted"].sum()),
    )


def _with_roles(counts: Mapping[str, CanaryCounts]) -> dict[str, CanaryCounts]:
    usable = [name for name, family in counts.items() if family.why is None]
    turns: tuple[Role, ...] = ("choose", "report") if len(usable) > 1 else ("report",)
    roles = dict(zip(usable, cycle(turns), strict=False))
    return {name: replace(family, role=roles.get(name)) for name, family in counts.items()}


def _chance_of(num_memorized: int, num_planted: int, num_twins: int) -> float:
    """The chance that as many or more are memorized where planted and twins are alike.

    That is, that the likeliest ``num_memorized`` of all secrets are planted ones. Exact, where a
    binomial would take labels that share their twins for independent, and find too much.
    """
    return comb(num_planted, num_memorized) / comb(num_planted + num_twins, num_memorized)


def _card(scores: pl.Series, families: Sequence[Family], config: PartitionConfig) -> ScoreCard:
    name, cost = scores.name, cost_class(scores.name)
    choosing, reporting = (
        [family for family in families if family.role == role] for role in ("choose", "report")
    )
    is_missing = scores.is_null() | scores.is_nan()
    card = ScoreCard(
        score=name,
        cost=cost,
        may_be_axis=cost != "no model" and name not in NO_AXIS and not is_missing.any(),
        auroc_choose=None,
        auroc_report=None,
        low_for_auto=None,
        precision=None,
        recall=None,
        verdict="not shown",
        why=None,
    )
    if not reporting:
        return replace(card, why="No family of canaries can judge.")
    judging = [*choosing, *reporting]
    if any(family.canaries[name].null_count() for family in judging):
        return replace(card, why=f"{name} has no value for some of the canaries.")
    if not all(family.asked(name) for family in judging):
        return replace(card, why="There is nothing to compare the memorized canaries with.")
    spread = spread_of([family.judged(name) for family in reporting])
    auroc = Estimate(spread.value, spread.low(TAIL), spread.high(TAIL))
    judged = replace(
        card,
        auroc_choose=mean_auroc([f.judged(name) for f in choosing]) if choosing else None,
        auroc_report=auroc,
        low_for_auto=spread.low(TAIL_TESTED),
        verdict=_verdict(auroc),
        asked={family.name: family.asked(name) for family in judging},
        against={family.name: family.against(name) for family in judging},
    )
    return _at_the_cut(judged, scores, reporting, config)


def _not_below_text(card: ScoreCard, families: Sequence[Family]) -> ScoreCard:
    """Refuse a score that puts what a model says verbatim below ordinary text."""
    aurocs = {family.name: family.extracted_against_text(card.score) for family in families}
    known = {name: auroc for name, auroc in aurocs.items() if auroc is not None}
    below = [f"{name} {auroc:.2f}" for name, auroc in known.items() if auroc < 0.5]
    card = replace(card, extracted_against_text=known)
    if not below:
        return card
    return replace(
        card,
        may_be_axis=False,
        verdict="does not",
        why="Extracted canaries lie below ordinary training text, AUROC "
        f"{', '.join(below)}: such a score is no axis.",
    )


def _of_text(card: ScoreCard, measured: pl.DataFrame, num_scores: int) -> ScoreCard:
    """Add what half-models say of a score on ordinary text; refuse one that is upside down there.

    A score that reads reference models shares their error, so it is not asked. To be refused takes
    an interval at the level of one of ``num_scores`` that are asked.
    """
    if measured.is_empty() or card.cost == "reference models":
        return card
    known = measured.select(card.score, "gap").fill_nan(None).drop_nulls()
    if known.height < MIN_MEASURED:
        return card
    pair = known[card.score].to_numpy(), known["gap"].to_numpy()
    agreement = ranks.spearman_interval(*pair, tail=TAIL)
    strict = ranks.spearman_interval(*pair, tail=TAIL / num_scores)
    if agreement is None or strict is None:
        return card
    asked = replace(card, ordinary_text=agreement)
    if strict.high >= 0:
        return asked
    return replace(
        asked,
        may_be_axis=False,
        why="On ordinary text it falls where what half-models measure rises, rank correlation "
        f"{agreement.value:.2f} [{agreement.low:.2f}, {agreement.high:.2f}]: such a score is no "
        "axis.",
    )


def _best_first(card: ScoreCard) -> tuple[float, str]:
    return -(card.auroc_choose or 0.0), card.score


def _verdict(auroc: Estimate) -> Verdict:
    if auroc.low > 0.5:
        return "predicts memorization here"
    # No width: the score is one number for all of them.
    is_constant = auroc.low == auroc.high
    return "does not" if auroc.high < 0.5 or is_constant else "not shown"


def _at_the_cut(
    card: ScoreCard, scores: pl.Series, families: Sequence[Family], config: PartitionConfig
) -> ScoreCard:
    """Add precision and recall of a high score, over the canaries of all ``families``."""
    rule = config.memorization
    if rule.kind != "quantile" and card.score != config.axis:
        return replace(card, why=f"The cut, {rule.kind}, is for {config.axis} alone.")
    cut = threshold_value(scores.fill_nan(None).drop_nulls().to_frame(), rule)
    is_high = np.concatenate([family.canaries[card.score].to_numpy() for family in families]) > cut
    is_memorized = np.concatenate([family.is_memorized for family in families])
    seed = families[0].seed[0]
    with_recall = replace(card, recall=_share(is_high[is_memorized], seed))
    if not is_high.any():
        return replace(with_recall, why="No canary is above the cut.")
    return replace(with_recall, precision=_share(is_memorized[is_high], seed))


def _share(values: Mask, seed: int) -> Estimate:
    share = share_interval([values], seed=seed)
    return Estimate(share.value, share.low, share.high)
