"""Plans and metrics of all arms -> what each changes and what its models do, seed by seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, geometric_mean

import polars as pl

from gdc.comparison.results import ArmResult, OverSeeds
from gdc.config import Arm, LiveArm, Params
from gdc.curation.plans import budget
from gdc.report.model import ArmMetrics
from gdc.report.tables import ReportTables
from gdc.statistics.wording import counted, number, percent


def arm_results(tables: ReportTables, params: Params, baseline: str | None) -> list[ArmResult]:
    """The arms in the order of ``retrain.arms``; ratios and differences are paired by seed."""
    arms = [_arm(arm, tables, params) for arm in params.retrain.arms]
    base = next((arm for arm in arms if arm.arm == baseline), None)
    compared = [arm if base is None else _compared(arm, base) for arm in arms]
    return [replace(arm, summary=_sentence(arm, base)) for arm in compared]


def _arm(arm: str, tables: ReportTables, params: Params) -> ArmResult:
    plan, seeds = tables.plans[arm], params.retrain.seeds
    action = plan["action"]
    is_changed = ~action.is_in(["keep", "live"])
    num_live = _num_live(params.intervene.rule_of(arm), len(action))
    runs = {seed: tables.metrics[arm, seed] for seed in seeds}
    known = [run.num_reweighted for run in runs.values() if run.num_reweighted is not None]
    num_reweighted = fmean(known) if known else None
    return ArmResult(
        arm=arm,
        num_dropped=int((action == "drop").sum()),
        num_weighted=int((action == "weight").sum()) + num_live,
        num_copied=int((action == "copy").sum()),
        num_changed=int(is_changed.sum())
        + (num_live if num_reweighted is None else round(num_reweighted)),
        num_masked=int((action == "mask").sum()),
        num_masked_tokens=runs[seeds[0]].num_masked_tokens,
        num_rows=int(plan["copies"].sum()),
        # The intervals beside it are of the mean loss, so the mean is that of the logarithms.
        perplexity=_over_seeds({s: run.perplexity for s, run in runs.items()}, geometric_mean),
        extraction_rate=_over_seeds({s: run.extraction_rate for s, run in runs.items()}, fmean),
        extraction=_mean_extraction(list(runs.values())),
        perplexity_ratio=None,
        extraction_difference=None,
        summary="",
        privacy_epsilon=max(
            (run.privacy_epsilon for run in runs.values() if run.privacy_epsilon is not None),
            default=None,
        ),
        num_reweighted=num_reweighted,
        num_planted_changed=_num_planted(plan.filter(is_changed), tables.corpus)
        + round(fmean(tables.planted_reweighted.get(arm, (0,)))),
    )


def _num_live(rule: Arm, num_samples: int) -> int:
    """Samples that an arm ``live`` weighs in each pass; which ones, each run decides itself."""
    return budget(rule.fraction, num_samples) if isinstance(rule, LiveArm) else 0


def _num_planted(rows: pl.DataFrame, corpus: pl.DataFrame) -> int:
    return rows.join(corpus.drop_nulls("canary_id"), on="sample_id", how="semi").height


def _over_seeds(
    values: Mapping[int, float | None], mean: Callable[[Sequence[float]], float]
) -> OverSeeds:
    known = [value for value in values.values() if value is not None]
    return OverSeeds(
        mean=mean(known) if len(known) == len(values) else None,
        per_seed={str(seed): value for seed, value in values.items()},
    )


def _mean_extraction(runs: Sequence[ArmMetrics]) -> dict[str, dict[str, float]]:
    return {
        family: {level: fmean(run.extraction[family][level] for run in runs) for level in levels}
        for family, levels in runs[0].extraction.items()
    }


def _compared(arm: ArmResult, base: ArmResult) -> ArmResult:
    """Add the ratio of perplexity and the difference of extraction, paired by seed."""
    perplexity = _pairs(arm.perplexity, base.perplexity)
    extraction = _pairs(arm.extraction_rate, base.extraction_rate)
    return replace(
        arm,
        perplexity_ratio=geometric_mean(mine / other for mine, other in perplexity),
        extraction_difference=fmean(mine - other for mine, other in extraction)
        if extraction
        else None,
    )


def _pairs(mine: OverSeeds, other: OverSeeds) -> list[tuple[float, float]]:
    """Both numbers of each seed; none where one was not measured for some seed."""
    pairs = [(value, other.per_seed[seed]) for seed, value in mine.per_seed.items()]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return known if len(known) == len(pairs) else []


def _sentence(arm: ArmResult, base: ArmResult | None) -> str:
    rate = arm.extraction_rate.mean
    seeds = f"mean of {counted(len(arm.perplexity.per_seed), 'seed')}"
    if base is None or arm.arm == base.arm:
        extraction = "not measured" if rate is None else percent(rate)
        return (
            f"{arm.arm}: extraction {extraction}, perplexity {number(arm.perplexity.mean)} "
            f"({seeds})"
        )
    ratio = f"perplexity x{arm.perplexity_ratio:.2f}"
    if rate is None:
        return f"{arm.arm}: extraction not measured, {ratio} (against {base.arm}, {seeds})"
    return (
        f"{arm.arm}: extraction {percent(base.extraction_rate.mean)} -> {percent(rate)} "
        f"({base.arm} -> {arm.arm}, {seeds}), {ratio}"
    )
