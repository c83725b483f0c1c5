"""The loss of unseen text predicted from held-out text: worlds with known answers, and oracles."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from gdc.errors import ConfigError, DataError
from gdc.recording.trace import Trace
from gdc.schema import SELF_INFLUENCE
from gdc.scores import score_samples
from gdc.scores.synthetic_control import fit
from tests.builders import trace_of
from tests.scores.builders import NAN, config

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


def world(
    losses: dict[str, list[float]], heldout: dict[str, list[float]]
) -> tuple[Trace, pl.DataFrame]:
    """A trace, and a corpus whose texts differ in length and words."""
    other = trace_of(heldout)
    trace = replace(trace_of(losses), heldout_index=other.index, heldout_losses=other.losses)
    ids = [*losses, *heldout]
    texts = [" ".join(WORDS[(i * j) % 8] for j in range(3 + i % 5)) for i in range(len(ids))]
    return trace, pl.DataFrame(
        {"sample_id": ids, "num_copies": [1] * len(ids), "text": texts}
    ).with_columns(pl.col("num_copies").cast(pl.Int64))


def scores_of(trace: Trace, corpus: pl.DataFrame, *names: str) -> pl.DataFrame:
    return score_samples([trace], [corpus], config(enabled=names), seed=0).samples


def test_where_all_unseen_texts_cost_the_same_the_gap_is_that_minus_the_late_loss() -> None:
    heldout = {f"h{i:02d}": [9.0, 3.0, 3.0, 3.0] for i in range(24)}
    losses = {
        "forgotten": [9.0, 1.0, 2.0, 3.0],
        "learned": [9.0, 0.5, 0.5, 0.5],
        "unknown": [9.0, NAN, NAN, NAN],
        "worse": [1.0, 4.0, 4.0, 4.0],
    }
    names = ("synthetic_control_gap", "synthetic_control_log_p")
    table = scores_of(*world(losses, heldout), *names)
    assert table["sample_id"].to_list() == list(losses)
    assert table[names[0]].to_list() == [pytest.approx(1), pytest.approx(2.5), None, -1]
    # No residual of 24 is as large, or all are.
    smallest = pytest.approx(np.log10(25))
    assert table[names[1]].to_list() == [smallest, smallest, None, pytest.approx(0)]


def noisy_heldout(num: int) -> dict[str, list[float]]:
    draws = np.random.default_rng(0).normal(3, 0.5, (num, 4)).astype(np.float32)
    return {f"h{i:03d}": row.tolist() for i, row in enumerate(draws)}


def test_unmemorized_samples_have_p_values_at_most_a_with_probability_a() -> None:
    draws = np.random.default_rng(1).normal(3, 0.5, (400, 4)).astype(np.float32)
    losses = {f"s{i:03d}": row.tolist() for i, row in enumerate(draws)}
    table = scores_of(*world(losses, noisy_heldout(200)), "synthetic_control_log_p")
    p_values = 10 ** -table["synthetic_control_log_p"].to_numpy()
    for share in (0.1, 0.25, 0.5):
        # Four deviations of a share of 400, and as much again for the 200 held-out ones.
        assert (p_values <= share).mean() == pytest.approx(share, abs=0.13)


def both_modes_of(trace: Trace, num_online: int) -> Trace:
    """The same with its first checkpoints taken for online ones."""
    modes = ["online" if t < num_online else "probe" for t in range(trace.checkpoints.height)]
    return replace(trace, checkpoints=trace.checkpoints.with_columns(mode=pl.Series(modes)))


def contrasts(
    losses: dict[str, list[float]], heldout: dict[str, list[float]]
) -> dict[str, float | None]:
    trace, corpus = world(losses, heldout)
    rules = config(enabled=("unseen_loss_contrast",), mode="probe")
    table = score_samples([both_modes_of(trace, 4)], [corpus], rules, seed=0).samples
    return dict(table.select("sample_id", "unseen_loss_contrast").iter_rows())


def test_the_contrast_by_hand_where_all_unseen_texts_cost_the_same() -> None:
    # Pass 2 of four, and the last of four probes: a fourth power each.
    heldout = {f"h{i:02d}": [9.0, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0] for i in range(24)}
    losses = {
        "memorized": [9.0, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0625],
        "repeated": [9.0, 0.1, 0.2, 9.0, 9.0, 9.0, 9.0, 0.0625],
        "unknown": [9.0, NAN, NAN, 9.0, 9.0, 9.0, 9.0, 1.0],
    }
    expected = pytest.approx(2 - 2.5 * 1)
    assert contrasts(losses, heldout) == {
        "memorized": expected, "repeated": expected, "unknown": None,
    }  # fmt: skip


def test_a_repeated_text_is_not_expected_to_be_easier_than_its_words_are() -> None:
    """With a line through the held-out losses the collapsed online loss would explain the late."""
    draws = np.random.default_rng(3).normal(3, 0.4, 60)
    heldout = {f"h{i:02d}": [9.0, v, v, v, v, v, v, v] for i, v in enumerate(draws.tolist())}
    losses = {
        "ordinary": [9.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0],
        "repeated": [9.0, 1.0, 0.5, 0.2, 0.1, 0.1, 0.1, 0.1],
        "unmemorized": [9.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
    }
    found = contrasts(losses, heldout)
    assert found["repeated"] > found["ordinary"] > found["unmemorized"]  # type: ignore[operator]
    # Texts say nothing here, so the floor is the mean held-out loss less its deviation.
    unseen = (0.1**-0.25 - found["repeated"]) / 2.5
    assert unseen**-4 == pytest.approx(3 - 0.4, abs=0.25)


def test_what_early_losses_of_unseen_text_say_of_late_ones_holds_for_training_text() -> None:
    rng = np.random.default_rng(4)
    early = rng.normal(3, 0.3, 80)
    trace, corpus = world(
        {"low": [9.0, *[2.8] * 3, *[1.0] * 4], "high": [9.0, *[3.2] * 3, *[1.0] * 4]},
        {f"h{i:02d}": [9.0, *[v] * 3, *[1.5 * v] * 4] for i, v in enumerate(early.tolist())},
    )
    rules = config(enabled=("unseen_loss_contrast",), mode="probe")
    table = score_samples([both_modes_of(trace, 4)], [corpus], rules, seed=0).samples
    assert table["sample_id"].to_list() == ["high", "low"]
    found = (1.0 - table["unseen_loss_contrast"].to_numpy()) / 2.5
    # A ridge over few texts shrinks the line a little.
    assert found**-4 == pytest.approx(1.5 * np.array([3.2, 2.8]), abs=0.05)


def test_with_too_few_held_out_samples_the_contrast_is_null_and_says_so() -> None:
    heldout = {f"h{i:02d}": [9.0, 5.0, 5.0, 9.0, 9.0, 9.0, 9.0, 1.0] for i in range(20)}
    heldout["h19"] = [9.0, NAN, 5.0, 9.0, 9.0, 9.0, 9.0, 1.0]
    trace, corpus = world({"a": [9.0, 5.0, 5.0, 9.0, 9.0, 9.0, 9.0, 0.5]}, heldout)
    rules = config(enabled=("unseen_loss_contrast",), mode="probe")
    scored = score_samples([both_modes_of(trace, 4)], [corpus], rules, seed=0)
    assert scored.samples["unseen_loss_contrast"].to_list() == [None]
    assert (
        "unseen_loss_contrast has no value for any sample: it needs 20 held-out samples with "
        "losses (ingest.validation_fraction) and online losses of the first half of the passes."
    ) in scored.summary.warnings


def with_gains(trace: Trace, gains: Mapping[str, float | None]) -> Trace:
    return replace(
        trace, gains=pl.DataFrame(list(gains.items()), schema=SELF_INFLUENCE, orient="row")
    )


def test_influence_by_hand_and_never_less_than_half_the_median() -> None:
    # As above all texts are expected to have a loss of 1 and have one of a sixteenth.
    heldout = {f"h{i:02d}": [9.0, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0] for i in range(24)}
    curve = [9.0, 5.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0625]
    gains = {"least": -2.0, "low": 1.5, "median": 2.0, "high": 8.0, "most": 9.0, "untrained": None}
    trace, corpus = world(dict.fromkeys(gains, curve), heldout)
    is_copied = pl.col("sample_id").is_in(["least", "high"])
    corpus = corpus.with_columns(num_copies=pl.when(is_copied).then(4).otherwise(1).cast(pl.Int64))
    rules = config(enabled=("influence_contrast",), mode="probe")
    run = with_gains(both_modes_of(trace, 4), gains)
    table = score_samples([run], [corpus], rules, seed=0).samples
    found = dict(table.select("sample_id", "influence_contrast").iter_rows())
    assert found.pop("untrained") is None
    # Of four copies, which count as two.
    influences = {"least": 2.0, "low": 1.5, "median": 2.0, "high": 16.0, "most": 9.0}
    assert found == pytest.approx(
        {name: 2 - 3 + 0.2 * math.log(value) for name, value in influences.items()}
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16))
def test_of_two_texts_alike_the_one_that_taught_more_is_higher(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = [9.0, 5.0, 5.0, 5.0, 3.0, 2.0, 2.0, 2.0]
    gains = {f"s{i:02d}": float(value) for i, value in enumerate(rng.normal(1, 1, 20))}
    heldout = {f"h{i:02d}": [*curve[:4], *rng.normal(4, 1, 4).tolist()] for i in range(24)}
    trace, corpus = world(dict.fromkeys(gains, curve), heldout)
    rules = config(enabled=("influence_contrast",), mode="probe")
    run = with_gains(both_modes_of(trace, 4), gains)
    alike = with_gains(run, dict.fromkeys(gains, 1.0))
    found, without = (
        score_samples([each], [corpus], rules, seed=0).samples["influence_contrast"].to_numpy()
        for each in (run, alike)
    )
    by_gain = np.argsort(np.fromiter(gains.values(), dtype=np.float64))
    rises = np.diff((found - without)[by_gain])
    assert (rises >= -1e-12).all()
    # The upper half is above the least that counts.
    assert (rises[10:] > 0).all()
    assert np.isfinite(found).all()


def test_without_the_gains_of_the_run_it_is_refused() -> None:
    trace, corpus = world({"a": [9.0, 5.0, 5.0, 5.0, 3.0, 2.0, 2.0, 2.0]}, noisy_heldout(30))
    rules = config(enabled=("influence_contrast",), mode="probe")
    with pytest.raises(
        ConfigError, match=r"influence_contrast needs gain, got none\. Set train\.self_"
    ):
        score_samples([both_modes_of(trace, 4)], [corpus], rules, seed=0)


def features_and_target(num: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(2)
    features = rng.normal(5, [1.0, 3.0, 0.5], (num, 3))
    return features, features @ [1.0, -0.5, 2.0] + rng.normal(0, 0.3, num)


def test_the_regression_matches_scikit_learn() -> None:
    features, target = features_and_target(60)
    columns = [pl.col(name) for name in "abc"]
    table = pl.DataFrame({**dict(zip("abc", features.T, strict=True)), "late": target})
    found = table.select(fit("score", columns, pl.col("late"), table).predict(columns))
    scaler = StandardScaler().fit(features)
    standard = np.clip(scaler.transform(features), -4, 4)
    expected = Ridge(alpha=1.0).fit(standard, target).predict(standard)
    assert found.to_series().to_numpy() == pytest.approx(expected)


def test_residuals_are_those_of_samples_that_the_fit_has_not_seen() -> None:
    features, target = features_and_target(60)
    columns = [pl.col(name) for name in "abc"]
    table = pl.DataFrame({**dict(zip("abc", features.T, strict=True)), "late": target})
    residuals = []
    for part in range(5):
        inside = np.arange(60) % 5 != part
        scaler = StandardScaler().fit(features[inside])
        standard = np.clip(scaler.transform(features), -4, 4)
        model = Ridge(alpha=1.0).fit(standard[inside], target[inside])
        residuals += (model.predict(standard[~inside]) - target[~inside]).tolist()
    found = fit("score", columns, pl.col("late"), table).residuals
    assert found == pytest.approx(sorted(residuals))


def test_what_it_needs_is_named() -> None:
    trace, corpus = world({"a": [3.0, 2.0]}, {"h": [3.0, 2.0]})
    with pytest.raises(DataError, match="synthetic_control_gap: expected at least 20 held-out"):
        scores_of(trace, corpus, "synthetic_control_gap")
    with pytest.raises(
        ConfigError, match=r"needs ngram_nats, got none.*columns text and num_copies"
    ):
        scores_of(trace, corpus.drop("num_copies"), "synthetic_control_gap")
