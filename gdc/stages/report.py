"""Stage `report`: all tables -> report.json, report.html and data_map.png."""

from pathlib import Path
from typing import Final

from gdc import plots, report, store, tracking
from gdc.config import Params
from gdc.stages.runner import run

JSON: Final = Path("reports/report.json")
PAGE: Final = Path("reports/report.html")
PICTURE: Final = Path("reports/data_map.png")


def main() -> None:
    """Write the three files and log every arm's perplexity and extraction rate."""
    params = store.load_params()
    with tracking.stage_run("report", report.settings(params)) as stage:
        tables = read_tables(params)
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


if __name__ == "__main__":
    run(main)
