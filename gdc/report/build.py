"""All tables -> the report: of a run, or of the audit of one model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from gdc.comparison import leakage
from gdc.comparison.arms import baseline_arm, queried_arm
from gdc.comparison.curated_choice import choose_curated
from gdc.comparison.leakage import Attack
from gdc.comparison.paper_claims import check_claims
from gdc.comparison.pareto_front import pareto_front
from gdc.comparison.recommendation import recommend
from gdc.comparison.results import ArmResult, CuratedChoice, ModelLeakage
from gdc.config import Params
from gdc.filesystem.json_values import JsonObject
from gdc.mapping.profile import Profile
from gdc.mapping.score_cards import Calibration
from gdc.report import samples, sentences
from gdc.report.arms import arm_results
from gdc.report.model import (
    AuditReport,
    AuditSettings,
    CalibrationInUse,
    CorpusCounts,
    LeakedSample,
    MemorizationOverTime,
    Report,
    ReportSettings,
)
from gdc.report.page_data import PageFrame
from gdc.report.plots import POINTS, MapFrame
from gdc.report.sample_table import revising_seeds
from gdc.report.tables import ReportTables

# The name of the one model that `gdc audit` looks at, in place of an arm's.
MODEL: Final = "model"


def build_report(tables: ReportTables, params: Params) -> Report:
    """Gather every number and sentence of the report.

    Args:
        tables: The tables of one workspace.
        params: Its parameters; only the sections of ``ReportSettings`` are read.

    Raises:
        DataError: The tables hold different samples.
    """
    scored = tables.scored_samples
    baseline, target = baseline_arm(params), params.intervene.recommend
    arms = arm_results(tables, params, baseline)
    front = pareto_front(arms, tables.arm_audits, params.intervene.arms, baseline)
    corpus = samples.count_corpus(tables)
    quadrants = tables.quadrants_summary
    calibration = _explained_axis(tables, params)
    choice = _chosen(tables, params, arms)
    curated = samples.count_curated(scored, tables.plans, choice.arm)
    warnings = _warnings(tables, params, corpus, calibration, arms)
    return Report(
        corpus=corpus,
        scores=tables.scores_summary,
        quadrants=quadrants,
        definitions=sentences.define_quadrants(quadrants),
        memorized=samples.count_memorized(scored, tables.gaps),
        hotspots=samples.list_hotspots(tables, params),
        causes=samples.count_causes(scored),
        calibration=calibration,
        secrets=samples.list_secrets(tables, params),
        copies=samples.list_copies(tables, params),
        spans=tables.spans_summary,
        canaries_by_quadrant=samples.count_canaries(scored),
        choice=choice,
        curated=curated,
        baseline=baseline,
        queried=queried_arm(params),
        arms=arms,
        arm_audits=dict(tables.arm_audits),
        groups=tables.groups,
        attacks=tables.attacks,
        next_layer=tables.next_layer,
        profiles=[_over_time(name, profile) for name, profile in tables.profiles.items()],
        num_leaked=tables.leaked.height,
        leaked_samples=samples.list_leaked(tables, params),
        paper_claims=check_claims(tables.arm_audits, params, baseline) if tables.arm_audits else [],
        pareto_front=front,
        recommendation=None if target is None else recommend(front, target),
        comparison=sentences.explain_comparison(len(params.retrain.seeds), baseline),
        summary=sentences.summarize(corpus, tables.scores_summary, quadrants, curated),
        warnings=list(dict.fromkeys(warnings)),
        settings=ReportSettings.from_params(params),
    )


def _over_time(name: str, profile: Profile) -> MemorizationOverTime:
    return MemorizationOverTime(
        samples=name,
        num_texts=profile.num_texts,
        before=profile.pre_trend,
        instantaneous=profile.instantaneous,
        residual=profile.residual,
    )


def validated_scores(calibration: Calibration | None) -> dict[str, int]:
    """The scores that are shown to predict memorization here, by how many memorized secrets."""
    if calibration is None:
        return {}
    return {
        card.score: calibration.num_memorized
        for card in calibration.cards
        if card.verdict == "predicts memorization here"
    }


def _chosen(tables: ReportTables, params: Params, arms: Sequence[ArmResult]) -> CuratedChoice:
    validated = validated_scores(tables.calibration)
    axis = tables.quadrants_summary.axis
    return choose_curated(arms, tables.arm_audits, params.intervene, validated, axis)


def _warnings(
    tables: ReportTables,
    params: Params,
    corpus: CorpusCounts,
    calibration: CalibrationInUse | None,
    arms: Sequence[ArmResult],
) -> tuple[str, ...]:
    return (
        *sentences.stage_warnings(tables),
        *sentences.data_warnings(corpus, tables.quadrants_summary, calibration, params),
        *sentences.arm_warnings(arms, baseline_arm(params)),
        *sentences.audit_warnings(tables.arm_audits, tables.attacks),
    )


def _explained_axis(tables: ReportTables, params: Params) -> CalibrationInUse | None:
    if tables.calibration is None:
        return None
    return sentences.explain_axis(tables.calibration, tables.quadrants_summary.axis, params)


@dataclass(frozen=True)
class AuditTables:
    """The audit of one model: its name, ``AUDIT`` and ``MEMBERSHIP`` tables, and the attack."""

    model: str
    canaries: pl.DataFrame
    membership: pl.DataFrame
    attack: Attack
    sources: pl.DataFrame  # ``sample_id`` and ``source`` of the training texts
    has_heldout: bool


def build_audit(
    tables: AuditTables,
    summary: Sequence[str],
    warnings: Sequence[str],
    settings: AuditSettings,
) -> AuditReport:
    """Gather every number and sentence of the audit of one model.

    Args:
        tables: What was measured.
        summary: Sentences on what was read.
        warnings: Sentences to stand behind those on the numbers.
        settings: The options.
    """
    memberships, seed = [tables.membership], settings.seed
    audits = ModelLeakage(
        canaries=leakage.canary_leakage([tables.canaries], seed=seed),
        samples=leakage.sample_leakage(memberships, tables.attack, seed=seed),
    )
    attacks = leakage.all_attacks(memberships, seed=seed)
    leaked = leakage.verbatim_samples(memberships)
    rows = leaked.join(tables.sources, on="sample_id", maintain_order="left")
    no_floor = (
        "No held-out text was given (--heldout): membership is not measured, and extraction "
        "of training samples has no floor to compare with."
    )
    return AuditReport(
        model=tables.model,
        queried=MODEL,
        arm_audits={MODEL: audits},
        attacks=attacks,
        num_leaked=leaked.height,
        leaked_samples=[LeakedSample.model_validate(row) for row in rows.to_dicts()],
        summary=list(summary),
        warnings=[
            *sentences.audit_warnings({MODEL: audits}, attacks),
            *([] if tables.has_heldout else [no_floor]),
            *warnings,
        ],
        settings=settings,
    )


def settings(params: Params) -> JsonObject:
    """The sections of ``params.yaml`` that the report reads, as plain values."""
    return ReportSettings.from_params(params).model_dump(mode="json")


def map_points(tables: ReportTables) -> pl.DataFrame:
    """The ``POINTS`` of the data map: every scored sample, planted canaries included."""
    return tables.scored_samples.select(POINTS.names())


def map_frame(report: Report) -> MapFrame:
    """The axes and thresholds of the data map."""
    return MapFrame(
        axis=report.quadrants.axis,
        num_early=report.scores.num_early,
        difficulty_threshold=report.quadrants.difficulty_threshold,
        memorization_threshold=report.quadrants.memorization_threshold,
        max_points=report.settings.report.max_points,
    )


def page_frame(report: Report, params: Params) -> PageFrame:
    """What the page needs beside the samples."""
    num_early, shown = report.scores.num_early, report.settings.report
    return PageFrame.of(report.quadrants, num_early, revising_seeds(params), shown)
