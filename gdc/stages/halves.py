"""Stage `halves`: corpus -> which reference model is trained on which samples."""

from typing import Final

import polars as pl

from gdc.config import Params
from gdc.corpus import halves, near_duplicates
from gdc.stages.runner import run
from gdc.workspace import files, tables, tracking

_ASSIGNED: Final = pl.col("split") != "reserved"


def main() -> None:
    """Assign all training and held-out samples; near copies go together."""
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"seed", "reference"})
    with tracking.stage_run("halves", sections) as stage:
        table = halves.assign_halves(
            tables.scan("corpus").filter(_ASSIGNED).select("sample_id", "content_id").collect(),
            _near_copies(params),
            num_models=len(params.reference.halves),
            seed=params.seed,
        )
        tables.write("halves", table)
        stage.log_metrics({"num_models": len(params.reference.halves)})


def _near_copies(params: Params) -> pl.DataFrame:
    if not params.reference.halves:
        return pl.DataFrame(schema=near_duplicates.NEAR_DUPLICATES)
    samples = tables.chunks("corpus", ["sample_id", "text"], _ASSIGNED)
    return near_duplicates.near_copies(samples, params.reference, seed=params.seed)


if __name__ == "__main__":
    run(main)
