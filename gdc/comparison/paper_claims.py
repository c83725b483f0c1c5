"""Audits of all arms -> which of the paper's claims hold here: yes, no, or not decided.

The claims are those of arXiv:2509.00083. What it leaves open (epsilon, sizes, repeats, whether a
change of AUC is relative) is said beside each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gdc.comparison.results import ArmAudits, CheckedClaim, ClaimVerdict
from gdc.config import Arm, Params, TopFractionArm
from gdc.statistics.bootstrap import Estimate


@dataclass(frozen=True)
class Claim:
    """An operating point of the paper and one number that it reports there.

    ``most`` is the largest value that agrees with it: of a share that is left of the baseline's
    extraction or AUC, or of a ratio of perplexities.
    """

    fraction: float | None  # of samples with the highest memorization; None: not stated
    weight: float  # 0 prunes
    measure: Literal["extraction", "auc", "perplexity"]
    most: float
    words: str


CLAIMS: Final = (
    Claim(
        0.05, 0.0, "extraction", 0.4,
        "LSTM, top 5 % pruned: canary extraction falls from 100 % to 40 %",
    ),
    Claim(0.05, 0.0, "perplexity", 1.005, "LSTM, top 5 % pruned: perplexity rises by 0.5 %"),
    Claim(
        0.10, 0.0, "extraction", 0.6,
        "abstract, 10 % pruned: canary extraction falls by more than 40 %",
    ),
    Claim(0.10, 0.0, "perplexity", 1.005, "abstract, 10 % pruned: perplexity rises by < 0.5 %"),
    Claim(
        None, 0.5, "extraction", 0.7,
        "GPT-2, weight 0.5 on high memorization: leakage falls by 30 %",
    ),
    Claim(
        None, 0.5, "auc", 0.85,
        "GPT-2, weight 0.5 on high memorization: membership AUC falls by 15 % (taken as relative)",
    ),
    Claim(
        None, 0.5, "perplexity", 1.01,
        "GPT-2, weight 0.5 on high memorization: perplexity rises by < 1 %",
    ),
)  # fmt: skip


def check_claims(
    arm_audits: Mapping[str, ArmAudits], params: Params, baseline: str | None
) -> list[CheckedClaim]:
    """Compare every arm that is an operating point of the paper with what the paper says of it.

    Args:
        arm_audits: What ``arms.compare_arms`` returns.
        params: The arms' rules.
        baseline: The arm that keeps everything; without it nothing can be said.

    Returns:
        For each claim and arm; decided only where the whole interval is on one side.
    """
    if baseline is None:
        return []
    return [
        CheckedClaim(
            claim=claim.words,
            arm=arm,
            paper=claim.most,
            measured=(measured := _measured(claim, arm_audits[arm], arm_audits[baseline])),
            verdict=verdict(claim, measured),
        )
        for claim in CLAIMS
        for arm in params.retrain.arms
        if _is_made_of(claim, params.intervene.arms[arm])
    ]


def verdict(claim: Claim, measured: Estimate | None) -> ClaimVerdict:
    """Decided where the whole interval is on one side of what the paper reports."""
    if measured is None:
        return "not decided"
    if measured.high <= claim.most:
        return "reproduced"
    return "not reproduced" if measured.low > claim.most else "not decided"


def _is_made_of(claim: Claim, arm: Arm) -> bool:
    return (
        isinstance(arm, TopFractionArm)
        and arm.score == "memorization"
        and arm.weight == claim.weight
        and claim.fraction in {None, arm.fraction}
    )


def _measured(claim: Claim, arm: ArmAudits, baseline: ArmAudits) -> Estimate | None:
    """The share that is left of the baseline's value; the baseline counts as known exactly."""
    if claim.measure == "perplexity":
        return _scaled(arm.perplexity_ratio, 0.0, 1.0)
    if claim.measure == "auc":
        return _scaled(arm.trained.auc, 0.0, _value(baseline.samples.auc))
    base = _value(baseline.canaries.planted.extracted)
    return _scaled(arm.extraction_change, base, base)


def _value(measured: Estimate | None) -> float:
    return 0.0 if measured is None else measured.value


def _scaled(measured: Estimate | None, shift: float, base: float) -> Estimate | None:
    if measured is None or not base:
        return None
    ends = ((end + shift) / base for end in (measured.value, measured.low, measured.high))
    return Estimate(*ends)
