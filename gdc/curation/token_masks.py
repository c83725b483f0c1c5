"""Token ids of many texts -> tokens without loss, by rules that read nothing but the text."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import GoldfishArm, SubstringDedupArm
from gdc.corpus.tokenizer import Offsets, TextTokenizer
from gdc.schema import MASKED, PLAN, Chunks

# Of a polynomial hash modulo 2**64, and of the mixing that spreads it over all bits.
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)
_MIXERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFT: Final = np.uint64(31)

Mask = NDArray[np.bool_]


def goldfish_mask(ids: NDArray[np.int64], every: int, context: int, *, seed: int) -> Mask:
    """Which tokens of one text have no loss: those whose ``context`` before hashes to a multiple.

    The same context is followed by the same decision, so copies of a stretch are masked at the same
    places, and what is left out is never learned from any of them. A token with fewer tokens before
    it has its loss.

    Args:
        ids: Of the text.
        every: One token of so many is left out.
        context: Tokens before it that are hashed.
        seed: Of the hash.

    Source: Hans et al. 2024, arXiv:2406.10209.
    """
    masked = np.zeros(len(ids), dtype=np.bool_)
    hashes = _mixed(_window_hashes(ids, context) + np.uint64(seed))
    masked[context:] = hashes[:-1] % np.uint64(every) == 0
    return masked


def repeated_mask(ids: NDArray[np.int64], num_tokens: NDArray[np.int64], min_tokens: int) -> Mask:
    """Which tokens lie in a stretch of at least ``min_tokens`` that stands before, in any text.

    Args:
        ids: Of all texts, one after the other.
        num_tokens: Of each text; a stretch lies in one.
        min_tokens: Of a stretch.

    Source: Lee et al. 2022, arXiv:2107.06499 (ExactSubstr), which removes what is masked here.
    """
    num_repeats = np.zeros(len(ids) + 1, dtype=np.int64)
    ends = np.repeat(num_tokens.cumsum(), num_tokens)
    starts = np.flatnonzero(np.arange(len(ids)) + min_tokens <= ends)
    hashes = _window_hashes(ids, min_tokens)[starts]
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    original = starts[first[group]]
    again = np.flatnonzero(original < starts)
    # Equal hashes of different stretches are rare, and no repeats.
    steps = np.arange(min_tokens)
    for part in np.array_split(again, len(again) // 100_000 + 1):
        here, there = starts[part], original[part]
        is_same = (ids[here[:, None] + steps] == ids[there[:, None] + steps]).all(axis=1)
        np.add.at(num_repeats, here[is_same], 1)
        np.add.at(num_repeats, here[is_same] + min_tokens, -1)
    return np.asarray(num_repeats.cumsum()[:-1] > 0)


def token_mask_plan(
    arm: GoldfishArm | SubstringDedupArm,
    scored: pl.LazyFrame,
    texts: Chunks,
    tokenizer: TextTokenizer,
    *,
    seed: int,
) -> pl.LazyFrame:
    """Keep every sample, and leave the tokens that the rule names out of the loss.

    Args:
        arm: The rule and its numbers.
        scored: Table with the ``sample_id`` of every training sample.
        texts: Tables with ``sample_id`` and ``text`` of the same samples, in any order; of equal
            stretches that in the sample with the smallest id keeps its loss.
        tokenizer: Of the models.
        seed: Of the hash.

    Returns:
        ``PLAN`` table in the order of ``scored``.
    """
    samples = pl.concat(texts).sort("sample_id")
    ids, offsets = tokenizer.encode_with_offsets(samples["text"].to_list())
    masks = _masks(arm, ids, seed)
    spans = [list(_spans(mask, of)) for mask, of in zip(masks, offsets, strict=True)]
    num_masked = [int(mask.sum()) for mask in masks]
    what = "hashed" if isinstance(arm, GoldfishArm) else "repeated"
    found = samples.select(
        "sample_id",
        masked=pl.Series(spans, dtype=MASKED),
        reason=pl.Series([f"{number} {what} tokens" for number in num_masked], dtype=pl.String),
    )
    is_masked = pl.col("masked").list.len() > 0
    return (
        scored.select("sample_id")
        .join(found.lazy(), on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=pl.when(is_masked).then(pl.lit("mask")).otherwise(pl.lit("keep")),
            weight=1.0,
            copies=pl.lit(1, pl.Int64),
            reason="reason",
            masked="masked",
        )
        .match_to_schema(PLAN)
    )


def _masks(
    arm: GoldfishArm | SubstringDedupArm, texts: Sequence[Sequence[int]], seed: int
) -> list[Mask]:
    ids = [np.array(text, dtype=np.int64) for text in texts]
    if isinstance(arm, GoldfishArm):
        return [goldfish_mask(text, arm.every, arm.context, seed=seed) for text in ids]
    lengths = np.array([len(text) for text in ids], dtype=np.int64)
    joined = np.concatenate([np.zeros(0, np.int64), *ids])
    return np.split(repeated_mask(joined, lengths, arm.min_tokens), lengths.cumsum()[:-1])


def _spans(mask: Mask, offsets: Offsets) -> Iterator[dict[str, int]]:
    """The characters of each run of masked tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    for first, end in edges.reshape(-1, 2).tolist():
        yield {"start": offsets[first][0], "end": offsets[end - 1][1]}


def _window_hashes(ids: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    """Hash of the ``size`` ids from each place on; none where fewer follow."""
    num_windows = max(0, len(ids) - size + 1)
    hashes = np.zeros(num_windows, dtype=np.uint64)
    # An id of 0 counts too.
    values = ids.astype(np.uint64) + np.uint64(1)
    for ahead in range(size):
        hashes = hashes * _BASE + values[ahead : ahead + num_windows]
    return hashes


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same with every bit depending on all others: the last bits decide on a remainder."""
    for mixer in _MIXERS:
        hashes = (hashes ^ (hashes >> _SHIFT)) * mixer
    return np.asarray(hashes ^ (hashes >> _SHIFT), dtype=np.uint64)
