"""Stage `evaluate`: a model, canaries, members and held-out text -> audit tables and metrics."""

from collections.abc import Iterator

import polars as pl
import torch

from gdc.audit import extraction, membership_table
from gdc.audit.attack_inputs import References
from gdc.audit.model_audit import AuditedTexts, Subject, audit_in_parts
from gdc.config import BASE, Params, ReferenceConfig
from gdc.corpus.chat import with_unscored
from gdc.corpus.tokenizer import chunk_rows, load_tokenizer
from gdc.filesystem import scratch
from gdc.filesystem.json_values import JsonObject
from gdc.stages.runner import parse_cell, run
from gdc.training import models
from gdc.workspace import files, paths, reference_tables, tables, tracking


def main() -> None:
    """Audit one arm's model of one seed; every number comes from one pass over the texts."""
    cell = parse_cell(arm=True)
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"seed", "evaluate"})
    sections |= {"arm": cell.arm, "model_seed": cell.seed}
    with tracking.stage_run("evaluate", sections, cell=f"{cell.arm}-{cell.seed}") as stage:
        torch.set_num_threads(params.evaluate.num_threads)
        folder = paths.model_path(cell.arm, cell.seed)
        model = models.on_device(models.load_model(folder))
        samples = _samples(params)
        texts = tables.stored_texts(samples["sample_id"])
        canary_audit, sample_audit = audit_in_parts(
            Subject(model, load_tokenizer(paths.TOKENIZER), params.model.block_size),
            _parts(params, samples, texts),
            params.evaluate,
            texts=texts,
        )
        metrics = {
            **files.read_json(folder / "training.json"),
            **membership_table.membership_metrics(sample_audit).to_json(),
            **extraction.canary_metrics(canary_audit).to_json(),
        }
        tables.write_audit(cell.arm, cell.seed, canary_audit)
        tables.write_membership(cell.arm, cell.seed, sample_audit)
        files.write_json(paths.metrics_path(cell.arm, cell.seed), metrics)
        stage.use_model(paths.lineage_path("retrain", f"{cell.arm}-{cell.seed}"))
        stage.log_metrics(_flat(metrics))
        stage.log_artifact(paths.audit_path(cell.arm, cell.seed))
        stage.log_artifact(paths.membership_path(cell.arm, cell.seed))


def _samples(params: Params) -> pl.DataFrame:
    """``sample_id`` and ``is_member`` of the samples that the model is asked about."""
    columns = ("sample_id", "content_id", "canary_id", "split")
    corpus = tables.scan("corpus").select(columns).collect()
    return membership_table.choose_samples(corpus, params.evaluate.num_members, seed=params.seed)


def _parts(params: Params, samples: pl.DataFrame, texts: scratch.Texts) -> Iterator[AuditedTexts]:
    """What the model is asked about, a few megabytes of text at a time; canaries come first."""
    canaries, turns = tables.read("canaries"), tables.read("turns")
    for rows in chunk_rows(texts.num_bytes):
        texts_of_rows = [texts[row] for row in range(rows.start, rows.stop)]
        part = samples[rows].with_columns(text=pl.Series(texts_of_rows))
        references = _references(part, params.reference)
        yield AuditedTexts(canaries, with_unscored(part, turns), *references)
        canaries = canaries.clear()


def _references(
    samples: pl.DataFrame, config: ReferenceConfig
) -> tuple[References | None, References | None]:
    """What the models of halves, and what the pretrained model says of the samples."""
    halves = membership_table.align_references(
        samples,
        reference_tables.read_references(config.halves),
        reference_tables.read_unseen_tokens(config.halves, samples),
    )
    if not config.has_base:
        return halves, None
    tokens = reference_tables.read_unseen_tokens([BASE], samples)
    return halves, membership_table.align_base(
        samples, reference_tables.read_base_reference(), tokens
    )


def _flat(metrics: JsonObject, prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat


if __name__ == "__main__":
    run(main)
