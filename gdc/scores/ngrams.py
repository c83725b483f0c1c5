"""Texts -> the loss of a byte n-gram model of the training split that leaves each text out.

What it says of a text owes nothing to that text or its copies, so it is a loss of unseen text.
Counts stand in tables of fixed size, by hash, so memory does not grow with the corpus.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.schema import Chunks

ORDERS: Final = 6
"""Longest n-gram, in bytes."""

NGRAM_NATS: Final = pl.Schema({"sample_id": pl.String(), "ngram_nats": pl.List(pl.Float64)})

# Counts of a table: 2^20 of them take 8 MiB.
_BITS: Final = 20
# As many observations as the shorter context stands for.
_PRIOR: Final = 4.0
# Models whose counts are held together, as those of the two halves of a pair: 96 MiB each.
_AT_ONCE: Final = 2
# Bytes of text whose numbers, some hundred times as large, are held together.
_PART: Final = 2**18
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
    return _nats_of_models(texts, [trained])


def half_nats(texts: Chunks, halves: pl.DataFrame, near: pl.Series) -> pl.DataFrame:
    """Nats of each text under n-gram models of the halves of the reference models.

    A half that holds the text leaves it out, so that no half owes anything to it. That cannot be
    said of a text whose near copies always fall into the same half as itself.

    Args:
        texts: As for ``ngram_nats``; they are read twice for each pair of models.
        halves: ``sample_id`` and the list ``seen``, whether each reference model saw the sample.
        near: Ids of the samples with near copies that are no exact ones.

    Returns:
        ``sample_id`` and ``half_nats``, what ``ngram_nats`` gives for each model, one after the
        other, of the samples of ``halves``; null for those of ``near``.
    """
    num_models = halves.select(pl.col("seen").list.len().max()).item() or 0
    table = halves.select("sample_id", half_nats=pl.lit([], pl.List(pl.Float64)))
    sides = [
        halves.filter(pl.col("seen").list.get(model, null_on_oob=True))["sample_id"]
        for model in range(num_models)
    ]
    for first in range(0, num_models, _AT_ONCE):
        nats = _nats_of_models(texts, sides[first : first + _AT_ONCE])
        table = table.join(nats, on="sample_id", how="left", maintain_order="left").select(
            "sample_id", half_nats=pl.concat_list("half_nats", "ngram_nats")
        )
    has_near = pl.col("sample_id").is_in(near.implode())
    return table.with_columns(half_nats=pl.when(~has_near).then("half_nats"))


@dataclass(frozen=True)
class _Model:
    """Counts of the texts of ``trained``, orders x buckets."""

    trained: frozenset[str]
    ngrams: Counts = field(default_factory=lambda: np.zeros((ORDERS, 2**_BITS), dtype=np.int64))
    contexts: Counts = field(default_factory=lambda: np.zeros((ORDERS, 2**_BITS), dtype=np.int64))

    def is_trained(self, sample_ids: pl.Series) -> NDArray[np.bool_]:
        """Whether each of them is of ``trained``."""
        # polars would convert all of ``trained`` for each few of them.
        return np.array([sample_id in self.trained for sample_id in sample_ids], dtype=np.bool_)


def _nats_of_models(texts: Chunks, trained: Sequence[Collection[str]]) -> pl.DataFrame:
    """As ``ngram_nats``, with the numbers of one model after those of the other."""
    models = [_Model(frozenset(ids)) for ids in trained]
    for chunk in _small(texts):
        is_trained = [model.is_trained(chunk["sample_id"]) for model in models]
        known = _Bytes(chunk.filter(np.any(is_trained, axis=0)))
        is_own = [of[np.any(is_trained, axis=0)][known.text] for of in is_trained]
        for order in range(ORDERS):
            ngrams, contexts = known.ngrams(order), known.contexts(order)
            for model, is_of in zip(models, is_own, strict=True):
                _count(ngrams[is_of], model.ngrams[order])
                _count(contexts[is_of], model.contexts[order])
    parts = [_chunk_nats(chunk, models) for chunk in _small(texts)]
    return pl.concat([pl.DataFrame(schema=NGRAM_NATS), *parts])


def _small(texts: Chunks) -> Iterator[pl.DataFrame]:
    """Parts of the chunks with about ``_PART`` bytes of text."""
    for chunk in texts:
        num_bytes = 1 + int(chunk["text"].str.len_bytes().sum())
        yield from chunk.iter_slices(max(1, chunk.height * _PART // num_bytes))


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


def _chunk_nats(chunk: pl.DataFrame, models: Sequence[_Model]) -> pl.DataFrame:
    known = _Bytes(chunk)
    num_copies = chunk["num_copies"].to_numpy()
    copies = [(num_copies * model.is_trained(chunk["sample_id"]))[known.text] for model in models]
    probabilities = [np.full(len(known.text), 1 / 256) for _ in models]
    nats = np.empty((known.num_texts, len(models), ORDERS))
    for order in range(ORDERS):
        # What does not depend on the model is found once for all.
        ngrams, contexts = known.ngrams(order), known.contexts(order)
        own_ngrams, own_contexts = _own(ngrams, known.text), _own(contexts, known.text)
        for place, model in enumerate(models):
            count = _others(model.ngrams[order][ngrams], own_ngrams, copies[place])
            total = _others(model.contexts[order][contexts], own_contexts, copies[place])
            # Two n-grams in one bucket may make the sum of the parts more than the whole.
            shorter = _PRIOR * probabilities[place]
            probabilities[place] = (np.minimum(count, total) + shorter) / (total + _PRIOR)
            nats[:, place, order] = np.bincount(
                known.text, weights=-np.log(probabilities[place]), minlength=known.num_texts
            )
    lists = nats.reshape(known.num_texts, -1).tolist()
    return chunk.select("sample_id", ngram_nats=pl.Series(lists, dtype=pl.List(pl.Float64)))


def _count(buckets: Buckets, counts: Counts) -> None:
    found, times = np.unique(buckets, return_counts=True)
    counts[found] += times


def _own(buckets: Buckets, text: NDArray[np.int64]) -> Counts:
    """How often each bucket comes in its own text."""
    _, own, times = np.unique((text << _BITS) | buckets, return_inverse=True, return_counts=True)
    return np.asarray(times[own])


def _others(counts: Counts, own: Counts, copies: NDArray[np.int64]) -> Counts:
    """Counts without those of the text itself, in all its copies."""
    # A table of samples may leave out copies.
    return np.maximum(counts - own * copies, 0)


def _mixed(hashes: NDArray[np.uint64], values: NDArray[np.int64]) -> NDArray[np.uint64]:
    # Products wrap around.
    return (hashes ^ (values.astype(np.uint64) + np.uint64(1))) * _MULTIPLIER


def _bucket(hashes: NDArray[np.uint64]) -> Buckets:
    folded = (hashes ^ (hashes >> np.uint64(32))) * _MULTIPLIER
    return (folded >> np.uint64(64 - _BITS)).astype(np.int64)
