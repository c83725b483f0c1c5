"""Texts -> the loss of a byte n-gram model of the training split that leaves each text out.

What it says of a text owes nothing to that text or its copies, so it is a loss of unseen text.
Counts stand in tables of fixed size, by hash, so memory does not grow with the corpus.
"""

from collections.abc import Collection
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.schema import Chunks

ORDERS: Final = 6
"""Longest n-gram, in bytes."""

NGRAM_NATS: Final = pl.Schema({"sample_id": pl.String(), "ngram_nats": pl.List(pl.Float64)})

# Counts of a table: 2^20 of them take 4 MiB.
_BITS: Final = 20
# As many observations as the shorter context stands for.
_PRIOR: Final = 4.0
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
# What stands before a text.
_START: Final = 256

Counts = NDArray[np.int64]
Buckets = NDArray[np.int64]


def ngram_nats(texts: Chunks, trained: Collection[str]) -> pl.DataFrame:
    """Nats of each text under n-gram models of the other training texts.

    The model of n bytes mixes its own counts with the model of n - 1 bytes, the shortest with a
    uniform choice among 256; the counts of a text leave out all its copies.

    Args:
        texts: ``sample_id``, ``text`` and ``num_copies`` (rows of its split with the same text).
            They are read twice, and memory holds the texts of one chunk.
        trained: Ids of the training samples; the others are counted nowhere.

    Returns:
        ``NGRAM_NATS`` table in row order: a list of the nats of the whole text for 1 to ``ORDERS``
        bytes.

    Source: Dirichlet smoothing, MacKay & Peto 1995, of leave-one-out counts.
    """
    ngrams, contexts = (np.zeros((ORDERS, 2**_BITS), dtype=np.int64) for _ in range(2))
    ids = set(trained)
    for chunk in texts:
        known = _Bytes(chunk.filter(pl.col("sample_id").is_in(ids)))
        for order in range(ORDERS):
            _count(known.ngrams(order), ngrams[order])
            _count(known.contexts(order), contexts[order])
    parts = [_chunk_nats(chunk, ids, ngrams, contexts) for chunk in texts]
    return pl.concat([pl.DataFrame(schema=NGRAM_NATS), *parts])


def half_nats(texts: Chunks, halves: pl.DataFrame, duplicates: pl.DataFrame | None) -> pl.DataFrame:
    """Nats of each text under n-gram models of the halves of the reference models.

    A half that holds the text leaves it out, so that no half owes anything to it. That cannot be
    said of a text whose near copies always fall into the same half as itself.

    Args:
        texts: As for ``ngram_nats``; they are read twice for each half.
        halves: ``sample_id`` and the list ``seen``, whether each reference model saw the sample.
        duplicates: ``NEAR_DUPLICATES`` that fell into the same halves; None: there are none.

    Returns:
        ``sample_id`` and ``half_nats``, what ``ngram_nats`` gives for each model, one after the
        other, of the samples of ``halves``; null for one with near copies that are no exact ones.
    """
    num_models = halves.select(pl.col("seen").list.len().max()).item() or 0
    table = halves.select("sample_id", half_nats=pl.lit([], pl.List(pl.Float64)))
    for model in range(num_models):
        half = halves.filter(pl.col("seen").list.get(model, null_on_oob=True))["sample_id"]
        nats = ngram_nats(texts, half.to_list())
        table = table.join(nats, on="sample_id", how="left", maintain_order="left").select(
            "sample_id", half_nats=pl.concat_list("half_nats", "ngram_nats")
        )
    if duplicates is None:
        return table
    near = duplicates.filter(pl.col("similarity") < 1).select("duplicate_of").unique()
    copies = duplicates.join(near, on="duplicate_of", how="semi")["sample_id"]
    has_near = pl.col("sample_id").is_in(pl.concat([near["duplicate_of"], copies]).implode())
    return table.with_columns(half_nats=pl.when(~has_near).then("half_nats"))


class _Bytes:
    """The bytes of some texts end to end, and the buckets of the n-grams that end at each."""

    def __init__(self, texts: pl.DataFrame) -> None:
        encoded = [text.encode() for text in texts["text"]]
        lengths = np.array([len(text) for text in encoded], dtype=np.int64)
        self.num_texts = len(encoded)
        self.text = np.repeat(np.arange(len(encoded)), lengths)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int64)
        self._position = np.arange(len(self.text)) - np.repeat(lengths.cumsum() - lengths, lengths)
        hashes = [np.zeros(len(self.text), dtype=np.uint64)]
        for back in range(1, ORDERS):
            hashes.append(_mixed(hashes[-1], self._before(back)))
        self._hashes = hashes

    def contexts(self, order: int) -> Buckets:
        """Buckets of the ``order`` bytes before each."""
        return _bucket(self._hashes[order])

    def ngrams(self, order: int) -> Buckets:
        """Buckets of the same with the byte itself."""
        return _bucket(_mixed(self._hashes[order], self._bytes))

    def _before(self, back: int) -> NDArray[np.int64]:
        shifted = np.roll(self._bytes, back)
        shifted[self._position < back] = _START
        return shifted


def _chunk_nats(
    chunk: pl.DataFrame, trained: Collection[str], ngrams: Counts, contexts: Counts
) -> pl.DataFrame:
    known = _Bytes(chunk)
    is_trained = chunk["sample_id"].is_in(trained).to_numpy()
    copies = (chunk["num_copies"].to_numpy() * is_trained)[known.text]
    probability = np.full(len(known.text), 1 / 256)
    nats = np.empty((known.num_texts, ORDERS))
    for order in range(ORDERS):
        count = _others(known.ngrams(order), ngrams[order], known.text, copies)
        total = _others(known.contexts(order), contexts[order], known.text, copies)
        # Two n-grams in one bucket may make the sum of the parts more than the whole.
        probability = (np.minimum(count, total) + _PRIOR * probability) / (total + _PRIOR)
        nats[:, order] = np.bincount(
            known.text, weights=-np.log(probability), minlength=known.num_texts
        )
    return chunk.select("sample_id", ngram_nats=pl.Series(nats.tolist(), dtype=pl.List(pl.Float64)))


def _count(buckets: Buckets, counts: Counts) -> None:
    found, times = np.unique(buckets, return_counts=True)
    counts[found] += times


def _others(
    buckets: Buckets, counts: Counts, text: NDArray[np.int64], copies: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Counts without those of the text itself, in all its copies."""
    _, own, times = np.unique((text << _BITS) | buckets, return_inverse=True, return_counts=True)
    # A table of samples may leave out copies.
    return np.asarray(np.maximum(counts[buckets] - times[own] * copies, 0))


def _mixed(hashes: NDArray[np.uint64], values: NDArray[np.int64]) -> NDArray[np.uint64]:
    # Products wrap around.
    return (hashes ^ (values.astype(np.uint64) + np.uint64(1))) * _MULTIPLIER


def _bucket(hashes: NDArray[np.uint64]) -> Buckets:
    folded = (hashes ^ (hashes >> np.uint64(32))) * _MULTIPLIER
    return (folded >> np.uint64(64 - _BITS)).astype(np.int64)
