"""Stage `intervene`: scores and quadrants -> one plan per arm, and the curated data set."""

from gdc import interventions, store, tracking
from gdc.stages.runner import run


def main() -> None:
    """Plan every arm; the corpus is read only for the curated data set, never for a plan."""
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"seed", "intervene"})
    with tracking.stage_run("intervene", sections) as stage:
        quadrants = store.read("quadrants")
        scored = store.read("scores").join(quadrants, on="sample_id", maintain_order="left")
        plans = {
            name: interventions.make_plan(arm, scored, seed=params.seed)
            for name, arm in params.intervene.arms.items()
        }
        store.write_plans(plans)
        train, validation, removed = interventions.curate(
            store.read("corpus"), quadrants, plans[params.intervene.curated_arm]
        )
        store.write("curated/train", train)
        store.write("curated/validation", validation)
        store.write("curated/removed", removed)
        stage.log_metrics({"num_curated": train.height, "num_removed": removed.height})
        stage.log_dataset("curated", train, store.TABLES["curated/train"][0], "curated")
        for arm in plans:
            stage.log_artifact(store.plan_path(arm))


if __name__ == "__main__":
    run(main)
