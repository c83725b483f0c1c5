"""Cards of scores -> the axis that ``auto`` stands for, never one that its card refuses."""

from collections.abc import Mapping, Sequence
from typing import Final

from gdc.errors import DataError
from gdc.mapping.score_cards import AutoAxis, CanaryCounts, ScoreCard
from gdc.statistics.bootstrap import LEVEL

# The score of the paper.
FALLBACK: Final = "memorization"
# Few canaries do not resolve a smaller difference of AUROCs. Among scores that differ by less,
# those that lead on ordinary text in leaderboards, and need no other models, come first.
TOLERANCE: Final = 0.1
PREFERRED: Final = (
    "influence_contrast",
    "unseen_loss_contrast",
    "online_late_contrast",
    "synthetic_control_gap",
    "std",
    "total_drop",
    "iqr",
)
# The other axis of the map, and one of which a high value is no sign of memorization.
NO_AXIS: Final = ("difficulty", "first_learned")
# Scores that auto tests at most, and the chance that one which knows nothing passes: Bonferroni.
NUM_TESTED: Final = 3
TAIL: Final = (1 - LEVEL) / 2
TAIL_TESTED: Final = TAIL / NUM_TESTED


def choose_axis(
    cards: Sequence[ScoreCard],
    families: Mapping[str, CanaryCounts],
    fallback: str | None = None,
) -> AutoAxis:
    """The best score in the choosing families that predicts memorization in the reporting ones.

    Only scores that need a model are eligible, and only those above chance in the choosing
    families. The best ``NUM_TESTED`` are tested, each at ``TAIL_TESTED``. Where none is validated
    it is the first of these that may be an axis: ``fallback``, the preferred scores, those that are
    measured in the choosing families, in falling order, ``FALLBACK`` and the others.

    Args:
        cards: In falling order of ``auroc_choose``.
        families: Why each cannot judge, or None.
        fallback: A score, or None.
    """
    above = [card for card in cards if card.may_be_axis and (card.auroc_choose or 0.0) > 0.5]
    tested = _preferred_first(above)[:NUM_TESTED]
    for number, card in enumerate(tested, start=1):
        if card.low_for_auto is not None and card.low_for_auto > 0.5:
            reason = (
                f"{card.score} is the first of the best in the choosing families that predicts "
                f"memorization in the reporting ones: {_in_words(card)}, number {number} by "
                f"choice. {number} tested, of at most {NUM_TESTED}, each at {TAIL_TESTED:.2%} "
                "one-sided."
            )
            return AutoAxis(card.score, is_validated=True, reason=reason)
    unproven = _unproven(cards, fallback)
    why = _why_refused(cards) if unproven is None else _why_none(tested, families, unproven)
    return AutoAxis(unproven, is_validated=False, reason=why)


def require_some(auto: AutoAxis) -> None:
    """Refuse to go on without an axis.

    Raises:
        DataError: Every score is refused.
    """
    if auto.axis is None:
        raise DataError(
            f"axis auto: {auto.reason} Name an axis (partition.axis or --axis), enable other "
            "scores (score.enabled or --score) or plant other canaries."
        )


def _preferred_first(cards: Sequence[ScoreCard]) -> list[ScoreCard]:
    """The cards in falling order, those as good as the best by what is preferred."""
    best = max((card.auroc_choose or 0.0 for card in cards), default=0.0)
    as_good = [card for card in cards if (card.auroc_choose or 0.0) > best - TOLERANCE]
    preference = {name: place for place, name in enumerate(PREFERRED)}
    ordered = sorted(as_good, key=lambda card: preference.get(card.score, len(preference)))
    return [*ordered, *(card for card in cards if card not in as_good)]


def _unproven(cards: Sequence[ScoreCard], fallback: str | None) -> str | None:
    """The score that is taken without proof, see ``choose_axis``; None: every one is refused."""
    possible = [card for card in cards if card.may_be_axis]
    measured = [card.score for card in possible if card.auroc_choose is not None]
    named = [FALLBACK] if fallback is None else [fallback, FALLBACK]
    # Nothing speaks against a named score that has no card.
    refused = {card.score for card in cards if not card.may_be_axis}
    allowed = {card.score for card in possible} | set(named) - refused
    in_order = (*named[:-1], *PREFERRED, *measured, FALLBACK, *(card.score for card in possible))
    return next((name for name in in_order if name in allowed), None)


def _why_none(
    tested: Sequence[ScoreCard], families: Mapping[str, CanaryCounts], fallback: str
) -> str:
    best = "; ".join(f"{card.score} {_in_words(card)}" for card in tested)
    why = [f"{name}: {f.why}" for name, f in families.items() if f.why is not None]
    num_usable = len(families) - len(why)
    none = (
        "No score that may be an axis and is above chance in the choosing families is validated "
        f"in the reporting ones: {len(tested)} tested, of at most {NUM_TESTED}, each at "
        f"{TAIL_TESTED:.2%} one-sided"
        if num_usable > 1
        else "auto cannot choose: one family of canaries has to choose and another one to report, "
        f"and {num_usable} can judge"
    )
    whose = ", the paper's" if fallback == FALLBACK else ", unproven"
    return (
        f"{none}. So auto takes {fallback}{whose}. "
        + (f"Best by choice: {best}. " if best else "")
        + (f"Families that cannot judge: {'; '.join(why)}. " if why else "")
        + "Plant canaries of two families, more of each (per_level), with more twins (num_twins) "
        "and at repeats that some but not all are memorized at, or name an axis."
    )


def _why_refused(cards: Sequence[ScoreCard]) -> str:
    by_reason: dict[str, list[str]] = {}
    for card in cards:
        by_reason.setdefault(_refusal(card), []).append(card.score)
    refused = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items())
    return f"expected a score that may be an axis, got none: {refused}."


def _refusal(card: ScoreCard) -> str:
    if any(auroc < 0.5 for auroc in card.extracted_against_text.values()):
        return "extracted canaries below ordinary text"
    if card.ordinary_text is not None and card.ordinary_text.high < 0:
        return "ordinary text against what half-models measure"
    if card.cost == "no model":
        return "no model is asked"
    return "no sign of memorization" if card.score in NO_AXIS else "some samples have none"


def _in_words(card: ScoreCard) -> str:
    chosen, auroc = card.auroc_choose, card.auroc_report
    if chosen is None or auroc is None:
        return "not measured"
    return (
        f"AUROC {chosen:.2f} there, {auroc.value:.2f} "
        f"[{auroc.low:.2f}, {auroc.high:.2f}] in the reporting ones"
    )
