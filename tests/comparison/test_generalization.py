"""The gap between held-out and kept texts: by hand, paired by seed, a law, a refusal."""

import numpy as np
import pytest

from gdc.comparison.generalization import (
    ArmLosses,
    arm_losses,
    gap_difference,
    generalization_gap,
    verdict,
)
from gdc.errors import DataError
from gdc.statistics.bootstrap import Measured
from tests.builders import membership_of
from tests.comparison.builders import arm_audits


def losses(members: list[float], kept: str, heldout: list[float]) -> ArmLosses:
    """Each text eight times, so that every resample draws some that are kept."""
    is_kept = np.array([k == "1" for k in kept] * 8)
    return ArmLosses(np.array(members * 8), is_kept, np.array(heldout * 8))


def test_the_gap_is_of_the_kept_texts_alone() -> None:
    runs = [losses([1.0, 2.0, 9.0], "110", [4.0, 5.0]), losses([2.0, 2.0, 9.0], "110", [4.0, 6.0])]
    # 4.5 - 1.5 and 5 - 2.
    found = generalization_gap(runs, seed=0)
    assert (found.value, found.num_seeds) == (3.0, 2)
    assert found.low <= 3 <= found.high
    others = [
        losses([1.0, 2.0, 9.0], "011", [4.0, 5.0]),
        losses([2.0, 2.0, 9.0], "101", [4.0, 6.0]),
    ]
    # 4.5 - 5.5 and 5 - 5.5.
    assert gap_difference(runs, others, seed=0).value == 3 + (1 + 0.5) / 2


def test_what_shifts_all_losses_of_a_run_shifts_no_gap() -> None:
    rng = np.random.default_rng(0)
    run = ArmLosses(rng.normal(3, 1, 50), rng.random(50) < 0.8, rng.normal(4, 1, 30))
    moved = ArmLosses(run.members + 2, run.is_kept, run.heldout + 2)
    one, other = (generalization_gap([r], seed=1) for r in (run, moved))
    assert (other.low, other.high) == pytest.approx((one.low, one.high))
    same = gap_difference([moved], [run], seed=1)
    assert (same.low, same.high) == pytest.approx((0, 0), abs=1e-9)


def test_an_arm_that_keeps_nothing_has_no_gap() -> None:
    with pytest.raises(DataError, match="got 16 members, 16 marks, 0 kept and 8 held-out"):
        losses([1.0, 2.0], "00", [3.0])


def test_the_losses_of_an_arm_are_those_of_the_texts_that_it_trained_on() -> None:
    members = [1.0, 2.0] * 15 + [9.0]
    trained = {f"m{i}" for i in range(30)}
    runs = arm_losses([membership_of(members, [3.0, 5.0])] * 2, trained)
    assert runs is not None
    assert len(runs) == 2
    # 4 held out, minus 1.5: the dropped text is no part of it.
    assert generalization_gap(runs, seed=0).value == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("heldout", "trained"),
    [
        pytest.param([3.0], 29, id="too few that were trained on are audited"),
        pytest.param([], 30, id="nothing is held out"),
    ],
)
def test_a_gap_with_one_side_alone_is_none(heldout: list[float], trained: int) -> None:
    membership = membership_of([1.0] * 60, heldout)
    assert arm_losses([membership], {f"m{i}" for i in range(trained)}) is None


def difference(low: float, high: float) -> Measured:
    return Measured((low + high) / 2, low, high, 3)


def test_a_verdict_on_gaps_names_the_arms_that_are_shown_to_differ() -> None:
    found = {
        "none": arm_audits(),
        "a": arm_audits(gap_against_random=difference(-2, -1)),
        "b": arm_audits(gap_against_random=difference(-1, 1)),
        "c": arm_audits(gap_against_random=difference(1, 2)),
    }
    gap = "Against as many random samples the generalization gap is "
    assert verdict(found) == (
        f"{gap}lower for a and higher for c; for 1 of 3 arms no difference is shown."
    )
    assert verdict({"a": found["a"]}) == f"{gap}lower for a."
    assert verdict({"b": found["b"]}) == f"{gap}not shown to differ for any arm."
    assert verdict({"none": found["none"]}).startswith("No arm has a random arm of its size")
