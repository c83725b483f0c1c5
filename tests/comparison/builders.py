"""Results of arms made by hand; what a test does not name was not measured."""

from dataclasses import asdict, replace
from typing import Any

from gdc.comparison.results import (
    ArmAudits,
    ArmResult,
    CanaryLeakage,
    CanaryLevel,
    CanaryMeasures,
    OverSeeds,
    RocCurve,
    SampleLeakage,
    SuffixLeakage,
)
from gdc.statistics.bootstrap import Measured

NO_SUFFIX = SuffixLeakage(None, {})


def plain(result: Any) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """A result as nested dictionaries."""
    return asdict(result)


def measured(value: float, low: float, high: float, num_seeds: int = 3) -> Measured:
    return Measured(value, low, high, num_seeds)


def around(value: float) -> Measured:
    """From half the value to twice the value."""
    return Measured(value, value / 2, value * 2, 3)


def canary_measures(
    extracted: Measured | None = None, exposure: Measured | None = None
) -> CanaryMeasures:
    return CanaryMeasures(extracted, None, None, None, exposure, None, {}, {})


def level(num_repeats: int, extracted: float) -> CanaryLevel:
    return CanaryLevel("words", num_repeats, 9, around(extracted), None, None)


def sample_leakage(auc: Measured | None, attack: str = "loss") -> SampleLeakage:
    return SampleLeakage(auc, None, None, None, attack, NO_SUFFIX, NO_SUFFIX)


def arm_audits(
    extracted: Measured | None = None,
    auc: Measured | None = None,
    canaries: CanaryLeakage | None = None,
    **changes: Any,  # noqa: ANN401 - any field of it
) -> ArmAudits:
    """One arm's audits with these measures."""
    planted = canary_measures(extracted)
    samples = sample_leakage(auc)
    audits = ArmAudits(
        canaries=canaries or CanaryLeakage(planted, canary_measures(), 0, []),
        samples=samples,
        trained=samples,
        roc=RocCurve([], []),
        perplexity=around(10.0),
        random=None,
        extraction_change=None,
        extraction_against_random=None,
        exposure_change=None,
        auc_change=None,
        perplexity_ratio=None,
        perplexity_against_random=None,
        rare_perplexity_ratio=None,
        verdict="",
    )
    return replace(audits, **changes)


def arm_result(arm: str, num_changed: int = 7, num_dropped: int = 5) -> ArmResult:
    nothing = OverSeeds(None, {})
    return ArmResult(
        arm=arm,
        num_dropped=num_dropped,
        num_weighted=0,
        num_copied=0,
        num_changed=num_changed,
        num_masked=0,
        num_masked_tokens=0,
        num_rows=0,
        perplexity=nothing,
        extraction_rate=nothing,
        extraction={},
        perplexity_ratio=None,
        extraction_difference=None,
        summary="",
    )
