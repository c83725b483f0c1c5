"""Stage `ingest`: the source -> corpus with planted canaries, tokenizer, quarantine."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.config import ChatSource, IngestConfig, Params
from gdc.corpus import sources
from gdc.corpus.buckets import Buckets, sorted_on_disk
from gdc.corpus.canaries import check_tokens, make_canaries
from gdc.corpus.chat import ChatFormat, content_ids, say_canaries, turns_of, with_unscored
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
from gdc.filesystem.json_values import JsonObject
from gdc.schema import CORPUS, KEYS, QUARANTINE, TURNS, Chunks
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, tracking

FOLDER: Final = Path("work/ingest")


def main() -> None:
    """Read the source and write all that later stages read of it.

    Memory holds a chunk of the texts at a time, and the content id and the key of each row.
    """
    params = files.load_params()
    config = params.ingest
    sections = params.model_dump(
        mode="json", include={"seed": True, "ingest": True, "model": {"block_size"}}
    )
    with tracking.stage_run("ingest", sections) as stage:
        pretrained = _pretrained(config)
        chat = _chat_format(config, pretrained)
        source = _Source(config, params.seed, chat, pretrained)
        with sorted_on_disk(FOLDER, source) as contents:
            sources.check_bad_rows(source.bad_rows, source.num_usable, on_bad_row=config.on_bad_row)
            samples = _samples(contents, params)
            canaries, turns = _canaries(samples, params, chat)
            corpus = _Kept(_plant(samples, canaries, params), [*source.turns, turns])
            tokenizer = pretrained or _train_tokenizer(config, corpus)
            tokenizer = tokenizer if chat is None else chat.tokenizer(tokenizer)
            _check_canaries(canaries, tokenizer, params.model.block_size)
            numbers: Counter[str] = Counter()
            tables.write_chunks("corpus", _tokenized(corpus, tokenizer, config, numbers))
        tables.write("turns", corpus.turns_of_corpus(canaries))
        with durable.new_folder(paths.TOKENIZER) as folder:
            save_tokenizer(tokenizer, folder)
        read = {"quarantine": source.bad_rows, "keys": source.keys, "canaries": canaries}
        for name, table in read.items():
            tables.write(name, table)
        stage.log_metrics(_summarize(source, numbers))
        stage.log_dataset("corpus", tables.TABLES["corpus"][0], "ingest")


def _check_canaries(canaries: pl.DataFrame, tokenizer: TextTokenizer, block_size: int) -> None:
    prefixes, texts = (tokenizer.encode(canaries[name].to_list()) for name in ("prefix", "text"))
    check_tokens(canaries, prefixes, texts, block_size=block_size)


def _summarize(source: "_Source", numbers: Mapping[str, int]) -> dict[str, int]:
    summary = {
        **numbers,
        "num_left_out": source.num_usable - numbers["num_samples"],
        "num_quarantined": source.bad_rows.height,
        "num_unread_files": unread.num_unread(source.unread),
    }
    files.write_json(paths.CORPUS_SUMMARY, summary | {"unread": source.unread})
    return summary


class _Source:
    """Contents of the usable rows of a source in chunks; its bad rows are collected."""

    def __init__(
        self,
        config: IngestConfig,
        seed: int,
        chat: ChatFormat | None,
        pretrained: TextTokenizer | None,
    ) -> None:
        self.unread: dict[str, UnreadFiles] = files.read_json(paths.MANIFEST).get("unread", {})
        _check_seen("source", sources.fingerprint(config.source), paths.MANIFEST)
        seen = sources.fingerprint_pretrained(config.tokenizer)
        _check_seen("tokenizer", seen, paths.PRETRAINED)
        self._chunks = sources.read_chunks(
            config.source,
            max_chars=config.max_chars,
            seed=seed,
            chat=chat,
            tokenizer=pretrained,
        )
        self.bad_rows = pl.DataFrame(schema=QUARANTINE)
        # Of conversations; a text and its turns are known by the same id.
        self.turns: list[pl.DataFrame] = []
        self.keys = pl.DataFrame(schema=KEYS)
        self.num_usable = 0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for chunk in self._chunks:
            self.bad_rows.extend(chunk.bad_rows)
            self.num_usable += chunk.rows.height
            if "key" in chunk.rows.columns:
                self.keys.extend(chunk.rows.select(KEYS.names()))
            contents = contents_of(chunk.rows)
            if "turns" in chunk.rows.columns:
                self.turns.append(turns_of(contents["content_id"], chunk.rows["turns"]))
            yield contents


def _check_seen(key: str, found: JsonObject, path: Path) -> None:
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


class _Kept:
    """``CORPUS`` tables, with ``unscored`` where they are of conversations."""

    def __init__(self, corpus: Chunks, turns: Sequence[pl.DataFrame]) -> None:
        self._corpus = corpus
        self._turns = pl.concat(turns).unique(
            ["content_id", "turn"], keep="first", maintain_order=True
        )
        self._ids: set[str] = set()

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for table in self._corpus:
            if self._turns.height:
                self._ids |= {*table["content_id"]}
            yield with_unscored(table, self._turns)

    def turns_of_corpus(self, canaries: pl.DataFrame) -> pl.DataFrame:
        """The turns of the texts that were iterated and of all canaries, sorted."""
        ids = pl.Series([*(self._ids | {*content_ids(canaries["text"])})], dtype=pl.String)
        return self._turns.filter(pl.col("content_id").is_in(ids.implode())).sort(
            "content_id", "turn"
        )


def _chat_format(config: IngestConfig, pretrained: TextTokenizer | None) -> ChatFormat | None:
    """How conversations become texts; None: the source has none."""
    if not isinstance(config.source, ChatSource):
        return None
    return ChatFormat.of(pretrained, config.source.chat_template)


def _samples(contents: Buckets, params: Params) -> _Samples:
    config = params.ingest
    kept = choose_contents(
        contents.ids(),
        max_samples=config.max_samples,
        seed=params.seed,
        beginnings=contents.beginnings() if config.choose_by == "beginning" else None,
    )
    return _Samples(contents, kept)


def _canaries(
    samples: _Samples, params: Params, chat: ChatFormat | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The canaries, in conversations said by the assistant, and their turns."""
    canaries = make_canaries(params.ingest.canaries, samples, seed=params.seed)
    return (canaries, pl.DataFrame(schema=TURNS)) if chat is None else say_canaries(canaries, chat)


def _plant(samples: _Samples, canaries: pl.DataFrame, params: Params) -> _Corpus:
    planted = samples.contents.split(planted_rows(canaries))
    reserved = [content_id(text) for text in canaries["text"]]
    return _Corpus(samples, planted, reserved, params.ingest.validation_fraction, params.seed)


def _pretrained(config: IngestConfig) -> TextTokenizer | None:
    if config.tokenizer.kind != "pretrained":
        return None
    commit = files.read_json(paths.PRETRAINED).get("commit", config.tokenizer.revision)
    return load_pretrained_tokenizer(config.tokenizer.name, commit)


def _train_tokenizer(config: IngestConfig, corpus: Chunks) -> TextTokenizer:
    assert config.tokenizer.kind == "bpe"  # noqa: S101 - the other kind is loaded
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
        counted = with_num_tokens(table.select(CORPUS.names()), _num_tokens(table, tokenizer))
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


def _num_tokens(table: pl.DataFrame, tokenizer: TextTokenizer) -> list[int]:
    """Tokens of each text that are predicted, its end among them."""
    if "unscored" not in table.columns:
        return [num + 1 for num in tokenizer.num_ids(table["text"])]
    has_loss = tokenizer.has_loss(table["text"].to_list(), table["unscored"].to_list())
    return [int(of_text.sum()) + 1 for of_text in has_loss]


if __name__ == "__main__":
    run(main)
