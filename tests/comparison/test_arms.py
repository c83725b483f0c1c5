"""Arms against each other: hand-made differences, words that claim no more, a planted leak."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from gdc.comparison.arms import AuditTables, compare_arms, equal_random_arm, rarest, verdict
from gdc.config import Params
from gdc.statistics.bootstrap import Measured
from tests.builders import audit_table, membership_of, params_with
from tests.comparison.builders import arm_audits, plain

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
        intervene={"curated_arm": "none", "recommend": None, "arms": ARMS},
        retrain={"arms": list(arms), "seeds": list(seeds), "match": "steps"},
    )


def audit_of(extracted: list[bool]) -> pl.DataFrame:
    rows = [{"canary_id": f"digits-4-{i}", "extracted": e} for i, e in enumerate(extracted)]
    twin = {
        "canary_id": "digits-0-0",
        "num_repeats": 0,
        "secret_nll": 9.0,
        "extracted": True,
        "edit_similarity": 0.25,
        "exposure": None,
    }
    return audit_table([*rows, twin])


LEAKY = [True] * 18 + [False] * 2
SAFE = [True] * 2 + [False] * 18


def audits_of(params: Params, **extracted: list[bool]) -> AuditTables:
    cells = [(arm, seed) for arm in params.retrain.arms for seed in params.retrain.seeds]
    return AuditTables(
        audits={(arm, seed): audit_of(extracted[arm]) for arm, seed in cells},
        memberships={
            (arm, seed): membership_of([0.5, 2.0], [2.0, 3.0 + (arm != "none")])
            for arm, seed in cells
        },
        rare=frozenset({"h1"}),
        trained={arm: frozenset({"m0"} if arm == "top" else {"m0", "m1"}) for arm in ARMS},
    )


def test_a_random_arm_pairs_with_an_arm_of_its_size_and_weight() -> None:
    params = params_of("none", "top", "random", "random-weighted")
    assert [equal_random_arm(arm, params) for arm in params.retrain.arms] == [
        None, "random", None, None,
    ]  # fmt: skip
    assert equal_random_arm("top", params_of("none", "top")) is None


def test_a_real_reduction_is_named_with_its_intervals() -> None:
    params = params_of("none", "top", "random")
    audits = audits_of(params, none=LEAKY, top=SAFE, random=LEAKY)
    compared = {arm: plain(found) for arm, found in compare_arms(audits, params).items()}
    top = compared["top"]
    assert top["canaries"]["planted"]["extracted"]["value"] == pytest.approx(0.1)
    assert top["canaries"]["twins"]["extracted"]["value"] == 1.0
    assert top["samples"]["auc"]["value"] == (2 + 1.5) / 4
    # Of the two members it trained on the first alone.
    assert top["trained"]["auc"]["value"] == 1.0
    assert top["auc_change"]["value"] == 0.0
    assert top["exposure_change"]["value"] == 0.0
    assert top["perplexity_against_random"]["value"] == 1.0
    assert top["extraction_change"]["value"] == pytest.approx(-0.8)
    assert top["extraction_change"]["high"] < 0
    # Held-out losses 2 and 3 + 1, against 2 and 3; the rare one is the second.
    assert top["perplexity"]["value"] == pytest.approx(np.exp(3.0))
    assert top["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert top["rare_perplexity_ratio"]["value"] == pytest.approx(np.exp(1.0))
    assert "top reduces extraction: -80.0 points [" in top["verdict"]
    assert "at perplexity x1.649 [" in top["verdict"]
    assert "], 3 seeds; better than random: yes (-80.0 points [" in top["verdict"]
    assert "random is not shown to change extraction" in compared["random"]["verdict"]
    assert compared["random"]["verdict"].endswith("; the random arm that top is compared with.")
    assert "arm that the others are compared with" in compared["none"]["verdict"]


def test_the_same_audits_gives_the_same_numbers() -> None:
    params = params_of("none", "top")
    audits = audits_of(params, none=LEAKY, top=SAFE)
    assert compare_arms(audits, params) == compare_arms(audits, params)


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
    audits = arm_audits(
        extraction_change=Measured(0.0, *change, 3),
        perplexity_ratio=Measured(1.0, 0.9, 1.1, 3),
        extraction_against_random=Measured(0.0, *against, 3),
    )
    sentence = verdict("top", replace(audits, random="random"), "none")
    assert sentence.startswith(f"top {words[0]} extraction")
    assert f"better than random: {words[1]} (" in sentence


def test_without_canaries_nothing_is_claimed() -> None:
    params = params_of("none", "top")
    audits = audits_of(params, none=[], top=[])
    compared = {arm: plain(found) for arm, found in compare_arms(audits, params).items()}
    assert compared["top"]["canaries"]["planted"]["extracted"] is None
    assert compared["top"]["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert compared["top"]["verdict"] == "top: not compared, extraction or a baseline is missing."


def test_a_shuffled_plan_is_the_control_of_its_arm() -> None:
    arms = {**ARMS, "dealt": {"rule": "shuffled", "of": "top"}}
    params = params_with(
        intervene={"curated_arm": "none", "recommend": None, "arms": arms},
        retrain={"arms": ["none", "top", "dealt"], "seeds": [1], "match": "steps"},
    )
    assert equal_random_arm("top", params) == "dealt"


def test_the_attack_is_chosen_on_the_models_that_saw_everything() -> None:
    params = params_of("none", "top")
    audits = audits_of(params, none=LEAKY, top=SAFE)
    # In arm `top` alone zlib is the strongest; in arm `none` Min-K is, on the other side of 0.5.
    changed = {
        (arm, seed): table.with_columns(
            zlib=pl.when("is_member").then(1.0).otherwise(0.0) * (arm == "top"),
            min_k=pl.when("is_member").then(0.0).otherwise(1.0) * (arm == "none"),
            min_k_plus_plus=0.0,
            loss=1.0,
        )
        for (arm, seed), table in audits.memberships.items()
    }
    compared = {
        arm: plain(found)
        for arm, found in compare_arms(replace(audits, memberships=changed), params).items()
    }
    assert {arm["samples"]["attack"] for arm in compared.values()} == {"min_k"}
    # Turned round, for members score lower there.
    assert compared["none"]["samples"]["auc"]["value"] == 1.0


def test_the_rarest_are_the_hardest_audited_texts_at_the_start() -> None:
    ids = [f"h{i}" for i in range(20)] + ["unaudited"]
    initial = pl.DataFrame({"sample_id": ids, "loss": [float(i) for i in range(21)]})
    membership = membership_of([1.0], [1.0] * 20)
    assert rarest(initial, membership) == {"h18", "h19"}
    assert rarest(initial.head(0), membership) == frozenset()
