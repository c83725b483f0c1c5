"""Samples -> near duplicates, each with the id of the kept sample that it resembles.

Near-duplicates are texts whose sets of character shingles overlap: their Jaccard similarity
|A & B| / |A | B| reaches a threshold. MinHash LSH proposes pairs, the exact similarity decides.
Source: Broder 1997; Lee et al. 2021, arXiv:2107.06499.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import numpy as np
import polars as pl
from datasketch import MinHash
from numpy.typing import NDArray
from scipy.special import bdtr

from gdc.config import NearCopies
from gdc.errors import ConfigError, DataError
from gdc.schema import Chunks

NEAR_DUPLICATES: Final = pl.Schema(
    {"sample_id": pl.String, "duplicate_of": pl.String, "similarity": pl.Float64}
)

# Least chance that LSH proposes a pair whose similarity is the threshold; it rises with similarity.
RECALL: Final = 0.999
# Highest chance that such a pair is not compared because it shares too few hash values.
MISSED: Final = 1e-9

_PAIRS: Final = 4096  # compared at a time

Rows = NDArray[np.int64]


def near_duplicates(
    samples: Chunks, *, threshold: float, num_perm: int, shingle_chars: int, seed: int
) -> pl.DataFrame:
    """Samples that are similar to a kept one, when samples are kept in the order of their ids.

    A sample is kept unless its similarity to a kept one reaches the threshold. It is then a
    duplicate of the most similar kept sample, of equals the one with the smallest id. So no kept
    sample is a duplicate, and no two kept samples are similar, but for pairs that LSH misses (see
    ``RECALL``; it never misses exact copies).

    Memory holds the ids, ``4 * num_perm`` bytes for each sample, and the distinct texts of those
    samples that may be similar to another by their hash values; never all texts. The chunks are
    read three times.

    Args:
        samples: Unique ``sample_id`` and ``text``, rows in any order.
        threshold: Jaccard similarity in (0, 1].
        num_perm: Hash functions of a MinHash; more of them propose fewer wrong pairs.
        shingle_chars: Characters of a shingle; a shorter text is one shingle.
        seed: Of the hash functions.

    Returns:
        ``NEAR_DUPLICATES`` table sorted by ``sample_id``.

    Raises:
        DataError: A ``sample_id`` occurs twice.
        ConfigError: The threshold is not in (0, 1], or ``num_perm`` is too small for it.
    """
    bands = _bands(threshold, num_perm)
    ids = pl.concat(
        [pl.Series("sample_id", [], pl.String), *(chunk["sample_id"] for chunk in samples)]
    )
    _require_unique_ids(ids)
    sketches = _Sketches(
        _minhashes(samples, ids.len(), num_perm, shingle_chars, seed),
        bands,
        _least_equal(threshold, num_perm),
    )
    may_be_similar = _may_be_similar(sketches)
    ids, texts = ids.filter(pl.Series(may_be_similar)), _texts(samples, may_be_similar)
    order = ids.arg_sort().to_numpy()
    found = _search(
        [texts[row] for row in order],
        sketches.of(np.flatnonzero(may_be_similar)[order]),
        threshold,
        shingle_chars,
    )
    ids = ids.sort()
    duplicates = [(ids[row], ids[other], similarity) for row, other, similarity in found]
    return pl.DataFrame(duplicates, schema=NEAR_DUPLICATES, orient="row")


def near_copies(samples: Chunks, config: NearCopies, *, seed: int) -> pl.DataFrame:
    """``near_duplicates`` with the settings of a section of params.yaml."""
    return near_duplicates(
        samples,
        threshold=config.threshold,
        num_perm=config.num_perm,
        shingle_chars=config.shingle_chars,
        seed=seed,
    )


def shingles(text: str, size: int) -> frozenset[str]:
    """All substrings of ``size`` characters; a shorter text is one shingle."""
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Share of the elements of either set that are in both; not for two empty sets."""
    num_shared = len(one & other)
    return num_shared / (len(one) + len(other) - num_shared)


@dataclass(frozen=True)
class _Sketches:
    """MinHashes of texts, and when two texts are compared.

    Attributes:
        values: Hash values, texts x hash functions.
        bands: Number of bands, and hash values of each; two texts share at least one band.
        least_equal: Hash values that two texts share at least.
    """

    values: NDArray[np.uint32]
    bands: tuple[int, int]
    least_equal: int

    def of(self, rows: Rows) -> "_Sketches":
        return replace(self, values=self.values[rows])

    def band_keys(self) -> Iterator[pl.Series]:
        """One hash of each text's values in a band, band after band, seeded by the band."""
        num_bands, width = self.bands
        for band in range(num_bands):
            values = self.values[:, band * width : (band + 1) * width]
            yield pl.from_numpy(values, orient="row").hash_rows(seed=band)

    def are_alike(self, rows: Rows, others: Rows) -> NDArray[np.bool_]:
        """Whether each row and its partner in ``others`` share enough hash values."""
        num_equal = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), _PAIRS):
            pairs = slice(start, start + _PAIRS)
            equal = self.values[rows[pairs]] == self.values[others[pairs]]
            num_equal[pairs] = equal.sum(axis=1)
        return num_equal >= self.least_equal


def _minhashes(
    samples: Chunks, num_samples: int, num_perm: int, shingle_chars: int, seed: int
) -> NDArray[np.uint32]:
    """Hash values, samples x hash functions."""
    texts = (text for chunk in samples for text in chunk["text"])
    shingle_bytes = ([s.encode() for s in shingles(text, shingle_chars)] for text in texts)
    # Numpy's RandomState, which the library uses, takes 32 bits.
    minhashes = MinHash.generator(shingle_bytes, num_perm=num_perm, seed=seed % 2**32)
    values = np.empty((num_samples, num_perm), dtype=np.uint32)
    for row, minhash in enumerate(minhashes):
        values[row] = minhash.hashvalues
    return values


def _may_be_similar(sketches: _Sketches) -> NDArray[np.bool_]:
    """Whether each text has to be compared with another one.

    Long texts have common shingles, so in a large corpus each shares a band with another by chance.
    Without the number of equal values all texts would have to be in memory.
    """
    is_alike = np.zeros(len(sketches.values), dtype=np.bool_)
    for band in sketches.band_keys():
        keys = band.to_numpy()
        rows = np.flatnonzero(band.is_duplicated().to_numpy())
        rows = rows[np.argsort(keys[rows])]
        sizes = np.unique(keys[rows], return_counts=True)[1]
        # Start and size of the group of equal keys at each position of the sorted rows.
        starts, sizes = np.repeat(sizes.cumsum() - sizes, sizes), np.repeat(sizes, sizes)
        positions = np.arange(len(rows))
        # Each row is compared with the next of its group, then the one after, until one is alike.
        for step in count(1):
            positions = positions[(sizes[positions] > step) & ~is_alike[rows[positions]]]
            if not positions.size:
                break
            first = starts[positions]
            ones, others = (
                rows[positions],
                rows[first + (positions - first + step) % sizes[positions]],
            )
            alike = sketches.are_alike(ones, others)
            is_alike[ones[alike]] = is_alike[others[alike]] = True
    return is_alike


def _texts(samples: Chunks, is_chosen: NDArray[np.bool_]) -> list[str]:
    """The texts of the chosen rows; those that are equal are one object."""
    texts: list[str] = []
    distinct: dict[str, str] = {}
    start = 0
    for chunk in samples:
        chosen = pl.Series(is_chosen[start : start + chunk.height])
        texts += [distinct.setdefault(text, text) for text in chunk["text"].filter(chosen)]
        start += chunk.height
    return texts


def _search(
    texts: Sequence[str], sketches: _Sketches, threshold: float, shingle_chars: int
) -> Iterator[tuple[int, int, float]]:
    """Each row that is similar to a kept one, the most similar kept one and the similarity."""
    bands = list(sketches.band_keys())
    # A key that no other row has proposes no pair.
    repeated = np.column_stack([band.is_duplicated().to_numpy() for band in bands])
    keys = np.column_stack([band.to_numpy() for band in bands])
    kept: defaultdict[int, list[int]] = defaultdict(list)
    for row in range(len(texts)):
        row_keys = keys[row][repeated[row]].tolist()
        proposed = np.array(sorted({other for key in row_keys for other in kept[key]}), np.int64)
        candidates = proposed[sketches.are_alike(np.full_like(proposed, row), proposed)]
        most_similar, similarity = _most_similar(row, candidates.tolist(), texts, shingle_chars)
        if similarity >= threshold:
            yield row, most_similar, similarity
        else:
            for key in row_keys:
                kept[key].append(row)


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

    Proposed pairs are verified, so a wrong one costs time only and a missed one is lost; the
    library's default balances the two and finds a third to a half of the pairs at the threshold.
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


def _least_equal(threshold: float, num_perm: int) -> int:
    """Hash values that a pair at the threshold shares at least, but for a chance of ``MISSED``.

    The chance that one hash value is shared is the similarity.
    """
    at_most = bdtr(np.arange(num_perm + 1), num_perm, threshold)
    return int(np.searchsorted(at_most, MISSED, side="right"))


def _require_unique_ids(ids: pl.Series) -> None:
    num_repeated = ids.len() - ids.n_unique()
    if num_repeated:
        raise DataError(
            f"duplicates: expected every sample_id once, got {num_repeated} again in "
            f"{ids.len()} rows. Re-run: gdc stage ingest."
        )
