"""Stage `evaluate`: a model, canaries and held-out text -> audit table and metrics."""

import os
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from gdc import extraction, losses, models, store, tracking
from gdc.batches import TokenizedTexts
from gdc.config import Params
from gdc.stages.runner import parse_cell, run
from gdc.tokens import TextTokenizer, load_tokenizer


def main() -> None:
    """Audit one arm's model of one seed."""
    cell = parse_cell(arm=True)
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"evaluate"})
    sections |= {"arm": cell.arm, "seed": cell.seed}
    with tracking.stage_run("evaluate", sections, cell=f"{cell.arm}-{cell.seed}") as stage:
        torch.set_num_threads(params.evaluate.num_threads)
        folder = store.model_path(cell.arm, cell.seed)
        model = models.load_model(folder).to(os.environ.get("GDC_DEVICE", "cpu"))
        tokenizer = load_tokenizer(store.TOKENIZER)
        audit = _audit(model, store.read("canaries"), tokenizer, params)
        metrics = {
            "num_steps": store.read_json(folder / "training.json")["num_steps"],
            **_perplexity(model, store.read("corpus"), tokenizer, params),
            **extraction.extraction_rates(audit),
        }
        store.write_audit(cell.arm, cell.seed, audit)
        store.write_json(store.metrics_path(cell.arm, cell.seed), metrics)
        stage.use_model(store.lineage_path("retrain", f"{cell.arm}-{cell.seed}"))
        stage.log_metrics(_flat(metrics))
        stage.log_artifact(store.audit_path(cell.arm, cell.seed))


def _audit(
    model: nn.Module, canaries: pl.DataFrame, tokenizer: TextTokenizer, params: Params
) -> pl.DataFrame:
    ids = tokenizer.encode(canaries["text"].to_list())
    records = losses.token_records(
        model,
        TokenizedTexts.from_ids(ids, tokenizer.end_of_text),
        block_size=params.model.block_size,
        batch_tokens=params.evaluate.batch_tokens,
    )
    starts = extraction.secret_starts(tokenizer.encode(canaries["prefix"].to_list()), ids)
    ends = np.array([len(text) for text in ids], dtype=np.int64)
    return extraction.audit_canaries(canaries, records, starts, ends)


def _perplexity(
    model: nn.Module, corpus: pl.DataFrame, tokenizer: TextTokenizer, params: Params
) -> dict[str, float]:
    heldout = corpus.filter(pl.col("split") == "validation")
    texts = TokenizedTexts.from_ids(
        tokenizer.encode(heldout["text"].to_list()), tokenizer.end_of_text
    )
    mean_loss = losses.sample_losses(
        model,
        texts,
        block_size=params.model.block_size,
        batch_tokens=params.evaluate.batch_tokens,
    )
    loss = float(np.average(mean_loss, weights=texts.num_tokens))
    return {
        "heldout_loss": loss,
        "perplexity": float(np.exp(loss)),
        "num_heldout_tokens": int(texts.num_tokens.sum()),
    }


def _flat(metrics: dict[str, Any]) -> dict[str, float]:
    flat = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    for family, rates in metrics["extraction"].items():
        flat |= {f"extraction/{family}/{level}": rate for level, rate in rates.items()}
    return flat


if __name__ == "__main__":
    run(main)
