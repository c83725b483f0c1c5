"""Arms against each other: hand-made differences, words that claim no more, a planted leak."""

import numpy as np
import polars as pl
import pytest

from gdc.bootstrap import Interval
from gdc.comparison import Evidence, by_group, compare_arms, equal_random_arm, verdict
from gdc.config import Params
from gdc.schema import AUDIT, MEMBERSHIP
from tests.builders import params_with

ARMS = {
    "none": {"rule": "none"},
    "top": {
        "rule": "top-fraction",
        "score": "memorization",
        "tie_break": "final_loss",
        "fraction": 0.1,
        "weight": 0.0,
    },
    "random": {"rule": "random", "fraction": 0.1, "weight": 0.0},
    "random-weighted": {"rule": "random", "fraction": 0.1, "weight": 0.5},
}


def params_of(*arms: str, seeds: tuple[int, ...] = (1, 2, 3)) -> Params:
    return params_with(
        intervene={"curated_arm": "none", "arms": ARMS},
        retrain={"arms": list(arms), "seeds": list(seeds), "match": "steps"},
    )


def audit_of(extracted: list[bool]) -> pl.DataFrame:
    rows = [
        (f"digits-4-{i}", "digits", 4, 3, 1.0, e, False, 0.5, 0.5, 2.0)
        for i, e in enumerate(extracted)
    ]
    twin = ("digits-0-0", "digits", 0, 3, 9.0, True, False, 0.25, 0.5, None)
    return pl.DataFrame([*rows, twin], schema=AUDIT, orient="row")


def membership_of(members: list[float], heldout: list[float]) -> pl.DataFrame:
    rows = [(f"m{i}", True, 2, loss, 1, 1.0, loss < 1) for i, loss in enumerate(members)]
    rows += [(f"h{i}", False, 2, loss, 1, 1.0, False) for i, loss in enumerate(heldout)]
    table = pl.DataFrame(rows, schema=MEMBERSHIP, orient="row")
    score = -pl.col("loss")
    return table.with_columns(zlib=score, min_k=score, min_k_plus_plus=score)


LEAKY = [True] * 18 + [False] * 2
SAFE = [True] * 2 + [False] * 18


def evidence_of(params: Params, **extracted: list[bool]) -> Evidence:
    cells = [(arm, seed) for arm in params.retrain.arms for seed in params.retrain.seeds]
    return Evidence(
        audits={(arm, seed): audit_of(extracted[arm]) for arm, seed in cells},
        memberships={
            (arm, seed): membership_of([0.5, 2.0], [2.0, 3.0 + (arm != "none")])
            for arm, seed in cells
        },
    )


def test_a_random_arm_pairs_with_an_arm_of_its_size_and_weight() -> None:
    params = params_of("none", "top", "random", "random-weighted")
    assert [equal_random_arm(arm, params) for arm in params.retrain.arms] == [
        None, "random", None, None,
    ]  # fmt: skip
    assert equal_random_arm("top", params_of("none", "top")) is None


def test_a_real_reduction_is_named_with_its_intervals() -> None:
    params = params_of("none", "top", "random")
    evidence = evidence_of(params, none=LEAKY, top=SAFE, random=LEAKY)
    compared = compare_arms(evidence, params, "none")
    top = compared["top"]
    assert top["extraction"]["value"] == pytest.approx(0.1)
    assert top["extraction_change"]["value"] == pytest.approx(-0.8)
    assert top["extraction_change"]["high"] < 0
    assert top["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert top["exposure"]["value"] == 2.0
    # exp(-1) > 1 - 0.5^(1/n) from n = 10 on; exp(-9) from n = 10,000 on.
    assert top["discoverable"] == {"1": 0.0, "10": 1.0, "100": 1.0, "1000": 1.0, "10000": 1.0}
    assert top["floor"] == {
        "extraction": 1.0,
        "edit_similarity": 0.25,
        "discoverable": {"1": 0.0, "10": 0.0, "100": 0.0, "1000": 0.0, "10000": 1.0},
    }
    assert top["auc"]["value"] == (2 + 1.5) / 4
    assert "top reduces extraction: -80.0 points [" in top["verdict"]
    assert "at perplexity x1.649 [" in top["verdict"]
    assert "; better than random: yes (-80.0 points [" in top["verdict"]
    assert "random is not shown to change extraction" in compared["random"]["verdict"]
    assert "arm that the others are compared with" in compared["none"]["verdict"]


def test_the_same_evidence_gives_the_same_numbers() -> None:
    params = params_of("none", "top")
    evidence = evidence_of(params, none=LEAKY, top=SAFE)
    assert compare_arms(evidence, params, "none") == compare_arms(evidence, params, "none")


@pytest.mark.parametrize(
    ("change", "against", "words"),
    [
        pytest.param((-0.2, -0.1), (-0.1, 0.1), ("reduces", "not shown"), id="like random"),
        pytest.param((0.1, 0.2), (0.05, 0.2), ("raises", "no, worse"), id="worse"),
        pytest.param((-0.2, 0.1), (-0.3, -0.1), ("is not shown to change", "yes"), id="unclear"),
    ],
)
def test_a_verdict_says_no_more_than_its_intervals(
    change: tuple[float, float], against: tuple[float, float], words: tuple[str, str]
) -> None:
    values = {
        "extraction_change": Interval(0.0, *change, 3),
        "perplexity_ratio": Interval(1.0, 0.9, 1.1, 3),
        "extraction_against_random": Interval(0.0, *against, 3),
        "random": "random",
    }
    sentence = verdict("top", values, "none")
    assert sentence.startswith(f"top {words[0]} extraction")
    assert f"better than random: {words[1]} (" in sentence


def test_without_canaries_nothing_is_claimed() -> None:
    params = params_of("none", "top")
    evidence = evidence_of(params, none=[], top=[])
    compared = compare_arms(evidence, params, "none")
    assert compared["top"]["extraction"] is None
    assert compared["top"]["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert compared["top"]["verdict"] == "top: not compared, extraction or a baseline is missing."


def test_the_leaky_group_stands_out() -> None:
    params = params_of("none", seeds=(1, 2))
    evidence = evidence_of(params, none=LEAKY)
    scored = pl.DataFrame(
        {
            "sample_id": ["m0", "m1"],
            "quadrant": ["hotspot-memorized", "stable-easy"],
            "memorization": [0.5, 0.0],
        }
    )
    groups = by_group(evidence, "none", scored, "memorization")
    assert groups["quadrants"]["hotspot-memorized"] == {
        "num_members": 1, "auc": 1.0, "suffix_extraction": 1.0,
    }  # fmt: skip
    assert groups["quadrants"]["stable-easy"]["auc"] == (0.5 + 1) / 2
    assert groups["quadrants"]["noisy-outlier"]["auc"] is None
    assert {name for name, group in groups["deciles"].items() if group["num_members"]} == {"1", "6"}
