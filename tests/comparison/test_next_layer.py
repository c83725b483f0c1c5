"""The next layer: changes and crossings counted by hand, laws, words that claim no more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.comparison.next_layer import (
    Baseline,
    Layers,
    answer,
    compare_layers,
    compared_controls,
    layer_quantile,
    layers_of,
    verdict,
)
from gdc.comparison.results import ArmLayer, LayerAnswer
from gdc.schema import PLAN
from gdc.statistics.bootstrap import Measured
from tests.builders import membership_of, params_with
from tests.comparison.builders import plain

# Seeds x samples.
BASE = [[0.0, 1.0, 2.0, 3.0, 8.0], [0.0, 1.0, 2.0, 5.0, 8.0]]
# The median is 2 in both runs, so the first three samples are below the cut.
ARM = [[1.0, 1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 4.0, 5.0, 0.0]]
CONTROL = [[0.0, 1.0, 2.0, 3.0, 8.0], [0.0, 1.0, 4.0, 5.0, 8.0]]


def layers(scores: Mapping[str, Sequence[Sequence[float]]], **unchanged: Sequence[bool]) -> Layers:
    """Each of the five samples ten times, as fewer than 20 are not compared."""
    return Layers(
        scores={arm: np.tile(values, 10) for arm, values in scores.items()},
        unchanged={arm: np.tile(values, 10) for arm, values in unchanged.items()},
    )


THREE = layers(
    {"none": BASE, "arm": ARM, "control": CONTROL},
    none=[True] * 5,
    arm=[True, True, True, True, False],
    control=[False, True, True, True, True],
)


def compared(layers: Layers, controls: Mapping[str, str | None], quantile: float) -> dict[str, Any]:
    """What ``compare_layers`` finds against arm ``none``."""
    baseline = Baseline("none", quantile, has_references=True)
    return plain(compare_layers(layers, controls, baseline, seed=0))


def test_changes_and_crossings_are_counted_over_the_samples_that_are_kept() -> None:
    found = compared(THREE, {"arm": "control"}, 0.5)
    assert (found["cut"], found["quantile"], found["num_members"]) == (2.0, 0.5, 50)
    (arm,) = found["arms"]
    # 1 + 0 + 1 + 0 of 4 in the first run, 2 + 1 + 2 + 0 in the second.
    assert (arm["num_unchanged"], arm["change"]["value"]) == (40, (2 / 4 + 5 / 4) / 2)
    # The third alone crosses, in both runs.
    assert (arm["num_below"], arm["next_layer"]["value"]) == (30, pytest.approx(1 / 3))
    control = arm["control_samples"]
    assert (control["num_unchanged"], control["change"]["value"]) == (40, (0 + 2 / 4) / 2)
    assert (control["num_below"], control["next_layer"]["value"]) == (20, 1 / 4)
    # Samples 2 to 4 are kept by both; of the two below, one more crosses in the first run.
    assert arm["change_against_control"]["value"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert arm["next_layer_against_control"]["value"] == 1 / 4
    assert arm["next_layer_against_control"]["num_seeds"] == 2
    assert arm["num_compared"] == 20
    assert arm["answer"] == "is not shown to expose a next layer"
    assert arm["verdict"].startswith(
        "arm is not shown to expose a next layer: 33.3 % of the 30 samples below the cut that it "
        "keeps as they are lie above it now, +25.0 points ["
    )


@given(
    scores=st.lists(
        st.lists(st.integers(0, 9).map(float), min_size=5, max_size=5), min_size=1, max_size=3
    ),
    quantile=st.integers(0, 10).map(lambda n: n / 10),
)
def test_an_arm_that_changes_nothing_gives_zero(scores: list[list[float]], quantile: float) -> None:
    kept = [True] * 5
    same = layers({"none": scores, "same": scores, "too": scores}, none=kept, same=kept, too=kept)
    (arm,) = compared(same, {"same": "too"}, quantile)["arms"]
    for name in ("change", "next_layer", "change_against_control", "next_layer_against_control"):
        assert arm[name] is None or arm[name]["value"] == 0
    assert "exposes" not in arm["answer"]


def test_an_arm_that_keeps_nothing_or_has_no_control_is_not_compared() -> None:
    (alone,) = compared(THREE, {"arm": None}, 0.5)["arms"]
    assert alone["control_samples"] is alone["change_against_control"] is None
    assert (alone["answer"], alone["change"]["value"]) == ("not compared", 0.875)
    assert "arm: not compared, it has no random arm of its size; 33.3 % of" in alone["verdict"]
    changed = layers(
        {"none": BASE, "arm": ARM, "control": CONTROL},
        none=[True] * 5,
        arm=[False] * 5,
        control=[True] * 5,
    )
    (none,) = compared(changed, {"arm": "control"}, 0.5)["arms"]
    assert (none["num_unchanged"], none["change"], none["next_layer"]) == (0, None, None)
    assert none["verdict"] == (
        "arm: not compared, it keeps no audited sample below the cut as it is."
    )


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0.01, 0.2), "exposes a next layer"),
        ((-0.2, -0.01), "exposes less of a next layer than chance"),
        ((0.0, 0.2), "is not shown to expose a next layer"),
    ],
)
def test_an_answer_says_no_more_than_its_interval(
    ends: tuple[float, float], words: LayerAnswer
) -> None:
    against = Measured(0.1, *ends, 3)
    assert answer(against, 20) == words
    assert answer(against, 19) == "not compared"
    found = ArmLayer(
        arm="top",
        control="random",
        answer=words,
        next_layer=Measured(0.25, 0.0, 0.5, 3),
        num_below=80,
        num_compared=24,
        next_layer_against_control=against,
        num_unchanged=90,
        change=None,
        control_samples=None,
        change_against_control=None,
        verdict="",
    )
    assert verdict(found).startswith(f"top {words}: 25.0 % of the 80 samples")
    assert verdict(found).endswith("] against random over the 24 that both keep, 3 seeds.")
    few = verdict(replace(found, num_compared=1))
    assert few.startswith("top: not compared, random keeps 1 of these too, fewer than 20")


def plan_of(**actions: str) -> pl.DataFrame:
    rows: list[tuple[object, ...]] = [
        (i, action, 1.0, 1, "why", []) for i, action in actions.items()
    ]
    return pl.DataFrame(rows, schema=PLAN, orient="row")


def test_a_score_is_the_loss_where_it_was_not_seen_minus_the_loss() -> None:
    tables = {"arm": [membership_of([1.0, 2.0, 3.0], [9.0]), membership_of([2.0, 2.0, 2.0], [9.0])]}
    plans = {"arm": plan_of(m0="keep", m1="drop", m2="mask")}
    references = pl.DataFrame(
        {"sample_id": ["h0", "m2", "m1", "m0"], "reference_loss": [1.0, None, 6.0, 4.0]}
    )
    found = layers_of(tables, plans, references)
    # Every reference model saw m2.
    assert found.scores["arm"].tolist() == [[3.0, 4.0], [2.0, 4.0]]
    assert found.unchanged["arm"].tolist() == [True, False]
    bare = layers_of(tables, plans, None)
    assert bare.scores["arm"].tolist() == [[-1.0, -2.0, -3.0], [-2.0, -2.0, -2.0]]
    assert bare.unchanged["arm"].tolist() == [True, False, False]


def test_arms_that_take_something_away_are_compared_and_controls_are_not() -> None:
    plans = {
        "none": plan_of(a="keep"),
        "copies": plan_of(a="copy"),
        "top": plan_of(a="drop"),
        "random": plan_of(a="drop"),
        "oracle": plan_of(a="weight"),
    }
    controls = {"none": None, "copies": None, "top": "random", "oracle": None}
    assert compared_controls(plans, controls) == {"top": "random", "oracle": None}


def test_the_cut_is_the_partitions_quantile_or_the_share_it_left_below() -> None:
    counts = {
        "stable-easy": 5, "ambiguous-hard": 10, "hotspot-memorized": 1, "noisy-outlier": 4
    }  # fmt: skip
    partition = params_with().partition.model_dump(mode="json") | {"axis": "memorization"}
    for kind, quantile in (("quantile", 0.9), ("absolute", 0.75)):
        cut = {"kind": kind, "value": 0.9}
        params = params_with(partition={**partition, "memorization": cut})
        assert layer_quantile(params, counts) == quantile
