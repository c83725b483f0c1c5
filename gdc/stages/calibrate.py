"""Stage `calibrate`: tracked models, canaries and scores -> which score to trust here."""

from dataclasses import asdict

import polars as pl
import torch

from gdc.audit.extraction import Secrets
from gdc.audit.model_audit import Subject, record_secrets
from gdc.config import Params
from gdc.corpus.tokenizer import load_tokenizer
from gdc.mapping import calibration
from gdc.recording.trace import TWIN
from gdc.scores.references import pair_gaps, references_of
from gdc.stages.runner import run
from gdc.training import models
from gdc.workspace import files, paths, reference_tables, tables, tracking


def main() -> None:
    """Label the canaries by the tracked models; later stages see only what each score is worth."""
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"seed", "partition", "reference"})
    with tracking.stage_run("calibrate", sections) as stage:
        canaries, scores = tables.read("canaries"), tables.read("scores")
        corpus = tables.scan("corpus").drop_nulls("canary_id")
        planted = corpus.select("sample_id", "canary_id").collect()
        torch.set_num_threads(params.evaluate.num_threads)
        secrets = secrets_of_runs(canaries, params)
        labelled = calibration.label_canaries(
            canaries,
            [one.nll / one.num_tokens for one in secrets],
            [one.is_extracted for one in secrets],
        )
        calibrated = calibration.calibrate(
            scores,
            planted,
            labelled,
            params.partition,
            seed=params.seed,
            unseen=_with_families(tables.read("unseen_scores"), canaries),
            gaps=_gaps(params),
        )
        tables.write("canary_memorization", labelled)
        files.write_json(paths.CALIBRATION, asdict(calibrated))
        for seed in params.train.seeds:
            stage.use_model(paths.lineage_path("train", str(seed)))
        for card in calibrated.cards:
            auroc = None if card.auroc_report is None else card.auroc_report.value
            stage.log_metrics({f"auroc/{card.score}": auroc})
        stage.log_artifact(tables.TABLES["canary_memorization"][0])
        stage.log_artifact(paths.CALIBRATION)


def secrets_of_runs(canaries: pl.DataFrame, params: Params) -> list[Secrets]:
    """How each tracked model meets the secrets of the canaries."""
    tokenizer = load_tokenizer(paths.TOKENIZER)
    found = []
    for seed in params.train.seeds:
        model = models.on_device(models.load_model(paths.model_path("tracked", seed)))
        subject = Subject(model, tokenizer, params.model.block_size)
        found.append(record_secrets(subject, canaries, batch_tokens=params.evaluate.batch_tokens))
    return found


def _with_families(unseen: pl.DataFrame, canaries: pl.DataFrame) -> pl.DataFrame:
    """The scores with the family of each twin; null: held-out text."""
    families = canaries.select("family", sample_id=TWIN + pl.col("canary_id"))
    return unseen.join(families, on="sample_id", how="left", maintain_order="left")


def _gaps(params: Params) -> pl.DataFrame | None:
    """What half-models measure on each training sample; None: there is no pair of them."""
    table = reference_tables.read_references(params.reference.halves)
    return None if table is None else pair_gaps(references_of(table))


if __name__ == "__main__":
    run(main)
