"""Scores that read the held-out trace: worlds whose answers are known, and laws."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import compress

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import ConfigError, DataError
from gdc.recording.trace import Trace
from gdc.scores import REGISTRY, score_samples, score_unseen
from gdc.scores.calibrated import calibrate, p_values
from tests.builders import cut, trace_of, with_mixed_records, with_records
from tests.scores.builders import NAN, config, shuffled

Curves = Mapping[str, Sequence[float]]
CALIBRATED = ("calibrated_drop", "calibrated_drop_log_p")
# What a trace of one mode and the texts suffice for.
WITHOUT_REFERENCES = tuple(
    name for name in REGISTRY if not {"references", "both_modes"} & REGISTRY[name].needs
)


def trace_with_heldout(curves: Curves, heldout: Curves) -> Trace:
    other = trace_of(heldout)
    return replace(trace_of(curves), heldout_index=other.index, heldout_losses=other.losses)


def test_held_out_samples_and_twins_have_the_scores_of_their_own_curves() -> None:
    heldout, twins = ({"v-0": [4.0, 3.0]}, {"twin:a-0-00": [5.0, 1.0]})
    runs = []
    for shift in (0.0, 2.0):
        trace = trace_with_heldout({"x-0": [9.0, 0.0]}, heldout)
        other = trace_of({name: [curve[0] + shift, curve[1]] for name, curve in twins.items()})
        probes = trace.checkpoints.with_columns(mode=pl.lit("probe"))
        runs.append(
            replace(trace, checkpoints=probes, twin_index=other.index, twin_losses=other.losses)
        )
    rules = config(mode="probe", enabled=("total_drop", "num_copies"))
    unseen = score_unseen(runs, rules, epsilon=2.0)
    assert "num_copies" not in unseen.columns
    assert unseen.select("sample_id", "total_drop", "difficulty").rows() == [
        ("v-0", 1.0, 4.0),
        ("twin:a-0-00", 5.0, 6.0),  # the mean of two runs
    ]
    online = config(mode="online", enabled=("total_drop",))
    as_online = [replace(run, checkpoints=trace.checkpoints) for run in runs]
    assert score_unseen(as_online, online, epsilon=2.0).is_empty()


def corpus_of(trace: Trace, text: str = "the same text") -> pl.DataFrame:
    """Two copies of one text, whatever the sample."""
    ids = pl.concat([trace.index, trace.heldout_index]).select("sample_id")
    return ids.with_columns(num_copies=pl.lit(2, pl.Int64), text=pl.lit(text))


def scores_of(curves: Curves, heldout: Curves, *names: str) -> pl.DataFrame:
    trace = trace_with_heldout(curves, heldout)
    table, *_ = score_samples([trace], [corpus_of(trace)], config(enabled=names), seed=0)
    return table.select(names)


def halving(num_samples: int = 21, offset: float = 0.0) -> dict[str, list[float]]:
    """Held-out curves whose last loss is 1 plus half of the first, which is 2.0, 2.25, 2.5, ..."""
    firsts = [2 + k / 4 for k in range(num_samples)]
    return {f"h{k:02d}": [v, 9.0, 1 + v / 2 + offset * (-1) ** k] for k, v in enumerate(firsts)}


@pytest.mark.parametrize(
    ("curve", "heldout", "drop"),
    [
        pytest.param([9, 8, 5, 2], [[3, 2, 1, 2]], 5 - 2 - (1 - 2), id="from its lowest"),
        pytest.param([9, 8, 5, 2], [[3, 2, 1, 2], [5, 2, 3, 2]], 8 - 2 - 0, id="of the mean"),
        pytest.param([9, 8, 5, 2], [[4, 3, 2, 1]], 5 - 2 - (2 - 1), id="falling: from the middle"),
        pytest.param([9, 8, 5, 2], [[1, 1, 1, 1]], 9 - 2 - 0, id="the first of equal ones"),
        pytest.param([9, NAN, 5, 2], [[2, 1, 2, 1]], None, id="not seen then"),
    ],
)
def test_known_late_drops(
    curve: list[float], heldout: list[list[float]], drop: float | None
) -> None:
    others = {f"h{k}": values for k, values in enumerate(heldout)}
    row = scores_of({"a": curve}, others, "late_drop", "late_drop_sum").row(0)
    assert row == (drop, None if drop is None else 7 * drop)


def test_a_drop_is_what_the_heldout_samples_with_its_first_loss_do_not_show() -> None:
    """A first loss of 4 is expected to end at 3; outside of [2, 7] it is that of 2 or 7."""
    curves: Curves = {
        "a": [4, 9, 3],
        "b": [4, 9, 0.5],
        "c": [10, 9, 4],
        "d": [1, 9, 2.5],
        "e": [NAN, 9, 1],
    }
    drops = scores_of(curves, halving(), "calibrated_drop")["calibrated_drop"].to_list()
    assert drops == pytest.approx([0.0, 2.5, 0.5, -0.5, None], abs=1e-9)


def test_length_and_compressed_size_are_expected_too() -> None:
    """Held-out samples end at 0.1 for each token plus 0.5 for each compressed byte per token."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), size)) for size in range(10, 50)]
    tokens = [int(n) for n in rng.integers(5, 30, 40)]
    ends = [
        0.1 * n + 0.5 * len(compress(text.encode())) / n
        for n, text in zip(tokens, texts, strict=True)
    ]
    trace = trace_with_heldout(
        {"a": [5.0, 1.0]}, {f"h{k:02d}": [5.0, v] for k, v in enumerate(ends)}
    )
    trace = replace(
        trace,
        index=trace.index.with_columns(num_tokens=pl.lit(15, pl.Int64)),
        heldout_index=trace.heldout_index.with_columns(num_tokens=pl.Series(tokens)),
    )
    ids = pl.concat([trace.index["sample_id"], trace.heldout_index["sample_id"]])
    corpus = pl.DataFrame({"sample_id": ids, "text": ["abcdefghabcdefgh", *texts]})
    table, *_ = score_samples([trace], [corpus], config(enabled=("calibrated_drop",)), seed=0)
    expected = 0.1 * 15 + 0.5 * len(compress(b"abcdefghabcdefgh")) / 15
    assert table["calibrated_drop"].item() == pytest.approx(expected - 1, abs=1e-5)


def test_heldout_residuals_come_from_a_fit_to_the_other_folds() -> None:
    """Oracle: numpy's polynomial through the other four fifths; the last feature is constant."""
    heldout = halving(20, offset=0.5)
    trace = trace_with_heldout({"a": [1.0, 1.0, 1.0]}, heldout)
    table = pl.concat([trace.heldout_index.lazy(), trace.heldout_losses], how="horizontal")
    fit = calibrate(trace.columns("online"), table.collect().with_columns(zlib_size=21))
    first, _, last = np.array(list(heldout.values())).T
    fold = np.arange(20) % 5
    expected = [
        np.polyval(np.polyfit(first[fold != fold[k]], last[fold != fold[k]], 2), first[k]) - last[k]
        for k in range(20)
    ]
    assert fit.residuals == pytest.approx(np.sort(expected), abs=1e-9)


def test_known_p_values() -> None:
    """Held-out residuals 0, 1, 1, 2: those at least as large are counted, and one more."""
    ours = p_values(np.array([-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, 2.0]))
    assert ours.tolist() == [5 / 5, 5 / 5, 4 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5]


def test_the_p_value_of_a_drop_beyond_all_heldout_ones_is_the_smallest_there_is() -> None:
    curves = {"a": [4.0, 9.0, 0.0], "b": [4.0, 9.0, 6.0], "c": [NAN, 9.0, 0.0]}
    ours = scores_of(curves, halving(39, offset=0.5), "calibrated_drop_log_p").to_series()
    assert ours.to_list() == pytest.approx([np.log10(40), 0.0, None])


@given(seed=st.integers(0, 2**16))
def test_unmemorized_samples_have_a_small_p_value_no_oftener_than_it_says(seed: int) -> None:
    """Both kinds from one world: over 400 samples the share with p <= 0.2 is near 0.2."""
    rng = np.random.default_rng(seed)
    first = rng.normal(5, 1, 800)
    ends = first / 2 + rng.normal(0, 0.3, 800)
    made = {f"s{k:03d}": [v, w] for k, (v, w) in enumerate(zip(first, ends, strict=True))}
    names = list(made)
    train, heldout = ({n: made[n] for n in part} for part in (names[:400], names[400:]))
    p = 10 ** -scores_of(train, heldout, "calibrated_drop_log_p").to_series().to_numpy()
    assert np.mean(p <= 0.2) < 0.32  # four standard deviations of two samples of 400


def natural(seed: int, num_samples: int, prefix: str, shape: float = 4.0) -> dict[str, list[float]]:
    curves = np.random.default_rng(seed).gamma(shape, 1, (num_samples, 5))
    return {f"{prefix}{k:03d}": curve for k, curve in enumerate(curves.tolist())}


@settings(max_examples=8)
@given(seed=st.integers(0, 2**16))
def test_no_score_is_nan_or_depends_on_the_order_of_any_rows_or_on_batches(seed: int) -> None:
    # Losses from 1e-30 to 10: a sum of them depends on its order, one of like numbers need not.
    train, heldout = natural(seed, 120, "s", shape=0.1), natural(seed + 1, 40, "h", shape=0.1)
    trace = with_records(trace_with_heldout(train, heldout), seed)
    corpus = corpus_of(trace).with_columns(text=pl.col("sample_id").repeat_by(9).list.join(""))
    other = shuffled(with_mixed_records(trace, seed), seed)
    order = np.random.default_rng(seed).permutation(40)
    other = replace(
        other,
        heldout_index=trace.heldout_index[order],
        heldout_losses=trace.heldout_losses.collect()[order].lazy(),
    )
    mixed = corpus.sample(fraction=1, shuffle=True, seed=seed)
    rules = config(enabled=WITHOUT_REFERENCES)
    before, *_ = score_samples([trace], [corpus], rules, seed=0)
    batches = cut(mixed, np.random.default_rng(seed).integers(mixed.height, size=3).tolist())
    after, *_ = score_samples([other], batches, rules, seed=0)
    assert after.equals(before)
    assert not before.select(pl.any_horizontal(cs.float().is_nan().any())).item()


@given(shift=st.integers(0, 8))
def test_a_shift_of_both_traces_moves_no_drop(shift: int) -> None:
    train, heldout = natural(0, 60, "s"), natural(1, 40, "h")
    moved, moved_heldout = (
        {sample: [loss + shift for loss in curve] for sample, curve in curves.items()}
        for curves in (train, heldout)
    )
    names = ("late_drop", "calibrated_drop")
    before, after = scores_of(train, heldout, *names), scores_of(moved, moved_heldout, *names)
    for name in names:
        assert after[name].to_list() == pytest.approx(before[name].to_list(), abs=1e-4)


def test_zlib_is_the_last_nats_for_each_compressed_byte() -> None:
    """Seven tokens of 1.5 nats in 21 bytes."""
    assert len(compress(b"the same text")) == 21
    assert scores_of({"a": [4.0, 1.5]}, {"h": [1.0, 1.0]}, "zlib").item() == -1.5 * 7 / 21


@pytest.mark.parametrize(
    ("name", "need", "missing"),
    [
        ("late_drop", "heldout", "heldout"),
        ("late_drop_sum", "heldout", "heldout"),
        ("calibrated_drop", "heldout", "heldout"),
        ("calibrated_drop_log_p", "zlib_size", "text"),
        ("zlib", "zlib_size", "text"),
        ("num_copies", "num_copies", "num_copies"),
        ("reference_gap", "references", "references"),
        ("reference_gap_calibrated", "references", "references"),
    ],
)
def test_a_score_without_what_it_needs_is_refused(name: str, need: str, missing: str) -> None:
    trace = trace_with_heldout({"a": [2.0, 9.0, 1.0]}, halving())
    if missing == "heldout":
        trace = trace_of({"a": [2.0, 9.0, 1.0]})
    corpus = corpus_of(trace).drop(missing, strict=False)
    expected = rf"score\.enabled: {name} needs {need}, got none\. .*, or take {name} out of"
    with pytest.raises(ConfigError, match=expected):
        score_samples([trace], [corpus], config(enabled=("final_loss", name)), seed=0)


@pytest.mark.parametrize(
    ("name", "heldout", "numbers"),
    [
        ("calibrated_drop", halving(19), "at least 20 .* got 19"),
        ("calibrated_drop", {**halving(19), "h99": [NAN, 1.0, 1.0]}, "at least 20 .* got 19"),
        ("late_drop", {"h": [1.0, NAN, 1.0]}, "at least 1 .* got 0"),
    ],
)
def test_too_few_heldout_samples_are_refused(name: str, heldout: Curves, numbers: str) -> None:
    with pytest.raises(DataError, match=f"{name}: expected {numbers}.*validation_fraction"):
        scores_of({"a": [3.0, 2.0, 1.0]}, heldout, name)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_score_says_what_it_needs_what_it_costs_and_whence_it_is(name: str) -> None:
    text = (REGISTRY[name].function.__doc__ or "").lower()
    assert all(word in text for word in ("need", "cost", "source:"))
