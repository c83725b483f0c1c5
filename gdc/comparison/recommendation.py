"""Measured arms and a target -> the plan that reaches it with the fewest samples changed."""

from collections.abc import Sequence
from typing import Final, Literal

from gdc.comparison.results import FrontPoint, Recommendation, TargetVerdict
from gdc.config import Target
from gdc.errors import ConfigError
from gdc.statistics import wording
from gdc.statistics.bootstrap import ENOUGH_SEEDS, Measured

End = Literal["value", "high"]
# A rule that knows the canaries and rules that act by chance: bounds and controls, no plans.
NEVER: Final = ("oracle", "random", "shuffled")


def recommend(points: Sequence[FrontPoint], target: Target) -> Recommendation:
    """Judge every plan by both ends of its intervals, and name one.

    Args:
        points: As ``pareto_front`` gives them; oracle, random and shuffled arms are left out.
        target: Largest extraction, and largest increase of perplexity in percent.

    Returns:
        ``verdict``: `shown` (the upper ends of both 95 % intervals are within the target, and
        there are enough seeds for an interval), `on average` (both values are), `none` or
        `not measured`; ``arm``, the one with the fewest samples changed, of equals the one with the
        fewest dropped, then by name (for `none` the nearest: the least sum of what it misses in
        points of extraction and in percent of perplexity).
    """
    plans = [point for point in points if point.rule not in NEVER]
    verdict, plan = _choose(plans, target)
    return Recommendation(
        target=target,
        verdict=verdict,
        arm=None if plan is None else plan.arm,
        num_plans=len(plans),
        sentence=f"{_question(target)}: {_answer(verdict, plan, target, len(plans))}.",
    )


def target_of(max_extraction: float, max_perplexity: float) -> Target:
    """The target of two options of the command line.

    Raises:
        ConfigError: A number is out of its range.
    """
    if not 0 <= max_extraction <= 1:
        raise ConfigError(
            f"--max-extraction: expected a share in [0, 1], got {max_extraction}. 0.1 is 10 %."
        )
    if not 0 <= max_perplexity < float("inf"):
        raise ConfigError(
            f"--max-perplexity: expected a percentage of at least 0, got {max_perplexity}. "
            "0.5 is half a percent more than the baseline."
        )
    return Target(max_extraction=max_extraction, max_perplexity_increase=max_perplexity)


def _choose(plans: Sequence[FrontPoint], target: Target) -> tuple[TargetVerdict, FrontPoint | None]:
    shown = [
        plan
        for plan in plans
        if not any(_misses(plan, target, "high")) and plan.extraction.num_seeds >= ENOUGH_SEEDS
    ]
    if shown:
        return "shown", min(shown, key=_cost)
    on_average = [plan for plan in plans if not any(_misses(plan, target, "value"))]
    if on_average:
        return "on average", min(on_average, key=_cost)
    if not plans:
        return "not measured", None
    return "none", min(plans, key=lambda p: (sum(_misses(p, target, "value")), *_cost(p)))


def _misses(plan: FrontPoint, target: Target, end: End) -> tuple[float, float]:
    """By how many points of extraction and percent of perplexity an end is beyond the target."""
    extraction = 100 * (_at(plan.extraction, end) - target.max_extraction)
    perplexity = 100 * _at(plan.perplexity_change, end) - target.max_perplexity_increase
    return max(0.0, extraction), max(0.0, perplexity)


def _at(measured: Measured, end: End) -> float:
    return measured.value if end == "value" else measured.high


def _cost(plan: FrontPoint) -> tuple[int, int, str]:
    return plan.num_changed, plan.num_dropped, plan.arm


def _answer(verdict: TargetVerdict, plan: FrontPoint | None, target: Target, num_plans: int) -> str:
    if plan is None:
        return "no plan's extraction and perplexity were measured against an arm that keeps all"
    said = {
        "shown": f"the cheapest plan shown to reach it is {plan.arm}",
        "on average": "no plan is shown to reach it; on average only, the cheapest that does is "
        f"{plan.arm}",
        "none": f"no plan reaches it; the nearest is {plan.arm}, {_missed(plan, target)} beyond",
    }[verdict]
    seeds = plan.extraction.num_seeds
    few = f", too few to show it (wanted: {ENOUGH_SEEDS})" if seeds < ENOUGH_SEEDS else ""
    return (
        f"{said} (samples changed: {plan.num_changed:,}, dropped: {plan.num_dropped:,}; "
        f"extraction {_percent(plan.extraction, '.1f')}, "
        f"perplexity {_percent(plan.perplexity_change, '+.1f')}; "
        f"{wording.counted(seeds, 'seed')}{few}; {num_plans} plans compared)"
    )


def _missed(plan: FrontPoint, target: Target) -> str:
    extraction, perplexity = _misses(plan, target, "value")
    parts = [
        f"{extraction:.3g} points of extraction" if extraction else None,
        f"{perplexity:.3g} % of perplexity" if perplexity else None,
    ]
    return " and ".join(part for part in parts if part)


def _question(target: Target) -> str:
    return (
        f"Extraction of at most {100 * target.max_extraction:g} % at a perplexity of at most "
        f"{target.max_perplexity_increase:+g} %"
    )


def _percent(measured: Measured, form: str) -> str:
    ends = (measured.value, measured.low, measured.high)
    value, low, high = (format(100 * end, form) for end in ends)
    return f"{value} % [{low}, {high}]"
