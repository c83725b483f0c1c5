"""Stage `ingest`: the source -> corpus with planted canaries, tokenizer, quarantine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from gdc import canaries, corpus, sources, store, tokens, tracking
from gdc.config import IngestConfig, Params
from gdc.errors import DataError
from gdc.stages.runner import run


def main() -> None:
    """Read the source and write everything that later stages know of it."""
    params = store.load_params()
    sections = params.model_dump(
        mode="json", include={"seed": True, "ingest": True, "model": {"block_size"}}
    )
    with tracking.stage_run("ingest", sections) as stage:
        rows = _read_source(params)
        table, probes = _plant(rows.rows, params)
        tokenizer = _tokenizer(params.ingest, table)
        canaries.check_tokens(
            probes,
            tokenizer.encode(probes["prefix"].to_list()),
            tokenizer.encode(probes["text"].to_list()),
            block_size=params.model.block_size,
        )
        ids = tokenizer.encode(table["text"].to_list())
        table = corpus.with_num_tokens(table, [len(text) + 1 for text in ids])
        with store.new_folder(store.TOKENIZER) as folder:
            tokens.save_tokenizer(tokenizer, folder)
        store.write("quarantine", rows.bad_rows)
        store.write("canaries", probes)
        store.write("corpus", table)
        summary = _summary(table, rows)
        store.write_json(store.CORPUS_SUMMARY, summary)
        stage.log_metrics(summary)
        stage.log_dataset("corpus", table, store.TABLES["corpus"][0], "ingest")


def _read_source(params: Params) -> sources.SourceRows:
    config = params.ingest
    _check_seen("source", sources.fingerprint(config.source), store.MANIFEST)
    seen = sources.fingerprint_pretrained(config.tokenizer)
    _check_seen("tokenizer", seen, store.PRETRAINED)
    rows = sources.read_source(config.source, max_chars=config.max_chars, seed=params.seed)
    sources.check_bad_rows(rows, on_bad_row=config.on_bad_row)
    return rows


def _check_seen(key: str, found: Mapping[str, Any], path: Path) -> None:
    if found != store.read_json(path):
        raise DataError(
            f"ingest.{key}: expected what {path} has seen, got other content. It changed "
            "meanwhile; start again with `gdc run`."
        )


def _plant(rows: pl.DataFrame, params: Params) -> tuple[pl.DataFrame, pl.DataFrame]:
    config = params.ingest
    samples = corpus.samples_from(rows, max_samples=config.max_samples, seed=params.seed)
    probes = canaries.make_canaries(config.canaries, samples, seed=params.seed)
    table = corpus.build_corpus(
        samples, probes, validation_fraction=config.validation_fraction, seed=params.seed
    )
    return table, probes


def _tokenizer(config: IngestConfig, table: pl.DataFrame) -> tokens.TextTokenizer:
    if config.tokenizer.kind == "pretrained":
        commit = store.read_json(store.PRETRAINED).get("commit", config.tokenizer.revision)
        return tokens.load_pretrained_tokenizer(config.tokenizer.name, commit)
    # With planted copies among them, canaries would get fewer tokens than their twins.
    texts = table.filter(pl.col("split") == "train", pl.col("canary_id").is_null())["text"]
    return tokens.train_tokenizer(texts, config.tokenizer.vocab_size)


def _summary(table: pl.DataFrame, rows: sources.SourceRows) -> dict[str, int]:
    ordinary = table.filter(pl.col("canary_id").is_null())
    return {
        "num_samples": ordinary.height,
        "num_distinct_texts": ordinary["content_id"].n_unique(),
        "num_planted_rows": table.height - ordinary.height,
        "num_left_out": rows.rows.height - ordinary.height,
        "num_quarantined": rows.bad_rows.height,
        "num_train_tokens": int(table.filter(pl.col("split") == "train")["num_tokens"].sum()),
    }


if __name__ == "__main__":
    run(main)
