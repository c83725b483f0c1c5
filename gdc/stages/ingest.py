"""Stage `ingest`: the source -> corpus with planted canaries, tokenizer, quarantine."""

import polars as pl

from gdc import canaries, corpus, sources, store, tokens, tracking
from gdc.config import IngestConfig, Params
from gdc.errors import TransientError
from gdc.stages.runner import run


def main() -> None:
    """Read the source and write everything that later stages know of it."""
    params = store.load_params()
    sections = {"seed": params.seed, "ingest": params.ingest.model_dump(mode="json")}
    with tracking.stage_run("ingest", sections) as stage:
        rows = _read_source(params)
        table, probes = _plant(rows.rows, params)
        tokenizer = _tokenizer(params.ingest, table)
        ids = tokenizer.encode(table["text"].to_list())
        table = corpus.with_num_tokens(table, [len(text) + 1 for text in ids])
        with store.new_folder(store.TOKENIZER) as folder:
            tokens.save_tokenizer(tokenizer, folder)
        store.write("quarantine", rows.bad_rows)
        store.write("canaries", probes)
        store.write("corpus", table)
        stage.log_metrics(_summary(table, rows.bad_rows))
        stage.log_dataset("corpus", table, store.TABLES["corpus"][0], "ingest")


def _read_source(params: Params) -> sources.SourceRows:
    config = params.ingest
    if sources.fingerprint(config.source) != store.read_json(store.MANIFEST):
        raise TransientError(
            "ingest.source: it is not what data/manifest.json has seen. It changed meanwhile; "
            "start again with `gdc run`."
        )
    rows = sources.read_source(config.source, max_chars=config.max_chars, seed=params.seed)
    sources.check_bad_rows(rows, on_bad_row=config.on_bad_row)
    return rows


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
        return tokens.load_pretrained_tokenizer(config.tokenizer.name, config.tokenizer.revision)
    texts = table.filter(pl.col("split") == "train")["text"]
    return tokens.train_tokenizer(texts, config.tokenizer.vocab_size)


def _summary(table: pl.DataFrame, bad_rows: pl.DataFrame) -> dict[str, float]:
    ordinary = table.filter(pl.col("canary_id").is_null())
    return {
        "num_samples": ordinary.height,
        "num_distinct_texts": ordinary["content_id"].n_unique(),
        "num_planted_rows": table.height - ordinary.height,
        "num_quarantined": bad_rows.height,
        "num_train_tokens": int(table.filter(pl.col("split") == "train")["num_tokens"].sum()),
    }


if __name__ == "__main__":
    run(main)
