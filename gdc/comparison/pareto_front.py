"""Arms with their cost and leakage -> the series they belong to, and the Pareto front."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gdc.comparison.results import ArmAudits, ArmResult, FrontPoint
from gdc.config import Arm, RandomArm, TopFractionArm
from gdc.statistics.bootstrap import Measured

# It is told which rows are planted: a bound for the others, so it dominates none of them.
_BOUND: Final = "oracle"


def pareto_front(
    results: Sequence[ArmResult],
    arm_audits: Mapping[str, ArmAudits],
    rules: Mapping[str, Arm],
    baseline: str | None,
) -> list[FrontPoint]:
    """Place every arm whose extraction and perplexity were measured.

    Args:
        results: What each arm's plan changes.
        arm_audits: By arm; arms without audits are left out.
        rules: What ``intervene.arms`` says of each arm.
        baseline: The arm that keeps everything.

    Returns:
        The points on the front first, then by perplexity.
    """
    points = [
        _point(
            result, arm_audits[result.arm], rules[result.arm], is_baseline=result.arm == baseline
        )
        for result in results
        if result.arm in arm_audits
    ]
    measured = [point for point in points if point is not None]
    series = series_of({point.arm: rules[point.arm] for point in measured})
    best = non_dominated(
        {point.arm: _position(point) for point in measured if point.rule != _BOUND}
    )
    placed = [
        replace(point, series=series.get(point.arm), is_on_front=point.arm in best)
        for point in measured
    ]
    return sorted(placed, key=lambda p: (not p.is_on_front, *_position(p), p.arm))


def series_of(rules: Mapping[str, Arm]) -> dict[str, str]:
    """The series of every arm that has another of its rule, score, ties and weight.

    Args:
        rules: What ``intervene.arms`` says of each arm; those without a fraction are in no series.

    Returns:
        By arm a name made of rule, score, weight if it is not 0, and what breaks ties if the arms
        of that score differ in it.
    """
    with_fraction = {
        arm: rule for arm, rule in rules.items() if isinstance(rule, TopFractionArm | RandomArm)
    }
    ties: dict[str, set[str]] = {}
    for rule in with_fraction.values():
        ties.setdefault(_series_name(rule), set()).add(_tie_break(rule))
    names = {
        arm: name if len(ties[name := _series_name(rule)]) == 1 else f"{name}, {_tie_break(rule)}"
        for arm, rule in with_fraction.items()
    }
    counts = Counter(names.values())
    return {arm: name for arm, name in names.items() if counts[name] > 1}


def non_dominated(positions: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names that no other one is at most equal to in both numbers and below in one."""
    return {
        name
        for name, (x, y) in positions.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in positions.values())
    }


def lines_of(points: Sequence[FrontPoint]) -> dict[str, list[FrontPoint]]:
    """The points of each series by fraction; a point that is alone under its arm's name."""
    lines: dict[str, list[FrontPoint]] = {}
    for point in sorted(points, key=lambda p: (p.fraction or 0.0, p.arm)):
        lines.setdefault(point.series or point.arm, []).append(point)
    return dict(sorted(lines.items()))


def _series_name(rule: TopFractionArm | RandomArm) -> str:
    score = rule.score if isinstance(rule, TopFractionArm) else None
    parts = [rule.rule, score, f"weight {rule.weight:g}" if rule.weight else None]
    return " ".join(part for part in parts if part)


def _tie_break(rule: TopFractionArm | RandomArm) -> str:
    return rule.tie_break if isinstance(rule, TopFractionArm) else ""


def _point(
    result: ArmResult, audits: ArmAudits, rule: Arm, *, is_baseline: bool
) -> FrontPoint | None:
    ratio, extraction = audits.perplexity_ratio, audits.canaries.planted.extracted
    if ratio is None or extraction is None:
        return None
    return FrontPoint(
        arm=result.arm,
        rule=rule.rule,
        series=None,
        fraction=rule.fraction if isinstance(rule, TopFractionArm | RandomArm) else None,
        num_changed=result.num_changed,
        num_dropped=result.num_dropped,
        perplexity_change=Measured(ratio.value - 1, ratio.low - 1, ratio.high - 1, ratio.num_seeds),
        extraction=extraction,
        is_baseline=is_baseline,
        is_on_front=False,
    )


def _position(point: FrontPoint) -> tuple[float, float]:
    return point.perplexity_change.value, point.extraction.value
