"""The gap between held-out and kept texts: by hand, paired by seed, a law, a refusal."""

import numpy as np
import pytest

from gdc.comparison.generalization import ArmLosses, gap_difference, generalization_gap
from gdc.errors import DataError


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
