"""Stage `report`: all tables -> report.json, report.html and data_map.png."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from gdc import comparison, plots, report, store, tracking
from gdc.config import Params
from gdc.stages.runner import run

JSON: Final = Path("reports/report.json")
PAGE: Final = Path("reports/report.html")
PICTURE: Final = Path("reports/data_map.png")


def main() -> None:
    """Write the three files and log every arm's perplexity and extraction rate."""
    params = store.load_params()
    with tracking.stage_run("report", report.settings(params)) as stage:
        tables = with_evidence(read_tables(params), params)
        built = report.build_report(tables, params)
        points = report.map_points(tables, show_text=params.report.show_text)
        frame = report.map_frame(built)
        store.write_json(JSON, built)
        store.write_text(PAGE, report.render_html(built, plots.interactive_map(points, frame)))
        with store.new_file(PICTURE) as temporary:
            plots.data_map_png(points, frame, temporary)
        for arm in built["arms"]:
            for metric in ("perplexity", "extraction_rate"):
                stage.log_metrics({f"{arm['arm']}/{metric}": arm[metric]["mean"]})
        for kind, groups in built["groups"].items():
            for name, group in groups.items():
                stage.log_metrics({f"{kind}/{name}/auc": group["auc"]})
        for path in (JSON, PAGE, PICTURE):
            stage.log_artifact(path)


def read_tables(params: Params) -> report.ReportTables:
    """Everything that the report is made of, from the current folder."""
    arms = params.retrain.arms
    return report.ReportTables(
        corpus=store.read("corpus"),
        canaries=store.read("canaries"),
        scores=store.read("scores"),
        quadrants=store.read("quadrants"),
        plans={arm: store.read_plan(arm) for arm in {*arms, params.intervene.curated_arm}},
        metrics={
            (arm, seed): store.read_json(store.metrics_path(arm, seed))
            for arm in arms
            for seed in params.retrain.seeds
        },
        scores_summary=store.read_json(store.SCORES_SUMMARY),
        quadrants_summary=store.read_json(store.QUADRANTS_SUMMARY),
        num_quarantined=store.read("quarantine").height,
    )


def with_evidence(tables: report.ReportTables, params: Params) -> report.ReportTables:
    """Add what the audits of all arms show."""
    cells = [(arm, seed) for arm in params.retrain.arms for seed in params.retrain.seeds]
    evidence = comparison.Evidence(
        audits={cell: store.read_audit(*cell) for cell in cells},
        memberships={cell: store.read_membership(*cell) for cell in cells},
    )
    baseline = comparison.baseline_arm(params)
    scored = tables.scores.join(tables.quadrants, on="sample_id", maintain_order="left")
    return replace(
        tables,
        evidence=comparison.compare_arms(evidence, params, baseline),
        groups={}
        if baseline is None
        else comparison.by_group(evidence, baseline, scored, params.partition.axis),
    )


if __name__ == "__main__":
    run(main)
