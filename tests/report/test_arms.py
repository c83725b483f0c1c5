"""Arms against each other, seed by seed, counted by hand."""

from dataclasses import replace

import polars as pl
import pytest

from gdc.config import LiveArm, ShuffledArm
from gdc.report.arms import arm_results
from tests.report.builders import (
    ORDINARY,
    page_of,
    params_of,
    plan_of,
    report_of,
    tables_of,
)


def test_arms_are_compared_seed_by_seed_and_then_averaged() -> None:
    none, paper = report_of(tables_of(), params_of())["arms"]
    per_seed = {"1": 40.0, "2": 80.0}
    assert none["perplexity"] == {"mean": pytest.approx(3200**0.5), "per_seed": per_seed}
    assert none["extraction_rate"] == {"mean": 0.375, "per_seed": {"1": 0.5, "2": 0.25}}
    assert (none["perplexity_ratio"], none["extraction_difference"]) == (1.0, 0.0)
    # 50/40 and 60/80: the ratio of the means would be 55/60.
    assert paper["perplexity_ratio"] == pytest.approx((1.25 * 0.75) ** 0.5)
    assert paper["extraction_difference"] == (-0.25 + 0.0) / 2
    assert paper["extraction"] == {"digits": {"0": 0.0, "2": 0.25}}
    assert paper["summary"] == (
        "paper: extraction 37.5 % -> 25 % (none -> paper, mean of 2 seeds), perplexity x0.97"
    )


def test_a_plan_is_counted_by_its_actions() -> None:
    built = report_of(tables_of(), params_of())
    counts = ("num_dropped", "num_weighted", "num_copied", "num_rows")
    assert [[arm[name] for name in counts] for arm in built["arms"]] == [[0, 0, 0, 8], [1, 2, 0, 7]]
    assert built["curated"]["actions"] == {"keep": 3, "weight": 2, "copy": 0, "mask": 0, "drop": 1}
    assert built["curated"]["planted"] == {"keep": 2, "weight": 0, "copy": 0, "mask": 0, "drop": 0}
    assert built["curated"]["by_quadrant"]["hotspot-memorized"] == {
        "keep": 1,
        "weight": 2,
        "copy": 0,
        "mask": 0,
        "drop": 0,
    }


def test_the_page_says_how_many_of_the_changed_rows_are_planted() -> None:
    tables = tables_of()
    plan = plan_of(tables.scores["sample_id"].to_list(), g="drop", f="weight")
    dropping = replace(tables, plans={**tables.plans, "paper": plan})
    built = report_of(dropping, params_of())
    assert [arm["num_planted_changed"] for arm in built["arms"]] == [0, 2]
    assert page_of(dropping, params_of()).count("2 of them planted<br>") == 1


@pytest.mark.parametrize("arm", ["live", "live-shuffled"])
def test_an_arm_that_picks_as_it_trains_counts_what_it_weighs_in_a_pass(arm: str) -> None:
    params = params_of()
    arms = {
        **params.intervene.arms,
        "live": LiveArm(rule="live", fraction=0.4, weight=0.5),
        "live-shuffled": ShuffledArm(rule="shuffled", of="live"),
    }
    tables = tables_of()
    chosen = params.model_copy(
        update={
            "intervene": params.intervene.model_copy(update={"arms": arms}),
            "retrain": params.retrain.model_copy(update={"arms": ("none", arm)}),
        }
    )
    plan = tables.plans["none"].with_columns(action=pl.lit("live"))
    metrics = {(name, s): m for (_, s), m in tables.metrics.items() for name in ("none", arm)}
    picking = replace(tables, plans={**tables.plans, arm: plan}, metrics=metrics)
    found = arm_results(picking, chosen, "none")[1]
    # 40 % of 8 samples, rounded.
    assert (found.num_changed, found.num_weighted, found.num_dropped) == (3, 3, 0)

    # One more in a later pass with seed 1, three with seed 2.
    known = {
        (name, seed): m.model_copy(update={"num_reweighted": 2 + 2 * seed if name == arm else None})
        for (name, seed), m in metrics.items()
    }
    # Of them one was planted with seed 1, both with seed 2.
    recorded = replace(picking, metrics=known, planted_reweighted={arm: (1, 2)})
    none, found = arm_results(recorded, chosen, "none")
    assert (found.num_changed, found.num_weighted, found.num_reweighted) == (5, 3, 5.0)
    assert (none.num_changed, none.num_reweighted) == (0, None)
    # The plan alone, in which all samples may be picked, would say none or all.
    assert (none.num_planted_changed, found.num_planted_changed) == (0, 2)
    page = page_of(recorded, chosen)
    assert "3 weighted at a time<br>" in page
    assert page.count("<br>5 weighted in some pass, 2 of them planted, mean of seeds") == 1
    assert page.count("of them planted") == 1


def test_a_private_arm_shows_its_epsilon() -> None:
    tables = tables_of()
    metrics = {
        (arm, seed): values.model_copy(
            update={"privacy_epsilon": 7.5 + seed} if arm == "paper" else {}
        )
        for (arm, seed), values in tables.metrics.items()
    }
    private = replace(tables, metrics=metrics)
    largest = max(arm_and_seed[1] for arm_and_seed in metrics) + 7.5
    built = report_of(private, params_of())
    assert [arm["privacy_epsilon"] for arm in built["arms"]] == [None, largest]
    assert page_of(private, params_of()).count(f"<br>epsilon {largest:g}") == 1


def test_masked_samples_and_tokens_are_counted() -> None:
    tables = tables_of()
    ids = tables.scores["sample_id"].to_list()
    metrics = {
        (arm, seed): values.model_copy(update={"num_masked_tokens": 1234 if arm == "paper" else 0})
        for (arm, seed), values in tables.metrics.items()
    }
    plans = {**tables.plans, "paper": plan_of(ids, c="mask", d="mask")}
    masking = replace(tables, metrics=metrics, plans=plans)
    built = report_of(masking, params_of())
    assert [(arm["num_masked"], arm["num_masked_tokens"]) for arm in built["arms"]] == [
        (0, 0), (2, 1234)
    ]  # fmt: skip
    assert "masks spans of 2 and leaves 4 as they are." in built["summary"][2]
    assert not any("changes no sample" in warning for warning in built["warnings"])
    page = page_of(masking, params_of())
    assert "2 masked<br>" in page
    assert "1,234 tokens without loss" in page


def test_arms_keep_the_order_of_the_parameters() -> None:
    built = report_of(tables_of(), params_of(arms=["paper", "none"]))
    assert [arm["arm"] for arm in built["arms"]] == ["paper", "none"]
    assert built["baseline"] == "none"


def test_without_a_keeping_arm_nothing_is_compared() -> None:
    built = report_of(tables_of(), params_of(arms=["paper"]))
    (paper,) = built["arms"]
    assert (built["baseline"], paper["perplexity_ratio"]) == (None, None)
    assert paper["summary"] == "paper: extraction 25 %, perplexity 54.77 (mean of 2 seeds)"
    assert built["comparison"].startswith("No retrained arm keeps everything")


def test_without_canaries_extraction_is_unknown_and_not_zero() -> None:
    tables = tables_of(ORDINARY)
    built = report_of(tables, params_of())
    paper = built["arms"][1]
    assert built["canaries_by_quadrant"] == {}
    assert paper["extraction_rate"] == {"mean": None, "per_seed": {"1": None, "2": None}}
    assert (paper["extraction"], paper["extraction_difference"]) == ({}, None)
    assert paper["summary"] == (
        "paper: extraction not measured, perplexity x0.97 (against none, mean of 2 seeds)"
    )
    assert "No canary is planted, so extraction is not measured." in built["warnings"]
    assert "Extraction by family" not in page_of(tables, params_of())


def test_without_canaries_a_target_is_not_answered() -> None:
    target = {"max_extraction": 0.5, "max_perplexity_increase": 5.0}
    params = params_of(target=target)
    built = report_of(tables_of(ORDINARY), params)
    assert (built["pareto_front"], built["recommendation"]["verdict"]) == ([], "not measured")
    assert built["recommendation"]["sentence"] in page_of(tables_of(ORDINARY), params).replace(
        "&#39;", "'"
    )
    assert "Leakage against perplexity" not in page_of(tables_of(), params_of())
