"""Measured arms -> the one whose plan makes the curated data, and whether its effect is shown."""

from collections.abc import Mapping, Sequence

from gdc.comparison.recommendation import NEVER
from gdc.comparison.results import ArmAudits, ArmResult, CuratedChoice
from gdc.config import (
    AUTO,
    AXIS,
    Arm,
    InterveneConfig,
    MaskSpansArm,
    QuadrantsArm,
    TopFractionArm,
    WeightByScoreArm,
)
from gdc.statistics.bootstrap import ENOUGH_SEEDS, Measured
from gdc.statistics.wording import counted, decimals, ends, percent, points


def choose_curated(
    arms: Sequence[ArmResult],
    arm_audits: Mapping[str, ArmAudits],
    config: InterveneConfig,
    validated: Mapping[str, int],
    axis: str,
) -> CuratedChoice:
    """Name the arm that makes the curated data, by evidence where ``curated_arm`` is auto.

    Of the plans that are shown to work, the one with the least extraction is taken, of equals the
    one with the fewest samples changed. With none, the safest: of the plans that read no score or
    one that is validated here, that do not raise extraction and are not shown to cost
    perplexity, the one with the least extraction; without any, the arm that keeps everything.

    Args:
        arms: What each retrained arm's plan changes.
        arm_audits: What is measured of each, by name; an arm without audits is not shown.
        config: The rules of the arms, and ``curated_arm``.
        validated: Scores that are shown to predict memorization here, by how many secrets.
        axis: The score that is the memorization axis.
    """
    if config.curated_arm != AUTO:
        return _named(config.curated_arm, arm_audits)
    changed = {arm.arm: arm.num_changed for arm in arms}
    of_data = [arm for arm in changed if config.makes_data(arm)]
    plans = [arm for arm in of_data if config.arms[arm].rule not in (*NEVER, "none")]

    def order(arm: str) -> tuple[float, int, str]:
        extracted = _extraction(arm_audits[arm])
        return (1.0 if extracted is None else extracted.value), changed[arm], arm

    shown = [arm for arm in plans if arm in arm_audits and is_shown(arm_audits[arm])]
    if shown:
        best = min(shown, key=order)
        return CuratedChoice(best, "evidence", True, _shown_sentence(best, arm_audits), ())
    safe = [
        arm
        for arm in plans
        if arm in arm_audits
        and _is_safe(arm_audits[arm])
        and _score_of(config.arms[arm], axis) in {None, *validated}
    ]
    if safe:
        arm = min(safe, key=order)
        trust = _trust(_score_of(config.arms[arm], axis), validated)
    else:
        keeping = [name for name in of_data if config.arms[name].rule == "none"]
        arm = (keeping or of_data)[0]
        trust = "there is: others cost, leak more or rest on an unproven score"
    return CuratedChoice(
        arm=arm,
        basis="evidence",
        is_shown=False,
        sentence=(
            "No plan is shown to lower extraction against as many random samples without a cost in "
            f"perplexity, so data/curated is unproven: made by arm {arm}, the safest plan {trust}."
        ),
        remedies=remedies(plans, arm_audits),
    )


def is_shown(audits: ArmAudits) -> bool:
    """Whether the ends of the intervals against equal-size random show an effect without a cost."""
    extraction, perplexity = audits.extraction_against_random, audits.perplexity_against_random
    change = audits.extraction_change
    return (
        extraction is not None
        and change is not None
        and perplexity is not None
        and extraction.num_seeds >= ENOUGH_SEEDS
        and extraction.high < 0
        and change.high < 0
        and perplexity.low <= 1
    )


def remedies(plans: Sequence[str], arm_audits: Mapping[str, ArmAudits]) -> tuple[str, ...]:
    """What would decide whether a plan works, the cheapest first."""
    judged = [arm_audits[arm] for arm in plans if arm in arm_audits]
    against = [audits.extraction_against_random for audits in judged]
    measured = [one for one in against if one is not None]
    found = []
    if not plans:
        found.append("retrain an arm that acts on samples (retrain.arms)")
    lacks_canaries = any(_extraction(audits) is None for audits in judged)
    costs = [audits.perplexity_against_random for audits in judged]
    if lacks_canaries:
        found.append("plant canaries (ingest.canaries)")
    # Without canaries a random arm is compared by perplexity alone.
    if plans and not measured and not (lacks_canaries and any(costs)):
        found.append("retrain an arm that acts at random on as many samples (random or shuffled)")
    if any(one.num_seeds < ENOUGH_SEEDS for one in measured):
        found.append(f"raise retrain.seeds to at least {ENOUGH_SEEDS}")
    if measured and not any(one.high < 0 for one in measured):
        seeds = min(one.num_seeds for one in measured)
        found.append(
            f"use more seeds (now {seeds}) or more canaries (per_level), planted often enough to "
            "be extracted"
        )
    if any(one is not None and one.low > 1 for one in costs):
        found.append("try a smaller budget (fraction) or weights instead of dropping")
    elif measured and not any(one.high < 0 for one in measured):
        found.append("try a larger budget (fraction)")
    return tuple(found)


def _named(arm: str, arm_audits: Mapping[str, ArmAudits]) -> CuratedChoice:
    audits = arm_audits.get(arm)
    if audits is not None and is_shown(audits):
        return CuratedChoice(arm, "params", True, _shown_sentence(arm, arm_audits), ())
    why = "was not evaluated" if audits is None else "is not shown to lower extraction at no cost"
    return CuratedChoice(
        arm=arm,
        basis="params",
        is_shown=False,
        sentence=f"Unproven: data/curated is by arm {arm} (intervene.curated_arm), which {why}.",
        remedies=remedies([arm], arm_audits),
    )


def _score_of(rule: Arm, axis: str) -> str | None:
    """The score that a rule reads; None: it reads none."""
    if isinstance(rule, TopFractionArm | WeightByScoreArm):
        return axis if rule.score == AXIS else rule.score
    return axis if isinstance(rule, QuadrantsArm | MaskSpansArm) else None


def _trust(score: str | None, validated: Mapping[str, int]) -> str:
    if score is None:
        return "that reads no score"
    secrets = counted(validated[score], "memorized secret")
    return f"whose score is validated ({score}, by {secrets} planted here)"


def _is_safe(audits: ArmAudits) -> bool:
    """Whether it does not raise extraction, not even on average, at no cost that is shown."""
    change = audits.extraction_change
    cost = audits.perplexity_against_random or audits.perplexity_ratio
    return (change is None or change.value <= 0) and (cost is None or cost.low <= 1)


def _extraction(audits: ArmAudits) -> Measured | None:
    return audits.canaries.planted.extracted


def _shown_sentence(arm: str, arm_audits: Mapping[str, ArmAudits]) -> str:
    audits = arm_audits[arm]
    against, extracted = audits.extraction_against_random, _extraction(audits)
    assert against is not None  # noqa: S101 - of an arm that is shown
    assert extracted is not None  # noqa: S101 - likewise
    return (
        f"Yes, on planted secrets: models trained on data/curated (the plan of arm {arm}) give "
        f"away {percent(extracted.value)} {ends(extracted, percent)} of them, those of arm "
        f"{audits.random}, which does the same to as many random samples,"
        f"{_extracted_by(audits.random, arm_audits)}: {points(against.value)} points "
        f"{ends(against, points)}. {_costs_sentence(audits)} "
        f"({counted(against.num_seeds, 'seed')})."
    )


def _extracted_by(arm: str | None, arm_audits: Mapping[str, ArmAudits]) -> str:
    audits = arm_audits.get(arm) if arm else None
    extracted = _extraction(audits) if audits else None
    return f" {percent(extracted.value)}" if extracted else ""


def _costs_sentence(audits: ArmAudits) -> str:
    ratios = {
        "keeping all": audits.perplexity_ratio,
        "keeping all on rare text": audits.rare_perplexity_ratio,
        f"arm {audits.random}": audits.perplexity_against_random,
    }
    told = (
        f"x{decimals(ratio.value)} {ends(ratio, decimals)} that of {name}"
        for name, ratio in ratios.items()
        if ratio is not None
    )
    return f"Perplexity (lower is better) is {', '.join(told)}"
