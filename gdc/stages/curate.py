"""Stage `curate`: the chosen plan and the corpus -> the data set to train on."""

from dataclasses import asdict

import polars as pl

from gdc.comparison.results import CuratedChoice
from gdc.curation.plans import curate
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, tracking


def main() -> None:
    """Apply the plan that the report chose; what is unproven says so beside the data."""
    choice = files.read_as(CuratedChoice, paths.CHOICE)
    with tracking.stage_run("curate", {"arm": choice.arm, "is_shown": choice.is_shown}) as stage:
        curated = curate(
            tables.scan_chunks("corpus"),
            tables.scan("keys"),
            tables.scan("quadrants"),
            tables.scan_plan(choice.arm),
        )
        group_rows = tables.group_rows("corpus")
        for name, table in curated.items():
            tables.sink(f"curated/{name}", table, group_rows)
        files.write_json(paths.ABOUT_CURATED, asdict(choice))
        counts = {name: _num_rows(f"curated/{name}") for name in ("train", "removed")}
        stage.log_metrics({"num_curated": counts["train"], "num_removed": counts["removed"]})
        proof = "shown" if choice.is_shown else "unproven"
        stage.set_tags({"gdc.curated.arm": choice.arm, "gdc.curated.proof": proof})
        name = "curated" if choice.is_shown else "curated-unproven"
        stage.log_dataset(name, tables.TABLES["curated/train"][0], f"curated, {proof}")
        stage.log_artifact(paths.ABOUT_CURATED)


def _num_rows(name: str) -> int:
    num_rows: int = tables.scan(name).select(pl.len()).collect().item()
    return num_rows


if __name__ == "__main__":
    run(main)
