"""Stage `ingest`: the source -> corpus with planted canaries, tokenizer, quarantine."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.config import IngestConfig, Params
from gdc.corpus import sources
from gdc.corpus.buckets import Buckets, sorted_on_disk
from gdc.corpus.canaries import check_tokens, make_canaries
from gdc.corpus.samples import (
    check_splits,
    choose_contents,
    content_id,
    contents_of,
    corpus_rows,
    planted_rows,
    samples_of,
    with_num_tokens,
)
from gdc.corpus.sources import unread
from gdc.corpus.sources.unread import UnreadFiles
from gdc.corpus.tokenizer import (
    TextTokenizer,
    load_pretrained_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from gdc.errors import DataError
from gdc.filesystem import durable
from gdc.schema import QUARANTINE, Chunks
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, tracking

FOLDER: Final = Path("work/ingest")


def main() -> None:
    """Read the source and write all that later stages read of it.

    Memory holds a chunk of the texts at a time, and the content id of each row.
    """
    params = files.load_params()
    config = params.ingest
    sections = params.model_dump(
        mode="json", include={"seed": True, "ingest": True, "model": {"block_size"}}
    )
    with tracking.stage_run("ingest", sections) as stage:
        source = _Source(config, params.seed)
        with sorted_on_disk(FOLDER, source) as contents:
            sources.check_bad_rows(source.bad_rows, source.num_usable, on_bad_row=config.on_bad_row)
            corpus, canaries = _plant(contents, params)
            tokenizer = _tokenizer(config, corpus)
            check_tokens(
                canaries,
                tokenizer.encode(canaries["prefix"].to_list()),
                tokenizer.encode(canaries["text"].to_list()),
                block_size=params.model.block_size,
            )
            numbers: Counter[str] = Counter()
            tables.write_chunks("corpus", _tokenized(corpus, tokenizer, config, numbers))
        with durable.new_folder(paths.TOKENIZER) as folder:
            save_tokenizer(tokenizer, folder)
        tables.write("quarantine", source.bad_rows)
        tables.write("canaries", canaries)
        summary = {
            **numbers,
            "num_left_out": source.num_usable - numbers["num_samples"],
            "num_quarantined": source.bad_rows.height,
            "num_unread_files": unread.num_unread(source.unread),
        }
        files.write_json(paths.CORPUS_SUMMARY, summary | {"unread": source.unread})
        stage.log_metrics(summary)
        stage.log_dataset("corpus", tables.TABLES["corpus"][0], "ingest")


class _Source:
    """Contents of the usable rows of a source in chunks; its bad rows are collected."""

    def __init__(self, config: IngestConfig, seed: int) -> None:
        self.unread: dict[str, UnreadFiles] = files.read_json(paths.MANIFEST).get("unread", {})
        _check_seen("source", sources.fingerprint(config.source), paths.MANIFEST)
        seen = sources.fingerprint_pretrained(config.tokenizer)
        _check_seen("tokenizer", seen, paths.PRETRAINED)
        self._chunks = sources.read_chunks(config.source, max_chars=config.max_chars, seed=seed)
        self.bad_rows = pl.DataFrame(schema=QUARANTINE)
        self.num_usable = 0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for chunk in self._chunks:
            self.bad_rows.extend(chunk.bad_rows)
            self.num_usable += chunk.rows.height
            yield contents_of(chunk.rows)


def _check_seen(key: str, found: Mapping[str, object], path: Path) -> None:
    seen = files.read_json(path)
    # A file beside those that are read may come and go.
    seen.pop("unread", None)
    if found != seen:
        raise DataError(
            f"ingest.{key}: expected what {path} has seen, got other content. It changed "
            "meanwhile; start again with `gdc run`."
        )


@dataclass(frozen=True)
class _Samples:
    """``SAMPLES`` tables, a bucket at a time."""

    contents: Buckets
    kept: pl.Series | None

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return (samples_of(contents, self.kept) for contents in self.contents)


@dataclass(frozen=True)
class _Corpus:
    """``CORPUS`` tables without numbers of tokens, a bucket at a time."""

    samples: _Samples
    planted: Sequence[pl.DataFrame]
    reserved: Collection[str]
    validation_fraction: float
    seed: int

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for samples, planted in zip(self.samples, self.planted, strict=True):
            yield corpus_rows(
                samples,
                planted,
                self.reserved,
                validation_fraction=self.validation_fraction,
                seed=self.seed,
            )


def _plant(contents: Buckets, params: Params) -> tuple[_Corpus, pl.DataFrame]:
    config, seed = params.ingest, params.seed
    kept = choose_contents(
        contents.ids(),
        max_samples=config.max_samples,
        seed=seed,
        beginnings=contents.beginnings() if config.choose_by == "beginning" else None,
    )
    samples = _Samples(contents, kept)
    canaries = make_canaries(config.canaries, samples, seed=seed)
    planted = contents.split(planted_rows(canaries))
    reserved = [content_id(text) for text in canaries["text"]]
    return _Corpus(samples, planted, reserved, config.validation_fraction, seed), canaries


def _tokenizer(config: IngestConfig, corpus: Chunks) -> TextTokenizer:
    if config.tokenizer.kind == "pretrained":
        commit = files.read_json(paths.PRETRAINED).get("commit", config.tokenizer.revision)
        return load_pretrained_tokenizer(config.tokenizer.name, commit)
    # With planted copies among them, canaries would get fewer tokens than their twins.
    is_shown = (pl.col("split") == "train") & pl.col("canary_id").is_null()
    texts = (text for table in corpus for text in table.filter(is_shown)["text"])
    return train_tokenizer(texts, config.tokenizer.vocab_size)


def _tokenized(
    corpus: Chunks, tokenizer: TextTokenizer, config: IngestConfig, numbers: Counter[str]
) -> Iterator[pl.DataFrame]:
    """Fill in the number of tokens of every row and add up ``numbers`` of the whole corpus."""
    splits: Counter[str] = Counter()
    for table in corpus:
        num_tokens = [num + 1 for num in tokenizer.num_ids(table["text"])]
        counted = with_num_tokens(table, num_tokens)
        ordinary = counted.filter(pl.col("canary_id").is_null())
        splits.update(ordinary["split"])
        numbers.update(
            num_samples=ordinary.height,
            # All copies of a text stand in one table.
            num_distinct_texts=ordinary["content_id"].n_unique(),
            num_planted_rows=counted.height - ordinary.height,
            num_train_tokens=int(counted.filter(pl.col("split") == "train")["num_tokens"].sum()),
        )
        yield counted
    check_splits(splits, config.validation_fraction)


if __name__ == "__main__":
    run(main)
