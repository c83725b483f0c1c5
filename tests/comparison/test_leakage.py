"""Audit tables made by hand -> leakage with intervals; what is not measured is None."""

import numpy as np
import polars as pl
import pytest

from gdc.audit.attack_metrics import tpr_at_fpr
from gdc.comparison import leakage
from tests.builders import audit_table, membership_of
from tests.comparison.builders import plain

TWIN: dict[str, object] = {
    "num_repeats": 0, "secret_nll": 9.0, "secret_nll_shifted": 9.0, "extracted": False,
    "edit_similarity": 0.25, "exposure": None,
}  # fmt: skip


def test_canaries_stand_beside_their_twins() -> None:
    planted: list[dict[str, object]] = [{"extracted": True}, {"extracted": False, "num_repeats": 1}]
    found = plain(leakage.canary_leakage([audit_table([*planted, TWIN])] * 2, seed=0))
    assert found["planted"]["extracted"]["value"] == 0.5
    assert found["planted"]["exposure"]["value"] == 2.0
    assert found["planted"]["exposure_fitted"] is None
    assert found["twins"]["edit_similarity"]["value"] == 0.25
    assert found["twins"]["exposure"] is None
    levels = {row["num_repeats"]: row["extracted"]["value"] for row in found["levels"]}
    assert levels == {0: 0.0, 1: 0.0, 4: 1.0}


def test_the_curve_counts_secrets_that_n_samples_give_away() -> None:
    found = plain(leakage.canary_leakage([audit_table([{}, TWIN])], seed=0))
    planted, twins = (
        {n: share["value"] for n, share in found[kind]["discoverable"].items()}
        for kind in ("planted", "twins")
    )
    # exp(-1) > 1 - 0.5^(1/n) from n = 10 on; exp(-9) from n = 10,000 on.
    assert planted == {"1": 0.0, "10": 1.0, "100": 1.0, "1000": 1.0, "10000": 1.0}
    assert twins == {"1": 0.0, "10": 0.0, "100": 0.0, "1000": 0.0, "10000": 1.0}


def test_without_planted_canaries_nothing_is_measured() -> None:
    found = plain(leakage.canary_leakage([audit_table([TWIN])], seed=0))
    assert found["planted"]["extracted"] is None
    assert set(found["planted"]["discoverable"].values()) == {None}
    assert plain(leakage.canary_leakage([audit_table([])], seed=0))["levels"] == []


def test_members_that_are_known_stand_out_of_heldout_texts() -> None:
    table = membership_of([0.5] * 40, [2.0] * 100)
    found = plain(leakage.sample_leakage([table] * 2, leakage.Attack("loss"), seed=0))
    assert (found["auc"]["value"], found["tpr_at_1_percent_fpr"]["value"]) == (1.0, 1.0)
    # A hundred held-out texts cannot show one in a thousand.
    assert found["tpr_at_01_percent_fpr"] is None
    assert found["members"]["extracted"]["value"] == 1.0
    assert found["heldout"]["extracted"]["value"] == 0.0
    # Half of the texts of each side choose the threshold, 20 of 20 against 0 of 50 bound epsilon.
    assert 1.0 < found["epsilon_bound"] < np.log(50)


def test_a_blind_baseline_that_tells_them_apart_is_named() -> None:
    table = membership_of([1.0] * 50, [1.0] * 50)
    found = plain(leakage.all_attacks([table], seed=0))
    assert {name: m["auc"]["value"] for name, m in found["blind"].items()} == {
        "length": 0.5, "zlib_size": 0.5,
    }  # fmt: skip
    assert list(found["attacks"]) == ["loss", "zlib", "min_k", "min_k_plus_plus"]
    assert found["blind_leaks"] == []
    longer = table.with_columns(length=pl.when("is_member").then(9.0).otherwise(5.0))
    found = plain(leakage.all_attacks([longer], seed=0))
    assert found["blind"]["length"]["auc"]["value"] == 1.0
    assert found["blind_leaks"] == ["length"]


def test_an_attack_far_below_one_half_is_as_strong_as_one_far_above() -> None:
    table = membership_of([2.0, 2.0], [0.5, 2.0]).with_columns(zlib=0.0, min_k_plus_plus=0.0)
    turned = table.with_columns(min_k=pl.when("is_member").then(0.0).otherwise(1.0))
    attack = leakage.strongest_attack([turned])
    assert attack == leakage.Attack("min_k", is_turned=True)
    assert plain(leakage.sample_leakage([turned], attack, seed=0))["auc"]["value"] == 1.0
    below = leakage.strongest_attack([table.with_columns(min_k=0.0)])
    assert below == leakage.Attack("loss", is_turned=True)


def test_the_roc_curve_has_the_mean_rate_of_the_seeds_from_one_heldout_text_on() -> None:
    tables = [
        membership_of([0.5, 1.5, 2.5, 9.0], [1.0, 2.0, 3.0, 4.0]),
        membership_of([0.5, 0.6, 0.7, 2.5], [1.0, 2.0, 3.0, 4.0]),
    ]
    curve = leakage.roc_curve(tables, leakage.Attack("loss"))
    assert (curve.fpr[0], curve.fpr[-1], curve.tpr[-1]) == (0.25, 1.0, 1.0)
    rates = dict(zip(curve.fpr, curve.tpr, strict=True))
    # With one false positive: losses below 2, two of four and three of four.
    assert rates[0.25] == (2 / 4 + 3 / 4) / 2
    scores = leakage.scores_of(tables, leakage.Attack("loss"))
    assert curve.tpr == [
        np.mean([tpr_at_fpr(*pair, rate) for pair in scores]) for rate in curve.fpr
    ]


def test_the_leaky_group_stands_out() -> None:
    scored = pl.DataFrame(
        {
            "sample_id": ["m0", "m1"],
            "quadrant": ["hotspot-memorized", "stable-easy"],
            "memorization": [0.5, 0.0],
        }
    )
    tables = [membership_of([0.5, 2.0], [2.0, 3.0])] * 2
    groups = plain(leakage.leakage_by_group(tables, scored, "memorization", seed=0))
    hotspots = groups["quadrants"]["hotspot-memorized"]
    assert hotspots["num_members"] == 1
    assert (hotspots["auc"]["value"], hotspots["extracted"]["value"]) == (1.0, 1.0)
    assert groups["quadrants"]["stable-easy"]["auc"]["value"] == (0.5 + 1) / 2
    assert groups["quadrants"]["noisy-outlier"]["auc"] is None
    assert groups["attack"] == "loss"
    # Two samples: the middle of the lower half, and of the upper one.
    assert {name for name, group in groups["deciles"].items() if group["num_members"]} == {"3", "8"}
    alike = plain(
        leakage.leakage_by_group(
            tables, scored.with_columns(memorization=0.0), "memorization", seed=0
        )
    )
    assert [n for n, group in alike["deciles"].items() if group["num_members"]] == ["6"]
    backwards = plain(leakage.leakage_by_group(tables, scored[::-1], "memorization", seed=0))
    assert backwards == groups


@pytest.mark.parametrize("seed", [0, 1])
def test_every_interval_of_a_model_that_memorized_nothing_holds_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = [membership_of(*rng.normal(3, 1, size=(2, 300)).tolist()) for _ in range(3)]
    found = plain(leakage.sample_leakage(tables, leakage.Attack("loss"), seed=0))
    assert found["auc"]["low"] < 0.5 < found["auc"]["high"]
    assert found["epsilon_bound"] < 0.5
