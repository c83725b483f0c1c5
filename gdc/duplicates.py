"""Corpus -> the rows that nearly repeat another one, each with the id of its twin.

Near-duplicates are texts whose sets of character shingles overlap: their Jaccard similarity
|A & B| / |A | B| reaches a threshold. MinHash LSH proposes pairs, the exact similarity decides.
Source: Broder 1997; Lee et al. 2021, arXiv:2107.06499.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl
from datasketch import MinHash, MinHashLSH

from gdc.config import NearCopies
from gdc.errors import ConfigError, DataError

NEAR_DUPLICATES: Final = pl.Schema(
    {"sample_id": pl.String, "twin_id": pl.String, "similarity": pl.Float64}
)

# Least chance that LSH proposes a pair whose similarity is the threshold; above it, it is higher.
RECALL: Final = 0.999


def near_duplicates(
    table: pl.DataFrame, *, threshold: float, num_perm: int, shingle_chars: int, seed: int
) -> pl.DataFrame:
    """Samples that are similar to a kept one, when samples are kept in the order of their ids.

    A sample is kept unless its similarity to one that is already kept reaches the threshold; its
    twin is the most similar kept one, of equals the one with the smallest id. So no twin is itself
    a duplicate, and no two kept samples are similar (but for pairs that LSH overlooks, see
    ``RECALL``; exact copies never are).

    Args:
        table: Unique ``sample_id`` and ``text``, rows in any order.
        threshold: Jaccard similarity in (0, 1].
        num_perm: Hash functions of a MinHash; more of them propose fewer pairs in vain.
        shingle_chars: Characters of a shingle; a shorter text is its own single shingle.
        seed: Of the hash functions.

    Returns:
        ``NEAR_DUPLICATES`` table sorted by ``sample_id``.

    Raises:
        DataError: A ``sample_id`` occurs twice.
        ConfigError: The threshold is not in (0, 1], or ``num_perm`` is too small for it.
    """
    _require_unique_ids(table)
    index = MinHashLSH(num_perm=num_perm, params=_bands(threshold, num_perm))
    table = table.sort("sample_id")
    ids, texts = table["sample_id"].to_list(), table["text"].to_list()
    shingle_bytes = ([s.encode() for s in shingles(text, shingle_chars)] for text in texts)
    # Numpy's RandomState, which the library uses, takes 32 bits.
    minhashes = MinHash.generator(shingle_bytes, num_perm=num_perm, seed=seed % 2**32)
    duplicates = []
    for row, minhash in enumerate(minhashes):
        candidates = sorted(index.query(minhash))
        twin, similarity = _most_similar(row, candidates, texts, shingle_chars)
        if similarity >= threshold:
            duplicates.append((ids[row], ids[twin], similarity))
        else:
            index.insert(row, minhash, check_duplication=False)
    return pl.DataFrame(duplicates, schema=NEAR_DUPLICATES, orient="row")


def near_copies(table: pl.DataFrame, config: NearCopies, *, seed: int) -> pl.DataFrame:
    """``near_duplicates`` as a section of params.yaml asks for them."""
    return near_duplicates(
        table,
        threshold=config.threshold,
        num_perm=config.num_perm,
        shingle_chars=config.shingle_chars,
        seed=seed,
    )


def shingles(text: str, size: int) -> frozenset[str]:
    """All substrings of ``size`` characters; a shorter text is its own single shingle."""
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Share of the elements of either set that are in both; not for two empty sets."""
    num_shared = len(one & other)
    return num_shared / (len(one) + len(other) - num_shared)


def _most_similar(
    row: int, candidates: Iterable[int], texts: Sequence[str], shingle_chars: int
) -> tuple[int, float]:
    """First of the most similar candidates; ``row`` itself and 0 when there is none."""
    own = shingles(texts[row], shingle_chars)
    best, highest = row, 0.0
    for candidate in candidates:
        similarity = jaccard(own, shingles(texts[candidate], shingle_chars))
        if similarity > highest:
            best, highest = candidate, similarity
    return best, highest


def _bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Number and width of the widest bands that propose a pair at the threshold with ``RECALL``.

    Candidates are verified, so a pair proposed in vain costs time and an overlooked one is lost;
    the balance of the two that is the library's default finds a third to a half there.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"near-duplicates: expected a threshold in (0, 1], got {threshold}.")
    for width in range(num_perm // 2, 0, -1):
        num_bands = num_perm // width
        if 1 - (1 - threshold**width) ** num_bands >= RECALL:
            return num_bands, width
    raise ConfigError(
        f"near-duplicates: expected num_perm enough to find {RECALL:.1%} of the pairs at threshold "
        f"{threshold}, got {num_perm}. Raise either."
    )


def _require_unique_ids(table: pl.DataFrame) -> None:
    num_repeated = table.height - table["sample_id"].n_unique()
    if num_repeated:
        raise DataError(
            f"duplicates: expected every sample_id once, got {num_repeated} again in "
            f"{table.height} rows. Re-run: gdc stage ingest."
        )
