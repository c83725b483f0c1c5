"""Trace-only scores: curves small enough to check by hand, plain loops, and laws."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gdc.errors import ConfigError
from gdc.recording.trace import Trace
from gdc.scores import score_samples, trace_scores
from gdc.scores.registry import REGISTRY
from gdc.scores.trace_scores import forget_hysteresis
from tests.builders import trace_of
from tests.scores.builders import NAN, config, curves, losses, maybe_losses, score

Curve = Sequence[float]
TRACE_ONLY = tuple(name for name, entry in REGISTRY.items() if not entry.needs)
DROPS = ("total_drop", "iqr", "std", "forget_adaptive", "forget_magnitude", "relative_area")


def scores_of(curves: Mapping[str, Curve], *names: str) -> pl.DataFrame:
    """The scores ``names`` with epsilon 1, sorted by id."""
    return score(curves, enabled=names)[0].select(names)


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_scores, "_BLOCK", 2)


def hysteresis(curve: Curve, band: float) -> float | None:
    """The score with epsilon 1."""
    trace = trace_of({"a": curve})
    expression = forget_hysteresis(trace.columns("online"), 1.0, band)
    share: float | None = trace.losses.select(expression).collect().item()
    return share


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        # forget, forget_adaptive, forget_magnitude, iqr, std, total_drop, ever_below_eps
        pytest.param(
            [4.0, 2.0, 0.5, 1.5], (1 / 3, 0, 1, 1.25, 1.274754878398196, 2.5, 1), id="T=4"
        ),
        pytest.param([3.0, 1.0, 3.0, 1.0, 3.0], (0, 2 / 4, 4, 2, 0.96**0.5, 0, 0), id="own middle"),
        pytest.param([2.0, 2.0, 2.0], (0, 0, 0, 0, 0, 0, 0), id="a flat curve"),
        pytest.param([4.0, 0.0], (0, 0, 0, 2, 2, 4, 1), id="learned once"),
        pytest.param([0.0, 4.0], (1, 1, 4, 2, 2, -4, 1), id="forgotten once"),
        pytest.param([2.0, NAN, 4.0], (None, None, None, 1, 1, -2, 0), id="no step has both ends"),
        pytest.param([4.0, 0.5, NAN], (0, 0, 0, 1.75, 1.75, None, 1), id="not seen at the end"),
        pytest.param([0.5, NAN, NAN], (None, None, None, None, None, None, 1), id="seen once"),
        pytest.param([NAN, NAN], (None,) * 7, id="never seen"),
    ],
)
def test_known_curves(curve: list[float], expected: tuple[float | None, ...]) -> None:
    names = ("forget", "forget_adaptive", "forget_magnitude", "iqr", "std", "total_drop")
    row = scores_of({"a": curve}, *names, "ever_below_eps").row(0)
    assert row == pytest.approx(expected)


@pytest.mark.parametrize(
    ("curve", "num_events", "num_steps"),
    [
        pytest.param([0.5, 1.5, 0.5, 1.5], 2, 3, id="across the band twice"),
        pytest.param([0.5, 1.0, 1.5], 1, 2, id="through the band"),
        pytest.param([0.5, 1.2, 0.5, 1.2], 0, 3, id="up into the band only"),
        pytest.param([0.8, 1.5, 0.8, 1.5], 0, 3, id="down into the band only"),
        pytest.param([0.75, 1.25, 0.75], 0, 2, id="the ends of the band belong to it"),
        pytest.param([0.5, NAN, 1.5], 1, 1, id="learned stays so while it is not seen"),
        pytest.param([1.5, 2.0, 1.5], 0, 2, id="never learned"),
        pytest.param([0.5, 1.5, 2.0], 1, 2, id="forgotten once, not twice"),
    ],
)
def test_known_curves_against_a_band_of_a_quarter(
    curve: list[float], num_events: int, num_steps: int
) -> None:
    assert hysteresis(curve, 0.25) == num_events / num_steps


@pytest.mark.parametrize("curve", [[NAN, NAN], [0.5, NAN]])
def test_a_sample_seen_less_than_twice_has_no_hysteresis_score(curve: list[float]) -> None:
    assert hysteresis(curve, 0.25) is None


def hysteresis_by_loop(curve: Curve, band: float) -> float | None:
    seen = [loss for loss in curve if not np.isnan(loss)]
    learned, num_events = False, 0
    for loss in seen:
        if loss < 1 - band:
            learned = True
        elif loss > 1 + band:
            num_events += learned
            learned = False
    return num_events / (len(seen) - 1) if len(seen) > 1 else None


def adaptive_by_loop(curve: Curve) -> float | None:
    seen = [loss for loss in curve if not np.isnan(loss)]
    steps = [(a, b) for a, b in pairwise(curve) if not np.isnan([a, b]).any()]
    if not steps:
        return None
    middle = (min(seen) + max(seen)) / 2
    return sum(a < middle < b for a, b in steps) / len(steps)


def magnitude_by_loop(curve: Curve) -> float | None:
    steps = [(a, b) for a, b in pairwise(curve) if not np.isnan([a, b]).any()]
    return sum(max(0.0, b - a) for a, b in steps) if steps else None


def spread_by_numpy(curve: Curve) -> tuple[float | None, float | None]:
    seen = np.array([loss for loss in curve if not np.isnan(loss)])
    if len(seen) < 2:
        return None, None
    return float(np.subtract(*np.percentile(seen, [75, 25]))), float(seen.std())


@given(curves=curves(maybe_losses), band=losses)
def test_forget_variants_match_plain_loops(curves: dict[str, list[float]], band: float) -> None:
    for curve in curves.values():
        assert hysteresis(curve, band) == hysteresis_by_loop(curve, band)
    table = scores_of(curves, "forget_adaptive", "forget_magnitude")
    expected = [(adaptive_by_loop(curves[i]), magnitude_by_loop(curves[i])) for i in sorted(curves)]
    assert table.rows() == expected


singles = st.floats(0, 2, width=32)


@given(curve=st.lists(singles, min_size=2, max_size=6), epsilon=st.one_of(singles, st.floats(0, 2)))
def test_losses_in_single_precision_are_compared_as_if_in_double(
    curve: list[float], epsilon: float
) -> None:
    """The neighbours of epsilon in single precision among them."""
    near = [float(np.nextafter(np.float32(epsilon), np.float32(end))) for end in (-9, 9)]
    curve = [*curve, float(np.float32(epsilon)), *near, *curve]
    scores, _ = score({"a": curve}, epsilon={"kind": "absolute", "value": epsilon})
    num_events = sum(a < epsilon < b for a, b in pairwise(curve))
    assert scores["memorization"].item() == num_events / (len(curve) - 1)
    learned = [t for t, loss in enumerate(curve) if loss < epsilon]
    assert scores["first_learned"].item() == (learned[0] if learned else None)


@given(curve=st.lists(singles, min_size=2, max_size=6), band=st.floats(0, 1))
def test_the_ends_of_a_band_are_compared_as_if_in_double(curve: list[float], band: float) -> None:
    ends = [float(np.float32(end)) for end in (1 - band, 1 + band)]
    curve = [*curve, *ends, 0.0, *ends, *curve, 2.0]
    assert hysteresis(curve, band) == hysteresis_by_loop(curve, band)


def test_the_spread_of_infinite_losses_is_no_number() -> None:
    infinity = float("inf")
    table = scores_of({"a": [0.5, infinity], "b": [infinity] * 2}, "std")
    assert table.rows() == [(None,), (None,)]


@settings(max_examples=12)
@given(curves=curves(maybe_losses))
def test_spreads_match_numpy(curves: dict[str, list[float]]) -> None:
    table = scores_of(curves, "iqr", "std")
    for row, sample in zip(table.rows(), sorted(curves), strict=True):
        assert row == pytest.approx(spread_by_numpy(curves[sample]))


@given(curve=st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.25, 1.5, 2.0]), min_size=2, max_size=9))
def test_a_band_of_no_width_is_the_papers_rule_and_a_wider_one_finds_no_more(
    curve: list[float],
) -> None:
    shares = [hysteresis(curve, band) for band in (0.0, 0.3, 0.6, 1.1)]
    assert shares[0] == scores_of({"a": curve}, "forget").item()
    assert pl.Series(shares).is_sorted(descending=True)


@settings(max_examples=10)
@given(curves=curves(maybe_losses), shift=losses)
def test_a_shift_of_all_losses_moves_no_drop_and_no_spread(
    curves: dict[str, list[float]], shift: float
) -> None:
    moved = {sample: [loss + shift for loss in curve] for sample, curve in curves.items()}
    before, after = scores_of(curves, *DROPS), scores_of(moved, *DROPS)
    for name in DROPS:
        assert after[name].to_list() == pytest.approx(before[name].to_list(), abs=1e-12)


@given(curves=curves(maybe_losses))
def test_forget_is_the_memorization_and_below_epsilon_is_learned(
    curves: dict[str, list[float]],
) -> None:
    scores, _ = score(curves, enabled=("forget", "ever_below_eps", "min_loss"))
    assert scores["forget"].equals(scores["memorization"])
    seen = scores.filter(pl.col("min_loss").is_not_null())
    assert (seen["ever_below_eps"] == 1).equals(~seen["never_learned"])


@settings(max_examples=12)
@given(curves=curves(maybe_losses))
def test_every_score_is_a_float64_without_nan(curves: dict[str, list[float]]) -> None:
    table = scores_of(curves, *TRACE_ONLY)
    assert set(table.dtypes) == {pl.Float64}
    assert not table.select(pl.any_horizontal(pl.all().is_nan().any())).item()


def test_a_sum_is_the_mean_times_the_seven_tokens_of_every_sample() -> None:
    table = scores_of({"a": [4.0, 2.0, 1.5]}, "total_drop", "total_drop_sum")
    assert table.row(0) == (2.5, 17.5)


@pytest.mark.parametrize(
    ("curves", "areas"),
    [
        pytest.param({"a": [4.0, 2.0], "b": [4.0, 4.0]}, [1.0, -1.0], id="apart by two nats"),
        pytest.param({"a": [4.0, 2.0, 1.0], "b": [4.0, 3.0, 1.0]}, [0.5, -0.5], id="then alike"),
        pytest.param({"a": [1.0, 1.0], "b": [3.0, 1.0]}, [1.0, -1.0], id="the first loss counts"),
        pytest.param({"a": [2.0, 1.0], "b": [NAN, 9.0]}, [0.0, None], id="not seen at first"),
        pytest.param(
            {"a": [2.0, 1.0], "b": [2.0, NAN], "c": [2.0, 3.0]}, [1.0, 0.0, -1.0], id="not seen"
        ),
        pytest.param({"a": [NAN, 1.0]}, [None], id="none seen at first"),
    ],
)
def test_known_relative_areas(curves: Mapping[str, Curve], areas: list[float | None]) -> None:
    assert scores_of(curves, "relative_area")["relative_area"].to_list() == areas


def test_a_curve_is_compared_with_those_of_a_like_first_loss() -> None:
    """Easy curves end at 0.5 or 1.5, hard ones at 4 or 6; 100 of them make two groups."""
    easy = {f"e{i:02d}": [2.0, 0.5 + i % 2] for i in range(50)}
    hard = {f"h{i:02d}": [8.0, 4.0 + 2 * (i % 2)] for i in range(50)}
    areas = scores_of({**hard, **easy}, "relative_area")["relative_area"].to_list()
    assert areas == [0.5, -0.5] * 25 + [1.0, -1.0] * 25


@given(curves=curves())
def test_relative_areas_sum_to_zero(curves: dict[str, list[float]]) -> None:
    areas = scores_of(curves, "relative_area")["relative_area"]
    assert areas.sum() == pytest.approx(0, abs=1e-9)


def trace_of_both(online: Mapping[str, Curve], probes: Mapping[str, Curve]) -> Trace:
    """The online losses first; `columns` finds each mode whatever the order."""
    both = trace_of({sample: [*online[sample], *probes[sample]] for sample in online})
    num_online = len(next(iter(online.values())))
    modes = ["online" if t < num_online else "probe" for t in range(both.checkpoints.height)]
    return replace(both, checkpoints=both.checkpoints.with_columns(mode=pl.Series(modes)))


def of_both_modes(
    name: str, online: Mapping[str, Curve], probes: Mapping[str, Curve]
) -> pl.DataFrame:
    rules = config(enabled=(name,), mode="probe")
    trace = trace_of_both(online, probes)
    corpus = trace.index.select("sample_id")
    return score_samples([trace], [corpus], rules, seed=0).samples


def test_what_own_updates_gain_and_others_undo_is_online_minus_late_frozen_loss() -> None:
    online = {"a": [9.0, 3.0, 2.0], "b": [9.0, 1.0, NAN], "c": [NAN, NAN, NAN]}
    probes = {"a": [8.0, 7.0, 1.0, 0.5], "b": [8.0, 7.0, 1.0, NAN], "c": [4.0, 4.0, 4.0, 4.0]}
    table = of_both_modes("online_probe_gap", online, probes)
    assert table["online_probe_gap"].to_list() == [1.75, 0.0, None]


@given(online=curves(maybe_losses), probes=curves(maybe_losses))
def test_the_gap_of_modes_matches_numpy(
    online: dict[str, list[float]], probes: dict[str, list[float]]
) -> None:
    shared = sorted(online.keys() & probes.keys())
    assume(shared)
    table = of_both_modes(
        "online_probe_gap", {i: online[i] for i in shared}, {i: probes[i] for i in shared}
    )
    for value, sample in zip(table["online_probe_gap"], shared, strict=True):
        first, late = online[sample][1:], probes[sample][len(probes[sample]) // 2 :]
        if np.isnan(first).all() or np.isnan(late).all():
            assert value is None
        else:
            assert value == pytest.approx(np.nanmean(first) - np.nanmean(late))


@pytest.mark.parametrize("name", ["online_probe_gap", "online_late_contrast"])
def test_a_score_of_both_modes_needs_both(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} needs both_modes.*probes_per_epoch"):
        scores_of({"a": [3.0, 2.0, 1.0]}, name)


def test_the_contrast_of_middle_online_and_late_frozen_losses_by_hand() -> None:
    # Fourth powers; passes 2 and 3 of four are read, and the last of four probes.
    online = {
        "memorized": [9.0, 1.0, 1.0, 0.0625],
        "learned": [9.0, 0.0625, 0.0625, 9.0],
        "repeated": [9.0, 0.0, 0.0, 0.0],
        "never seen": [NAN, NAN, NAN, NAN],
    }
    probes = {name: [8.0, 8.0, 8.0, 0.0625] for name in online} | {"repeated": [8.0, 8.0, 8.0, 0.0]}
    table = of_both_modes("online_late_contrast", online, probes)
    found = dict(table.select("sample_id", "online_late_contrast").iter_rows())
    assert found == {
        "learned": 2 - 2.5 * 2,
        "memorized": 2 - 2.5 * 1,
        "never seen": None,
        "repeated": pytest.approx(10 - 2.5 * 10),  # (1e-4)^(-1/4) is 10
    }


@given(online=curves(maybe_losses), probes=curves(maybe_losses))
def test_the_contrast_matches_numpy(
    online: dict[str, list[float]], probes: dict[str, list[float]]
) -> None:
    shared = sorted(online.keys() & probes.keys())
    assume(shared)
    table = of_both_modes(
        "online_late_contrast", {i: online[i] for i in shared}, {i: probes[i] for i in shared}
    )
    for value, sample in zip(table["online_late_contrast"], shared, strict=True):
        early = online[sample][1 : max(2, int(0.75 * len(online[sample])))]
        late = probes[sample][int(0.75 * len(probes[sample])) :]
        if np.isnan(early).all() or np.isnan(late).all():
            assert value is None
        else:
            roots = [np.maximum(np.nanmean(part), 1e-4) ** -0.25 for part in (late, early)]
            assert value == pytest.approx(roots[0] - 2.5 * roots[1], rel=1e-6)


def test_a_lower_late_loss_and_a_higher_middle_one_make_a_higher_contrast() -> None:
    online = {"a": [9.0, 2.0, 2.0], "b": [9.0, 2.0, 2.0], "c": [9.0, 3.0, 2.0]}
    probes = {"a": [8.0, 1.0], "b": [8.0, 0.5], "c": [8.0, 0.5]}
    table = of_both_modes("online_late_contrast", online, probes)
    assert table["online_late_contrast"].is_sorted()
    assert table["online_late_contrast"].n_unique() == 3
