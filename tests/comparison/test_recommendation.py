"""Which plan is named for a target: three verdicts, costs and ties, and what is never named."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.comparison.recommendation import NEVER, recommend, target_of
from gdc.comparison.results import FrontPoint
from gdc.config import Target
from gdc.errors import ConfigError
from tests.comparison.builders import measured

TARGET = Target(max_extraction=0.25, max_perplexity_increase=50.0)
Ends = tuple[float, float, float]


def plan(
    arm: str, extraction: Ends, perplexity: Ends, cost: tuple[int, int] = (5, 5), rule: str = "x"
) -> FrontPoint:
    return FrontPoint(
        arm=arm,
        rule=rule,
        series=None,
        fraction=None,
        num_changed=cost[0],
        num_dropped=cost[1],
        perplexity_change=measured(*perplexity),
        extraction=measured(*extraction),
        is_baseline=False,
        is_on_front=False,
    )


NONE = plan("none", (1.0, 0.5, 1.0), (0.0, 0.0, 0.0), (0, 0))
SHOWN = plan("shown", (0.125, 0.0, 0.25), (0.25, 0.0, 0.5), (9, 4))
AVERAGE = plan("average", (0.25, 0.0, 0.5), (0.0, 0.0, 0.0), (2, 2))
NEAR = plan("near", (0.375, 0.25, 0.5), (0.625, 0.5, 0.75), (1, 1))


def test_a_plan_whose_upper_ends_are_within_is_shown_to_reach_the_target() -> None:
    found = recommend([NONE, AVERAGE, SHOWN, NEAR], TARGET)
    assert (found.verdict, found.arm, found.num_plans) == ("shown", "shown", 4)
    assert found.target == TARGET
    assert found.sentence == (
        "Extraction of at most 25 % at a perplexity of at most +50 %: the cheapest plan shown to "
        "reach it is shown (samples changed: 9, dropped: 4; extraction 12.5 % [0.0, 25.0], "
        "perplexity +25.0 % [+0.0, +50.0]; 3 seeds; 4 plans compared)."
    )


def test_a_plan_that_is_within_on_average_only_is_said_to_be_no_more() -> None:
    found = recommend([NONE, AVERAGE, NEAR], TARGET)
    assert (found.verdict, found.arm) == ("on average", "average")
    assert "no plan is shown to reach it; on average only, the cheapest that does is average" in (
        found.sentence
    )


def test_two_seeds_show_nothing() -> None:
    few = replace(
        SHOWN,
        extraction=replace(SHOWN.extraction, num_seeds=2),
        perplexity_change=replace(SHOWN.perplexity_change, num_seeds=2),
    )
    found = recommend([NONE, few], TARGET)
    assert (found.verdict, found.arm) == ("on average", "shown")
    assert "2 seeds, too few to show it (wanted: 3); 2 plans compared)." in found.sentence


def test_where_no_plan_reaches_it_the_nearest_is_named_with_what_it_misses() -> None:
    found = recommend([NONE, NEAR], TARGET)
    assert (found.verdict, found.arm) == ("none", "near")
    assert (
        "no plan reaches it; the nearest is near, 12.5 points of extraction and 12.5 % of "
        "perplexity beyond (samples changed: 1"
    ) in found.sentence


def test_the_arm_that_keeps_everything_may_be_enough() -> None:
    found = recommend([SHOWN, NONE], Target(max_extraction=1.0, max_perplexity_increase=50.0))
    assert (found.verdict, found.arm) == ("shown", "none")


@pytest.mark.parametrize("rule", NEVER)
def test_bounds_and_controls_are_never_named(rule: str) -> None:
    best = plan("best", (0.0, 0.0, 0.0), (-0.5, -0.5, -0.5), (0, 0), rule=rule)
    assert recommend([best, NEAR], TARGET).arm == "near"
    found = recommend([best], TARGET)
    assert (found.verdict, found.arm, found.num_plans) == ("not measured", None, 0)
    assert "no plan's extraction and perplexity were measured" in found.sentence


def test_equal_costs_are_told_apart_by_what_is_dropped_then_by_name() -> None:
    ends: tuple[Ends, Ends] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    plans = [plan("c", *ends, (5, 3)), plan("b", *ends, (5, 2)), plan("a", *ends, (5, 2))]
    assert recommend(plans, TARGET).arm == "a"
    assert recommend([*plans, plan("d", *ends, (4, 4))], TARGET).arm == "d"


shares = st.integers(0, 8).map(lambda n: n / 8)
ends = st.lists(shares, min_size=3, max_size=3).map(sorted).map(lambda e: (e[1], e[0], e[2]))


@given(drawn=st.lists(st.tuples(ends, ends, st.integers(0, 9)), min_size=1, max_size=6))
def test_a_verdict_is_the_strongest_that_any_plan_earns(
    drawn: list[tuple[Ends, Ends, int]],
) -> None:
    plans = [plan(f"p{i}", e, p, (cost, cost)) for i, (e, p, cost) in enumerate(drawn)]

    def costs(end: int) -> list[int]:
        return [cost for e, p, cost in drawn if e[end] <= 0.25 and p[end] <= 0.5]

    found = recommend(plans, TARGET)
    named = next(p for p in plans if p.arm == found.arm)
    if costs(2):
        assert (found.verdict, named.num_changed) == ("shown", min(costs(2)))
    elif costs(0):
        assert (found.verdict, named.num_changed) == ("on average", min(costs(0)))
    else:
        assert found.verdict == "none"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1.5, 0.5), r"--max-extraction: expected a share in \[0, 1\], got 1\.5\."),
        ((float("nan"), 0.5), r"--max-extraction: .* got nan"),
        ((0.5, -1.0), r"--max-perplexity: expected a percentage of at least 0, got -1\.0\."),
        ((0.5, float("inf")), r"--max-perplexity: .* got inf"),
    ],
)
def test_a_number_out_of_its_range_is_refused(numbers: tuple[float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        target_of(*numbers)
    assert target_of(0.25, 50.0) == TARGET
