"""Stage `report`: all tables -> report.json, report.html and the pictures."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import polars as pl

from gdc.comparison import leakage, next_layer
from gdc.comparison.arms import (
    Evidence,
    as_plain,
    asked_arm,
    baseline_arm,
    compare_arms,
    equal_random_arm,
    rarest,
)
from gdc.config import Params, RandomArm, ShuffledArm
from gdc.report import build, plots
from gdc.scores.references import references_of
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, traces, tracking
from gdc.workspace.tracking import StageRun

FILES: Final = (paths.REPORT, paths.PAGE, paths.PICTURE, paths.ROC, paths.GROUPS, paths.FRONT)


def main() -> None:
    """Write the report and its pictures, and log what every arm and group leaks."""
    params = files.load_params()
    with tracking.stage_run("report", build.settings(params)) as stage:
        tables = with_evidence(read_tables(params), params)
        built = build.build_report(tables, params)
        files.write_json(paths.REPORT, built)
        files.write_text(paths.PAGE, build.render_html(built, _draw(built, tables, params)))
        _log(built, stage)


def _draw(built: Mapping[str, Any], tables: build.ReportTables, params: Params) -> build.Pictures:
    points = build.map_points(tables, show_text=params.report.show_text)
    frame = build.map_frame(built)
    curves = {name: arm["roc"] for name, arm in built["evidence"].items()}
    with files.new_file(paths.PICTURE) as temporary:
        plots.data_map_png(points, frame, temporary)
    with files.new_file(paths.ROC) as temporary:
        plots.roc_png(curves, build.attack_of(built), temporary)
    with files.new_file(paths.GROUPS) as temporary:
        plots.groups_png(built["groups"], frame.axis, temporary)
    with files.new_file(paths.FRONT) as temporary:
        plots.front_png(built["front"], temporary)
    return build.Pictures(
        plots.interactive_map(points, frame),
        *(file.read_bytes() for file in (paths.ROC, paths.GROUPS, paths.FRONT)),
    )


def _log(built: Mapping[str, Any], stage: StageRun) -> None:
    for arm in built["arms"]:
        for metric in ("perplexity", "extraction_rate"):
            stage.log_metrics({f"{arm['arm']}/{metric}": arm[metric]["mean"]})
    for kind in ("quadrants", "deciles"):
        for name, group in built["groups"][kind].items():
            measured = {m: group[m] and group[m]["value"] for m in ("auc", "extracted")}
            stage.log_metrics({f"{kind}/{name}/{m}": value for m, value in measured.items()})
    for path in FILES:
        stage.log_artifact(path)


def read_tables(params: Params) -> build.ReportTables:
    """Everything that the report is made of, from the current folder."""
    arms = params.retrain.arms
    corpus = files.read_json(paths.CORPUS_SUMMARY)
    return build.ReportTables(
        corpus=tables.read("corpus"),
        canaries=tables.read("canaries"),
        scores=tables.read("scores"),
        quadrants=tables.read("quadrants"),
        plans={arm: tables.read_plan(arm) for arm in {*arms, params.intervene.curated_arm}},
        metrics={
            (arm, seed): files.read_json(paths.metrics_path(arm, seed))
            for arm in arms
            for seed in params.retrain.seeds
        },
        scores_summary=files.read_json(paths.SCORES_SUMMARY),
        quadrants_summary=files.read_json(paths.QUADRANTS_SUMMARY),
        calibration=files.read_json(paths.CALIBRATION),
        num_quarantined=tables.read("quarantine").height,
        spans=tables.read("spans"),
        spans_summary=files.read_json(paths.SPANS_SUMMARY),
        num_left_out=corpus["num_left_out"],
        unread=corpus["unread"],
    )


def with_evidence(read: build.ReportTables, params: Params) -> build.ReportTables:
    """Add what the audits of all arms show."""
    cells = [(arm, seed) for arm in params.retrain.arms for seed in params.retrain.seeds]
    memberships = {cell: tables.read_membership(*cell) for cell in cells}
    evidence = Evidence(
        audits={cell: tables.read_audit(*cell) for cell in cells},
        memberships=memberships,
        rare=rarest(_initial_losses(params), memberships[cells[0]]),
        trained={arm: _trained(read.plans[arm]) for arm in params.retrain.arms},
    )
    asked = evidence.memberships_of(asked_arm(params), params.retrain.seeds)
    scored = read.scores.join(read.quadrants, on="sample_id", maintain_order="left")
    axis = read.quadrants_summary["axis"]
    groups = leakage.by_group(asked, scored, axis, seed=params.seed)
    return replace(
        read,
        evidence=compare_arms(evidence, params),
        groups=as_plain(groups),
        onion=as_plain(_onion(read, evidence, params)),
        leaked=leakage.verbatim_samples(asked),
        attacks=as_plain(leakage.of_attacks(asked, seed=params.seed)),
    )


def _onion(read: build.ReportTables, evidence: Evidence, params: Params) -> dict[str, Any]:
    """Empty where no arm keeps everything or none takes samples away."""
    baseline = baseline_arm(params)
    arms = params.retrain.arms
    controls = {
        arm: equal_random_arm(arm, params)
        for arm in arms
        if not isinstance(params.intervene.arms[arm], RandomArm | ShuffledArm)
    }
    pairs = next_layer.asked_pairs(read.plans, controls)
    if baseline is None or not pairs:
        return {}
    references = tables.read_references(params.reference.models)
    layers = next_layer.layers_of(
        {arm: evidence.memberships_of(arm, params.retrain.seeds) for arm in arms},
        read.plans,
        None
        if references is None
        else references_of(references).table.select("sample_id", "reference_loss"),
    )
    quantile = next_layer.layer_quantile(params, read.quadrants_summary["counts"])
    compared = next_layer.compare_layers(
        layers, pairs, baseline, quantile=quantile, seed=params.seed
    )
    return compared | {"has_references": references is not None}


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
