"""Which arm makes the curated data: by what is shown, and what is done where nothing is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gdc.comparison.curated_choice import choose_curated, remedies
from gdc.comparison.results import ArmAudits, CuratedChoice
from gdc.config import InterveneConfig
from tests.comparison.builders import arm_audits, arm_result, measured

RULES: Mapping[str, Any] = {
    "none": {"rule": "none"},
    "top": {
        "rule": "top-fraction", "score": "axis", "tie_break": "std", "fraction": 0.1, "weight": 0,
    },
    "dedup": {"rule": "dedup", "threshold": 0.7, "num_perm": 128, "shingle_chars": 5},
    "random": {"rule": "random", "fraction": 0.1, "weight": 0},
}  # fmt: skip
# Extraction against random and against none in points, perplexity against random as a ratio.
WORKS: Mapping[str, Any] = {
    "against": (-0.3, -0.5, -0.1),
    "change": (-0.3, -0.5, -0.1),
    "ratio": (0.99, 0.95, 1.02),
}


def audited(
    extracted: float = 0.0,
    against: tuple[float, float, float] | None = None,
    change: tuple[float, float, float] | None = None,
    ratio: tuple[float, float, float] | None = None,
    num_seeds: int = 3,
) -> ArmAudits:
    ends = {
        "extraction_against_random": against,
        "extraction_change": change,
        "perplexity_against_random": ratio,
    }
    changes: dict[str, Any] = {
        name: None if end is None else measured(*end, num_seeds) for name, end in ends.items()
    }
    return arm_audits(measured(extracted, extracted, extracted), random="random", **changes)


def chosen(
    audits: Mapping[str, ArmAudits],
    curated_arm: str = "auto",
    validated: tuple[str, ...] = ("std",),
) -> CuratedChoice:
    config = InterveneConfig.model_validate(
        {"curated_arm": curated_arm, "recommend": None, "arms": RULES}
    )
    arms = [arm_result(name, num_changed=len(name)) for name in RULES]
    return choose_curated(arms, audits, config, dict.fromkeys(validated, 3), "std")


def test_the_plan_that_is_shown_to_work_is_taken() -> None:
    top = replace(audited(**WORKS), rare_perplexity_ratio=measured(1.4, 1.1, 1.9, 3))
    choice = chosen({"none": audited(0.3), "top": top, "random": audited(0.3)})
    assert (choice.arm, choice.basis, choice.is_shown) == ("top", "evidence", True)
    assert choice.remedies == ()
    assert choice.sentence == (
        "Yes, on planted secrets: models trained on data/curated (the plan of arm top) give away "
        "0 % [0 %, 0 %] of them, those of arm random, which does the same to as many random "
        "samples, 30 %: -30.0 points [-50.0, -10.0]. Perplexity (lower is better) is x1.400 "
        "[1.100, 1.900] that of keeping all on rare text, x0.990 [0.950, 1.020] that of arm random "
        "(3 seeds)."
    )


def test_of_two_that_work_the_one_that_leaks_less_is_taken_and_of_equals_the_smaller() -> None:
    leaky = chosen({"top": audited(0.1, **WORKS), "dedup": audited(0.0, **WORKS)})
    equal = chosen({"top": audited(0.0, **WORKS), "dedup": audited(0.0, **WORKS)})
    assert (leaky.arm, equal.arm) == ("dedup", "top")


def test_without_canaries_a_random_arm_that_is_there_is_not_asked_for_again() -> None:
    ratio = measured(0.9, 0.8, 1.0)
    unmeasured = arm_audits(random="random", perplexity_against_random=ratio)
    assert remedies(["top"], {"top": unmeasured}) == ("plant canaries (ingest.canaries)",)


@pytest.mark.parametrize(
    ("audits", "remedy"),
    [
        pytest.param(
            {**WORKS, "against": (-0.3, -0.5, 0.0)},
            "use more seeds (now 3) or more canaries",
            id="the interval against random reaches nothing",
        ),
        pytest.param(
            {**WORKS, "ratio": (1.1, 1.001, 1.2)}, "try a smaller budget", id="perplexity is worse"
        ),
        pytest.param({**WORKS, "num_seeds": 2}, "raise retrain.seeds to at least 3", id="2 seeds"),
        pytest.param(
            {**WORKS, "against": None}, "retrain an arm that acts at random", id="no random arm"
        ),
    ],
)
def test_what_is_not_shown_is_named_unproven_with_what_would_decide_it(
    audits: Mapping[str, Any], remedy: str
) -> None:
    choice = chosen({"none": audited(0.3), "top": audited(**audits)})
    assert not choice.is_shown
    assert choice.sentence.startswith("No plan is shown to lower extraction")
    assert [remedy in found for found in choice.remedies].count(True) == 1


@pytest.mark.parametrize(
    ("audits", "validated", "arm", "trust"),
    [
        pytest.param(
            {"top": audited(0.1, change=(-0.2, -0.5, 0.1)), "dedup": audited(0.2)},
            ("std",), "top", "whose score is validated (std, by 3 memorized secrets planted here)",
            id="the least extraction",
        ),
        pytest.param(
            {"top": audited(0.1, change=(-0.2, -0.5, 0.1)), "dedup": audited(0.2)},
            (), "dedup", "that reads no score",
            id="a plan by a score that is not validated is left out",
        ),
        pytest.param(
            {"top": audited(0.1, change=(0.05, -0.1, 0.2)), "dedup": audited(0.2)},
            ("std",), "dedup", "that reads no score",
            id="a plan that leaks more on average is left out",
        ),
        pytest.param(
            {"top": audited(0.1, ratio=(1.1, 1.05, 1.2))},
            ("std",), "none", "there is: others cost, leak more or rest on an unproven score",
            id="a plan that costs perplexity is left out",
        ),
    ],
)  # fmt: skip
def test_with_none_shown_the_safest_validated_plan_is_taken(
    audits: Mapping[str, ArmAudits], validated: tuple[str, ...], arm: str, trust: str
) -> None:
    choice = chosen({"none": audited(0.3), **audits}, validated=validated)
    assert (choice.arm, choice.is_shown) == (arm, False)
    assert choice.sentence.endswith(f"made by arm {arm}, the safest plan {trust}.")


def test_a_named_arm_is_taken_and_judged() -> None:
    works = chosen({"top": audited(**WORKS)}, "top")
    assert (works.arm, works.basis, works.is_shown) == ("top", "params", True)
    fails = chosen({"top": audited(**WORKS)}, "dedup")
    assert (fails.arm, fails.basis, fails.is_shown) == ("dedup", "params", False)
    assert fails.sentence == (
        "Unproven: data/curated is by arm dedup (intervene.curated_arm), which was not evaluated."
    )
