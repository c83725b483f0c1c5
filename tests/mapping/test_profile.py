"""Memorization over time: made-up losses whose answer is known, a plain loop, laws, a refusal."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.errors import DataError
from gdc.mapping.profile import Panel, profile_of

INF = math.inf


def panel_of(rows: dict[float, list[list[float]]], steps: list[int]) -> Panel:
    """Texts by the step at which they were first trained on."""
    first = [step for step, losses in rows.items() for _ in losses]
    losses = [line for of_step in rows.values() for line in of_step]
    return Panel(np.array(losses), np.array(steps), np.array(first))


def made(seed: int, *, num_texts: int = 40, num_checkpoints: int = 5) -> Panel:
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 9, num_checkpoints))
    first = rng.integers(1, steps[-1] + 4, num_texts).astype(float)
    first[rng.random(num_texts) < 0.2] = INF
    return Panel(rng.integers(0, 80, (num_texts, num_checkpoints)) / 8, steps, first)


def everything(panel: Panel) -> np.ndarray:
    return np.isfinite(panel.first_steps)


# All losses fall by 1 from checkpoint to checkpoint; texts seen at step 15 fall by 2 more at first,
# of which 1 is left at the end; those at step 25 by 4 more.
KNOWN = panel_of(
    {
        5: [[3.0, 3, 3, 3]] * 2,
        15: [[9.0, 6, 5, 5], [8, 5, 4, 4]],
        20: [[9.0, 6, 5, 5], [8, 5, 4, 4]],
        25: [[7.0, 6, 1, 0], [9, 8, 3, 2]],
        INF: [[8.0, 7, 6, 5], [6, 5, 4, 3]],
    },
    [10, 20, 30, 40],
)


def test_a_known_profile() -> None:
    found = profile_of(KNOWN, everything(KNOWN))
    assert (found.num_texts, found.num_left_out) == (6, 2)
    assert found.instantaneous is not None
    assert found.residual is not None
    assert found.pre_trend is not None
    # Four texts with 2 and two with 4; at the end 1 and 4.
    assert found.instantaneous.value == pytest.approx((4 * 2 + 2 * 4) / 6)
    assert found.residual.value == pytest.approx((4 * 1 + 2 * 4) / 6)
    # Only those of step 25 have two checkpoints before.
    assert found.pre_trend.value == pytest.approx(0)
    lags = {round(lag.steps): (round(lag.effect.value, 9), lag.num_texts) for lag in found.lags}
    assert lags == {-20: (0, 2), 0: (round(16 / 6, 9), 6), 10: (round(16 / 6, 9), 6), 20: (1, 4)}


def test_texts_all_alike_have_no_error_and_others_that_differ_have_one() -> None:
    exact = profile_of(KNOWN, everything(KNOWN)).instantaneous
    assert exact is not None
    assert (exact.low, exact.high) == (exact.value, exact.value)
    panel = panel_of({15: [[9.0, 6], [9, 8]], INF: [[5.0, 4], [5, 2]]}, [10, 20])
    found = profile_of(panel, everything(panel)).instantaneous
    assert found is not None
    # Falls of 3 and 1 against 1 and 3: means with variance 1 / 2 each.
    assert found.value == pytest.approx(0)
    assert found.high == pytest.approx(1.959964 * math.sqrt(1 / 2 + 1 / 2))


@given(seed=st.integers(0, 2**16))
def test_effects_match_a_plain_loop(seed: int) -> None:
    panel = made(seed)
    chosen = np.random.default_rng(seed).random(len(panel.first_steps)) < 0.7
    groups = [sum(step < first for step in panel.steps) for first in panel.first_steps]
    found = profile_of(panel, chosen)
    for name, lag in (("pre_trend", -2), ("instantaneous", 0), ("residual", None)):
        total, count = 0.0, 0
        for group in range(1, len(panel.steps)):
            time = len(panel.steps) - 1 if lag is None else group + lag
            ours = [i for i, g in enumerate(groups) if g == group and chosen[i]]
            others = [i for i, g in enumerate(groups) if g > max(time, group)]
            if time < 0 or min(len(ours), len(others)) < 2:
                continue
            first, last = min(time, group - 1), max(time, group - 1)
            falls = [panel.losses[i, first] - panel.losses[i, last] for i in range(len(groups))]
            gap = np.mean([falls[i] for i in ours]) - np.mean([falls[i] for i in others])
            total, count = total + gap * len(ours), count + len(ours)
        effect = getattr(found, name)
        assert (effect is None) == (count == 0)
        assert effect is None or effect.value == pytest.approx(total / count)


@given(seed=st.integers(0, 2**16), shift=st.integers(-9, 9), gain=st.integers(1, 5))
def test_what_falls_for_all_is_no_memorization_and_a_gain_of_the_seen_is(
    seed: int, shift: int, gain: int
) -> None:
    panel = made(seed)
    before = profile_of(panel, everything(panel))
    rng = np.random.default_rng(seed)
    trend = rng.normal(size=len(panel.steps)) + shift
    hard = rng.normal(size=len(panel.first_steps))
    is_seen = panel.groups[:, None] <= np.arange(len(panel.steps))
    moved = replace(panel, losses=panel.losses + trend + hard[:, None] - gain * is_seen)
    after = profile_of(moved, everything(panel))
    for name, added in (("pre_trend", 0), ("instantaneous", gain), ("residual", gain)):
        one, other = getattr(before, name), getattr(after, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert other.value - one.value == pytest.approx(added)
            assert other.high - other.low == pytest.approx(one.high - one.low)


@given(seed=st.integers(0, 2**16))
def test_the_order_of_texts_does_not_matter(seed: int) -> None:
    panel = made(seed)
    order = np.random.default_rng(seed).permutation(len(panel.first_steps))
    mixed = Panel(panel.losses[order], panel.steps, panel.first_steps[order])
    one, other = (profile_of(p, everything(p)).residual for p in (panel, mixed))
    assert (one is None) == (other is None)
    assert one is None or other is None or one.value == pytest.approx(other.value)


def test_intervals_cover_the_gain_in_about_95_of_100_runs() -> None:
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        first = rng.choice([5.0, 15, 25, INF], 160)
        panel = Panel(rng.normal(0, 1, (160, 3)), np.array([10, 20, 30]), first)
        is_seen = panel.groups[:, None] <= np.arange(3)
        found = profile_of(replace(panel, losses=panel.losses - 0.5 * is_seen), first < INF)
        assert found.residual is not None
        covered.append(found.residual.low <= 0.5 <= found.residual.high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_texts_with_an_unknown_loss_are_left_out() -> None:
    losses = KNOWN.losses.copy()
    losses[-1, 0] = losses[2, 3] = math.nan
    found = profile_of(replace(KNOWN, losses=losses), everything(KNOWN))
    assert found.num_texts == 5
    assert found.residual is None


def test_checkpoints_of_another_number_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"expected losses of 3 texts x 2 checkpoints .* got \(3, 3\)"
    ):
        Panel(np.zeros((3, 3)), np.array([1, 2]), np.zeros(3))
