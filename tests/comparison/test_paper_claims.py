"""The paper's claims against intervals made by hand."""

from dataclasses import replace

import pytest

from gdc.comparison.paper_claims import CLAIMS, check_claims, verdict
from gdc.comparison.results import ArmAudits
from tests.builders import params_with
from tests.comparison.builders import arm_audits, measured, plain


def arm_of(change: tuple[float, float, float], ratio: tuple[float, float, float]) -> ArmAudits:
    return arm_audits(
        extracted=measured(0.8, 0.7, 0.9),
        auc=measured(0.6, 0.55, 0.65),
        extraction_change=measured(*change),
        perplexity_ratio=measured(*ratio),
    )


def top(fraction: float, weight: float, score: str = "memorization") -> dict[str, object]:
    rule = {"rule": "top-fraction", "score": score, "tie_break": "final_loss"}
    return {**rule, "fraction": fraction, "weight": weight}


PARAMS = params_with(
    intervene={
        "curated_arm": "none",
        "recommend": None,
        "arms": {
            "none": {"rule": "none"},
            "five": top(0.05, 0.0),
            "half": top(0.2, 0.5),
            "other": top(0.05, 0.0, "final_loss"),
        },
    },
    retrain={"arms": ["none", "five", "half", "other"], "seeds": [1], "match": "steps"},
)
NONE = arm_of((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
AUDITS = {
    "none": NONE,
    # 0.8 - 0.56 = 0.24 is left of 0.8: 30 %, at most (0.8 - 0.52) / 0.8 = 35 %.
    "five": arm_of((-0.56, -0.6, -0.52), (1.02, 1.01, 1.03)),
    "half": arm_of((-0.1, -0.5, 0.1), (0.99, 0.97, 1.005)),
    "other": arm_of((-0.8, -0.8, -0.8), (1.0, 1.0, 1.0)),
}


def test_each_operating_point_is_judged_on_its_own_numbers() -> None:
    found = {(c.arm, c.claim): c for c in check_claims(AUDITS, PARAMS, "none")}
    assert {arm for arm, _ in found} == {"five", "half"}
    words = {claim.measure: claim.words for claim in CLAIMS if claim.fraction == 0.05}
    extraction, perplexity = (found["five", words[m]] for m in ("extraction", "perplexity"))
    assert plain(extraction.measured) == pytest.approx({"value": 0.3, "low": 0.25, "high": 0.35})
    assert extraction.verdict == "reproduced"
    assert perplexity.verdict == "not reproduced"
    words = {claim.measure: claim.words for claim in CLAIMS if claim.weight == 0.5}
    assert found["half", words["extraction"]].verdict == "not decided"
    assert found["half", words["perplexity"]].verdict == "reproduced"
    assert plain(found["half", words["auc"]].measured)["value"] == 1.0
    assert found["half", words["auc"]].verdict == "not reproduced"


def test_without_a_baseline_or_canaries_nothing_is_decided() -> None:
    assert check_claims(AUDITS, PARAMS, None) == []
    unmeasured = {**AUDITS, "five": replace(AUDITS["five"], extraction_change=None)}
    claim = next(c for c in check_claims(unmeasured, PARAMS, "none") if c.arm == "five")
    assert (claim.measured, claim.verdict) == (None, "not decided")


def test_the_end_of_an_interval_at_the_claim_agrees_with_it() -> None:
    claim = CLAIMS[0]
    assert verdict(claim, measured(0.3, 0.2, claim.most)) == "reproduced"
    assert verdict(claim, measured(0.5, claim.most, 0.6)) == "not decided"
