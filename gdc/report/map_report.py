"""The tables of a map without arms -> its report, its page and its samples in rank order."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from gdc.config import Params, PartitionConfig, ReportConfig, ScoreConfig, SpansConfig
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.spans import SpansSummary
from gdc.recording.trace import Trace
from gdc.report import page, samples, sentences
from gdc.report.curves import sample_curves
from gdc.report.model import (
    SCHEMA_VERSION,
    ByQuadrant,
    CalibrationInUse,
    CauseCount,
    Hotspot,
    ListedTexts,
    Record,
)
from gdc.report.page_data import PageFrame, page_data
from gdc.report.tables import ReportTables
from gdc.scores.summary import ScoresSummary
from gdc.statistics.wording import counted, number


class MapSettings(Record):
    """The sections of the parameters that a map reads."""

    partition: PartitionConfig
    report: ReportConfig
    score: ScoreConfig
    spans: SpansConfig


class RankedSample(Record):
    """One of the ordinary samples that are highest on the axis, the highest first."""

    sample_id: str
    source: str
    quadrant: str
    score: float
    cause: str
    text: str | None


class MapReport(Record):
    """The report of `gdc map` with texts; its fields are those of ``Report``.

    ``highest`` are the ordinary samples that are highest on the axis, above the threshold or not.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    scores: ScoresSummary
    quadrants: QuadrantsSummary
    definitions: ByQuadrant[str]
    highest: list[RankedSample]
    hotspots: list[Hotspot]
    causes: list[CauseCount]
    calibration: CalibrationInUse | None
    secrets: ListedTexts
    copies: ListedTexts
    spans: SpansSummary
    canaries_by_quadrant: dict[str, dict[str, int]]
    summary: list[str]
    warnings: list[str]
    settings: MapSettings


def build_map_report(
    tables: ReportTables, ranked: pl.DataFrame, params: Params, warnings: Sequence[str]
) -> MapReport:
    """Gather every number and sentence of the map of one trace with its texts.

    Args:
        tables: Without plans and audits.
        ranked: What ``rank_samples`` returns for them.
        params: Their rules; the axis is a score.
        warnings: Sentences to stand before those on the numbers.

    Raises:
        DataError: The tables hold different samples.
    """
    scored = tables.scored_samples
    quadrants, calibration = tables.quadrants_summary, None
    if tables.calibration is not None:
        calibration = sentences.explain_axis(tables.calibration, quadrants.axis, params)
    return MapReport(
        scores=tables.scores_summary,
        quadrants=quadrants,
        definitions=sentences.define_quadrants(quadrants),
        highest=_highest(ranked, quadrants.axis, params),
        hotspots=samples.list_hotspots(tables, params),
        causes=samples.count_causes(scored),
        calibration=calibration,
        secrets=samples.list_secrets(tables, params),
        copies=samples.list_copies(tables, params),
        spans=tables.spans_summary,
        canaries_by_quadrant=samples.count_canaries(scored),
        summary=_summarize(tables),
        warnings=list(dict.fromkeys([*warnings, *_stage_warnings(tables)])),
        settings=MapSettings(
            partition=params.partition, report=params.report, score=params.score, spans=params.spans
        ),
    )


def rank_samples(tables: ReportTables) -> pl.DataFrame:
    """All that is known of each sample, the highest on the axis first.

    Returns:
        ``rank`` from 1 (null for planted canaries, which come last), ``sample_id``, ``source``,
        ``text``, ``content_id``, ``num_copies``, ``canary``, ``cause``, ``duplicate_ids``,
        ``quadrant``, ``spans``, and every score.
    """
    scored = tables.scored_samples
    known = [name for name in tables.scores.columns if name not in scored.columns]
    ranked = scored.drop("score", "stability", "canary_id").join(
        tables.scores.select("sample_id", *known), on="sample_id", maintain_order="left"
    )
    axis = tables.quadrants_summary.axis
    is_planted = pl.col("canary").is_not_null()
    rank = pl.when(~is_planted).then(pl.int_range(1, pl.len() + 1))
    first = [
        "rank", "sample_id", "source", "text", "content_id", "num_copies", "canary", "cause",
        "duplicate_ids", "quadrant", "spans",
    ]  # fmt: skip
    return (
        ranked.sort(is_planted, axis, "sample_id", descending=[False, True, False])
        .with_columns(rank=rank)
        .select(*first, pl.exclude(first))
    )


def render_map(report: MapReport, ranked: pl.DataFrame, trace: Trace) -> str:
    """The map as a page that loads nothing; its loss curves are those of the trace.

    Args:
        report: Of the map.
        ranked: What ``rank_samples`` returns.
        trace: That was mapped.
    """
    frame = PageFrame.of(report.quadrants, report.scores.num_early, {}, report.settings.report)
    samples = ranked.lazy().with_columns(split=pl.lit("train"))
    data = page_data(samples, frame, lambda ids: sample_curves(ids, [trace], report.scores.mode))
    return page.render_map(report, data)


def _stage_warnings(tables: ReportTables) -> list[str]:
    # Those of the scores are about memorization.
    is_read = tables.quadrants_summary.axis == "memorization"
    return [
        *(tables.scores_summary.warnings if is_read else ()),
        *tables.quadrants_summary.warnings,
        *tables.spans_summary.warnings,
    ]


def _highest(ranked: pl.DataFrame, axis: str, params: Params) -> list[RankedSample]:
    rows = ranked.drop_nulls("rank").head(params.report.num_hotspots)
    text = pl.col("text") if params.report.show_text else pl.lit(None, pl.String)
    shown = rows.with_columns(score=pl.col(axis), text=text).select(list(RankedSample.model_fields))
    return [RankedSample.model_validate(row) for row in shown.to_dicts()]


def _summarize(tables: ReportTables) -> list[str]:
    scores, quadrants = tables.scores_summary, tables.quadrants_summary
    num_planted = tables.corpus["canary_id"].count()
    planted = f", {counted(num_planted, 'planted canary row')} among them" if num_planted else ""
    high = quadrants.counts["hotspot-memorized"] + quadrants.counts["noisy-outlier"]
    return [
        f"{counted(scores.num_samples, 'training sample')}{planted}, scored on "
        f"{scores.num_checkpoints} {scores.mode} checkpoints; learned below "
        f"{number(scores.epsilon)} nats per token. {counted(high, 'sample')} above "
        f"{number(quadrants.memorization_threshold)} on {quadrants.axis}.",
    ]
