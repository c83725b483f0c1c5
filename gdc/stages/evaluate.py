"""Stage `evaluate`: a model, canaries, members and held-out text -> audit tables and metrics."""

import os
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from gdc import audits, extraction, losses, models, store, tracking
from gdc.batches import TokenizedTexts
from gdc.config import Params
from gdc.extraction import Secrets
from gdc.stages.runner import parse_cell, run
from gdc.tokens import TextTokenizer, load_tokenizer


def main() -> None:
    """Audit one arm's model of one seed; every number comes from one pass over the texts."""
    cell = parse_cell(arm=True)
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"seed", "evaluate"})
    sections |= {"arm": cell.arm, "model_seed": cell.seed}
    with tracking.stage_run("evaluate", sections, cell=f"{cell.arm}-{cell.seed}") as stage:
        torch.set_num_threads(params.evaluate.num_threads)
        folder = store.model_path(cell.arm, cell.seed)
        model = models.load_model(folder).to(os.environ.get("GDC_DEVICE", "cpu"))
        canary_audit, sample_audit = _audit(model, load_tokenizer(store.TOKENIZER), params)
        metrics = {
            "num_steps": store.read_json(folder / "training.json")["num_steps"],
            **audits.membership_metrics(sample_audit),
            **extraction.canary_metrics(canary_audit),
        }
        store.write_audit(cell.arm, cell.seed, canary_audit)
        store.write_membership(cell.arm, cell.seed, sample_audit)
        store.write_json(store.metrics_path(cell.arm, cell.seed), metrics)
        stage.use_model(store.lineage_path("retrain", f"{cell.arm}-{cell.seed}"))
        stage.log_metrics(_flat(metrics))
        stage.log_artifact(store.audit_path(cell.arm, cell.seed))
        stage.log_artifact(store.membership_path(cell.arm, cell.seed))


def _audit(
    model: nn.Module, tokenizer: TextTokenizer, params: Params
) -> tuple[pl.DataFrame, pl.DataFrame]:
    config = params.evaluate
    canaries, corpus = store.read("canaries"), store.read("corpus")
    samples = audits.choose_samples(corpus, config.num_members, seed=params.seed)
    ids = tokenizer.encode(canaries["text"].to_list())
    sample_ids = tokenizer.encode(samples["text"].to_list())
    before = [*sample_ids[-1], tokenizer.end_of_text]
    shifted_ids = [[*before, *text] for text in ids]
    records = losses.token_records(
        model,
        TokenizedTexts.from_ids([*ids, *shifted_ids, *sample_ids], tokenizer.end_of_text),
        block_size=params.model.block_size,
        batch_tokens=config.batch_tokens,
    )
    size = canaries.height
    starts = extraction.secret_starts(tokenizer.encode(canaries["prefix"].to_list()), ids)
    ends = np.array([len(text) for text in ids], dtype=np.int64)
    secrets = Secrets(records.of_sequences(0, size), starts, ends)
    shifted = Secrets(
        records.of_sequences(size, 2 * size), starts + len(before), ends + len(before)
    )
    greedy = [tokenizer.decode(text) for text in secrets.greedy_ids()]
    canary_audit = extraction.audit_canaries(canaries, secrets, shifted, greedy)
    of_samples = records.of_sequences(2 * size, 2 * size + samples.height)
    return canary_audit, audits.audit_samples(samples, of_samples, min_k_share=config.min_k_share)


def _flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat


if __name__ == "__main__":
    run(main)
