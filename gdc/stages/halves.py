"""Stage `halves`: corpus -> which reference model is trained on which samples."""

import polars as pl

from gdc import duplicates, halves, store, tracking
from gdc.config import Params
from gdc.stages.runner import run


def main() -> None:
    """Assign all training and held-out samples; near copies go together."""
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"seed", "reference"})
    with tracking.stage_run("halves", sections) as stage:
        samples = store.read("corpus").filter(pl.col("split") != "reserved")
        table = halves.assign_halves(
            samples,
            _near_copies(samples, params),
            num_models=len(params.reference.models),
            seed=params.seed,
        )
        store.write("halves", table)
        stage.log_metrics({"num_models": len(params.reference.models)})


def _near_copies(samples: pl.DataFrame, params: Params) -> pl.DataFrame:
    if not params.reference.models:
        return pl.DataFrame(schema=duplicates.NEAR_DUPLICATES)
    return duplicates.near_copies(samples, params.reference, seed=params.seed)


if __name__ == "__main__":
    run(main)
