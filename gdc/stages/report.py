"""Stage `report`: all tables -> report.json, report.html, the pictures and samples.parquet."""

from dataclasses import asdict, replace
from typing import Final

import polars as pl

from gdc.comparison import leakage, next_layer
from gdc.comparison.arms import (
    AuditTables,
    baseline_arm,
    compare_arms,
    equal_random_arm,
    queried_arm,
    rarest,
)
from gdc.comparison.results import NextLayer
from gdc.config import AUTO, Params, RandomArm, ShuffledArm
from gdc.filesystem import durable
from gdc.mapping.profile import Profile, profile_by_quadrant
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.score_cards import Calibration
from gdc.mapping.spans import SpansSummary
from gdc.report import build, page, page_data, plots, sample_table
from gdc.report.curves import mean_curves, sample_curves
from gdc.report.headline import narrow_numbers
from gdc.report.model import (
    ArmMetrics,
    CorpusSummary,
    Report,
    to_json,
)
from gdc.report.page_data import PageData
from gdc.report.tables import Gaps, ReportTables
from gdc.schema import SAMPLES
from gdc.scores import cost_class
from gdc.scores.references import References, pair_gaps, references_of
from gdc.scores.summary import ScoresSummary
from gdc.stages.runner import run
from gdc.workspace import files, paths, reference_tables, tables, traces, tracking
from gdc.workspace.panels import MIN_CHECKPOINTS, read_panel
from gdc.workspace.tracking import StageRun

FILES: Final = (paths.REPORT, paths.PAGE, paths.PICTURE, paths.ROC, paths.GROUPS, paths.FRONT)


def main() -> None:
    """Write the report, its pictures and the table of samples; log what arms and groups leak."""
    params = files.load_params()
    with tracking.stage_run("report", build.settings(params)) as stage:
        inputs = with_audits(read_tables(params), params)
        report = build.build_report(inputs, params)
        files.write_json(paths.CHOICE, asdict(report.choice))
        sample_table.write_samples(sample_table.revising_seeds(params))
        files.write_json(paths.REPORT, to_json(report))
        drawn = page.render_html(report, _draw(report, inputs), _page_data(report, params))
        files.write_text(paths.PAGE, drawn)
        _write_for_dvc(report, params)
        _log(report, stage)


def _write_for_dvc(report: Report, params: Params) -> None:
    """What `dvc metrics show` and `dvc plots show` read: numbers of each arm, losses by step."""
    with durable.new_folder(paths.ARM_NUMBERS) as folder:
        for arm, numbers in narrow_numbers(report).items():
            files.write_json(folder / f"{arm}.json", numbers)
    seed = params.train.seeds[0]
    with tables.naming_damage(paths.trace_path(seed)):
        losses = mean_curves(traces.read(seed), params.score.mode)
    files.write_text(paths.LOSS_CURVES, losses.write_csv())
    with durable.new_file(paths.LOSSES) as temporary:
        plots.losses_png(losses, temporary)


def _page_data(report: Report, params: Params) -> PageData:
    def curves_of(ids: pl.Series) -> pl.DataFrame:
        with tables.naming_damage(*(paths.trace_path(seed) for seed in params.train.seeds)):
            runs = [traces.read(seed) for seed in params.train.seeds]
            return sample_curves(ids, runs, params.score.mode)

    samples = tables.scan_table(paths.SAMPLES, SAMPLES)
    return page_data.page_data(samples, build.page_frame(report, params), curves_of)


def _draw(report: Report, inputs: ReportTables) -> page.Pictures:
    points = build.map_points(inputs)
    frame = build.map_frame(report)
    curves = {name: arm.roc for name, arm in report.arm_audits.items()}
    with durable.new_file(paths.PICTURE) as temporary:
        plots.data_map_png(points, frame, temporary)
    with durable.new_file(paths.ROC) as temporary:
        plots.roc_png(curves, page.attack_of(report), temporary)
    if report.groups:
        with durable.new_file(paths.GROUPS) as temporary:
            plots.groups_png(report.groups, frame.axis, temporary)
    with durable.new_file(paths.FRONT) as temporary:
        plots.front_png(report.pareto_front, temporary)
    return page.Pictures(*(file.read_bytes() for file in (paths.ROC, paths.GROUPS, paths.FRONT)))


def _log(report: Report, stage: StageRun) -> None:
    for arm in report.arms:
        stage.log_metrics(
            {
                f"{arm.arm}/perplexity": arm.perplexity.mean,
                f"{arm.arm}/extraction_rate": arm.extraction_rate.mean,
            }
        )
    if report.groups:
        kinds = {"quadrants": report.groups.quadrants, "deciles": report.groups.deciles}
        for kind, groups in kinds.items():
            for name, group in groups.items():
                measured = (("auc", group.auc), ("extracted", group.extracted))
                for measure, found in measured:
                    value = None if found is None else found.value
                    stage.log_metrics({f"{kind}/{name}/{measure}": value})
    for path in FILES:
        stage.log_artifact(path)


def read_tables(params: Params) -> ReportTables:
    """Read everything that the report is made of from the current folder."""
    arms = params.retrain.arms
    summary = files.read_as(CorpusSummary, paths.CORPUS_SUMMARY)
    corpus = tables.scan("corpus").drop("text").collect()
    return ReportTables(
        corpus=corpus,
        read_texts=tables.texts_of,
        canaries=tables.read("canaries"),
        scores=tables.read("scores"),
        quadrants=tables.read("quadrants"),
        plans={
            arm: tables.read_plan(arm) for arm in {*arms, params.intervene.curated_arm} - {AUTO}
        },
        metrics={
            (arm, seed): files.read_as(ArmMetrics, paths.metrics_path(arm, seed))
            for arm in arms
            for seed in params.retrain.seeds
        },
        scores_summary=files.read_as(ScoresSummary, paths.SCORES_SUMMARY),
        quadrants_summary=files.read_as(QuadrantsSummary, paths.QUADRANTS_SUMMARY),
        calibration=files.read_as(Calibration, paths.CALIBRATION),
        num_quarantined=tables.read("quarantine").height,
        spans=tables.read("spans"),
        spans_summary=files.read_as(SpansSummary, paths.SPANS_SUMMARY),
        num_left_out=summary.num_left_out,
        unread=summary.unread,
        planted_reweighted={
            arm: [_num_planted_reweighted(arm, seed, corpus) for seed in seeds]
            for arm, seeds in sample_table.revising_seeds(params).items()
            if seeds
        },
    )


def _num_planted_reweighted(arm: str, seed: int, corpus: pl.DataFrame) -> int:
    planted = corpus.lazy().drop_nulls("canary_id").select("sample_id")
    changed = tables.scan_revised_weights(arm, seed).drop_nulls("first_changed")
    return changed.join(planted, on="sample_id", how="semi").collect().height


def with_audits(inputs: ReportTables, params: Params) -> ReportTables:
    """Add what the audits of all arms show."""
    cells = [(arm, seed) for arm in params.retrain.arms for seed in params.retrain.seeds]
    memberships = {cell: tables.read_membership(*cell) for cell in cells}
    audits = AuditTables(
        audits={cell: tables.read_audit(*cell) for cell in cells},
        memberships=memberships,
        rare=rarest(_initial_losses(params), memberships[cells[0]]),
        trained={arm: _trained(inputs.plans[arm]) for arm in params.retrain.arms},
    )
    queried = audits.arm_memberships(queried_arm(params), params.retrain.seeds)
    scored = inputs.scores.join(inputs.quadrants, on="sample_id", maintain_order="left")
    axis = inputs.quadrants_summary.axis
    references = _references(params)
    return replace(
        inputs,
        arm_audits=compare_arms(audits, params),
        groups=leakage.leakage_by_group(queried, scored, axis, seed=params.seed),
        next_layer=_next_layer(inputs, audits, references, params),
        leaked=leakage.verbatim_samples(queried),
        attacks=leakage.all_attacks(queried, seed=params.seed),
        gaps=_gaps(axis, references, params),
        profiles=_profiles(inputs.quadrants, params),
    )


def _profiles(quadrants: pl.DataFrame, params: Params) -> dict[str, Profile]:
    """Memorization over time in the first tracked run; none where it has too few frozen looks."""
    folder = paths.trace_path(params.train.seeds[0])
    trace = traces.read(params.train.seeds[0])
    if len(trace.columns("probe")) < MIN_CHECKPOINTS or traces.read_first_seen(folder) is None:
        return {}
    mapped = trace.index.join(quadrants, on="sample_id", how="left", maintain_order="left")
    return profile_by_quadrant(read_panel(folder, trace), mapped["quadrant"].to_list())


def _references(params: Params) -> References | None:
    table = reference_tables.read_references(params.reference.halves)
    return None if table is None else references_of(table)


def _gaps(axis: str, references: References | None, params: Params) -> Gaps | None:
    """What reference models say of each sample; None: there are none, or the axis reads them."""
    gaps = pair_gaps(references)
    if gaps is None or cost_class(axis) == "reference models":
        return None
    return Gaps(gaps, len(params.reference.halves))


def _next_layer(
    inputs: ReportTables, audits: AuditTables, references: References | None, params: Params
) -> NextLayer | None:
    """None where no arm keeps everything or none takes samples away."""
    baseline = baseline_arm(params)
    arms = params.retrain.arms
    by_choice = [
        arm for arm in arms if not isinstance(params.intervene.arms[arm], RandomArm | ShuffledArm)
    ]
    controls = next_layer.compared_controls(
        inputs.plans, {arm: equal_random_arm(arm, params) for arm in by_choice}
    )
    if baseline is None or not controls:
        return None
    layers = next_layer.layers_of(
        {arm: audits.arm_memberships(arm, params.retrain.seeds) for arm in arms},
        inputs.plans,
        None if references is None else references.table.select("sample_id", "reference_loss"),
    )
    quantile = next_layer.layer_quantile(params, inputs.quadrants_summary.counts)
    cut = next_layer.Baseline(baseline, quantile, has_references=references is not None)
    return next_layer.compare_layers(layers, controls, cut, seed=params.seed)


def _trained(plan: pl.DataFrame) -> frozenset[str]:
    return frozenset(plan.filter(pl.col("copies") > 0, pl.col("weight") > 0)["sample_id"])


def _initial_losses(params: Params) -> pl.DataFrame:
    """``sample_id`` and ``loss`` of the held-out texts at the first checkpoint of a tracked run."""
    trace = traces.read(params.train.seeds[0])
    first = trace.columns(params.score.mode)[0]
    with tables.naming_damage(paths.trace_path(params.train.seeds[0])):
        losses = trace.heldout_losses.select(loss=first).collect()
    return trace.heldout_index.select("sample_id").with_columns(losses)


if __name__ == "__main__":
    run(main)
