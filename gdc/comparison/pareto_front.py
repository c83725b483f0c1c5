"""Compared arms -> what each leaks and costs, which belong together, and which nothing beats."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

# Told which rows are planted: a bound for the others, so it beats none of them.
_BOUND: Final = "oracle"


def front_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every arm whose extraction and perplexity were measured, in the order of the front.

    Args:
        report: ``arms``, ``evidence``, ``baseline`` and ``settings``, as ``build_report`` has them.

    Returns:
        For each arm ``arm``, ``rule``, ``series`` (see ``series_of``), ``fraction`` (or None),
        ``num_changed`` and ``num_dropped`` rows of its plan; the intervals ``perplexity_change``
        (share of the baseline's perplexity) and ``extraction`` (share of the planted secrets);
        ``is_baseline`` and ``is_on_front``. Those on the front first, then by perplexity.
    """
    rules = report["settings"]["intervene"]["arms"]
    points = [
        _point(arm, rules[arm["arm"]], report)
        for arm in report["arms"]
        if _is_measured(report["evidence"].get(arm["arm"]))
    ]
    series = series_of({point["arm"]: rules[point["arm"]] for point in points})
    best = non_dominated(
        {point["arm"]: _place(point) for point in points if point["rule"] != _BOUND}
    )
    points = [
        point | {"series": series.get(point["arm"]), "is_on_front": point["arm"] in best}
        for point in points
    ]
    return sorted(points, key=lambda p: (not p["is_on_front"], *_place(p), p["arm"]))


def series_of(rules: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The series of every arm that has another of its rule, score, ties and weight.

    Args:
        rules: What ``intervene.arms`` says of each arm; those without a fraction are in no series.

    Returns:
        By arm a name made of rule, score, weight if it is not 0, and what breaks ties if the arms
        of that score differ in it.
    """
    with_fraction = {arm: rule for arm, rule in rules.items() if "fraction" in rule}
    ties: dict[str, set[str]] = {}
    for rule in with_fraction.values():
        ties.setdefault(_series_name(rule), set()).add(rule.get("tie_break", ""))
    names = {
        arm: name if len(ties[name := _series_name(rule)]) == 1 else f"{name}, {rule['tie_break']}"
        for arm, rule in with_fraction.items()
    }
    counts = Counter(names.values())
    return {arm: name for arm, name in names.items() if counts[name] > 1}


def non_dominated(places: Mapping[str, tuple[float, float]]) -> set[str]:
    """The names that no other one is at most equal to in both numbers and below in one."""
    return {
        name
        for name, (x, y) in places.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in places.values())
    }


def lines_of(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The points of each series by fraction; a point that is alone under its arm's name."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for point in sorted(points, key=lambda p: (p["fraction"] or 0.0, p["arm"])):
        lines.setdefault(point["series"] or point["arm"], []).append(point)
    return dict(sorted(lines.items()))


def _series_name(rule: Mapping[str, Any]) -> str:
    weight = rule["weight"]
    parts = [rule["rule"], rule.get("score"), f"weight {weight:g}" if weight else None]
    return " ".join(part for part in parts if part)


def _is_measured(evidence: Mapping[str, Any] | None) -> bool:
    return (
        evidence is not None
        and evidence["canaries"]["planted"]["extracted"] is not None
        and evidence["perplexity_ratio"] is not None
    )


def _point(
    arm: Mapping[str, Any], rule: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, Any]:
    evidence = report["evidence"][arm["arm"]]
    ratio = evidence["perplexity_ratio"]
    return {
        "arm": arm["arm"],
        "rule": rule["rule"],
        "fraction": rule.get("fraction"),
        "num_changed": arm["num_changed"],
        "num_dropped": arm["num_dropped"],
        "perplexity_change": ratio | {end: ratio[end] - 1 for end in ("value", "low", "high")},
        "extraction": evidence["canaries"]["planted"]["extracted"],
        "is_baseline": arm["arm"] == report["baseline"],
    }


def _place(point: Mapping[str, Any]) -> tuple[float, float]:
    return point["perplexity_change"]["value"], point["extraction"]["value"]
