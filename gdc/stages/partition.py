"""Stage `partition`: scores -> an axis, thresholds and a quadrant for every sample."""

from dataclasses import replace

from gdc.mapping import quadrants
from gdc.mapping.score_cards import Calibration
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, tracking


def main() -> None:
    """Give every sample its quadrant."""
    params = files.load_params()
    with tracking.stage_run("partition", params.model_dump(include={"partition"})) as stage:
        auto = files.read_as(Calibration, paths.CALIBRATION).auto
        config, warnings = quadrants.resolve_axis(params.partition, auto)
        table, summary = quadrants.partition(
            tables.read("scores"), tables.read("scores_by_run"), config
        )
        summary = replace(summary, warnings=(*warnings, *summary.warnings))
        tables.write("quadrants", table)
        files.write_json(paths.QUADRANTS_SUMMARY, summary.to_json())
        stage.log_metrics({f"num/{name}": count for name, count in summary.counts.items()})
        if summary.num_unstable is not None:
            stage.log_metrics({"num_unstable": summary.num_unstable})
        stage.log_artifact(tables.TABLES["quadrants"][0])
        stage.log_artifact(paths.QUADRANTS_SUMMARY)
        stage.set_tags({"gdc.axis": config.axis})


if __name__ == "__main__":
    run(main)
