"""Exact and near duplicates: known answers, a brute-force oracle, laws, refusals."""

import random
from collections.abc import Mapping, Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.corpus.near_duplicates import (
    NEAR_DUPLICATES,
    jaccard,
    near_duplicates,
    shingles,
)
from gdc.errors import ConfigError, DataError
from tests.builders import cut

# A duplicate's id, that of the kept sample that it copies, their similarity.
Duplicate = tuple[str, str, float]


def text_table(texts: Mapping[str, str]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": list(texts), "text": list(texts.values())})


def near(
    texts: Mapping[str, str], threshold: float, *, size: int = 1, seed: int = 0
) -> list[Duplicate]:
    table = near_duplicates(
        [text_table(texts)], threshold=threshold, num_perm=256, shingle_chars=size, seed=seed
    )
    assert table.schema == NEAR_DUPLICATES
    return table.rows()


def brute_force(texts: Mapping[str, str], threshold: float, size: int) -> list[Duplicate]:
    kept: list[str] = []
    duplicates = []
    for sample_id in sorted(texts):
        own = {texts[sample_id][i : i + size] for i in range(len(texts[sample_id]) - size + 1)}
        similarities = []
        for original in kept:
            other = {texts[original][i : i + size] for i in range(len(texts[original]) - size + 1)}
            similarities.append((-len(own & other) / len(own | other), original))
        lowest, original = min(similarities, default=(0.0, ""))
        if -lowest >= threshold:
            duplicates.append((sample_id, original, -lowest))
        else:
            kept.append(sample_id)
    return duplicates


def mutated_texts(seed: int) -> dict[str, str]:
    """Ten texts of 60 letters, each with four copies of which up to 12 letters are changed."""
    rng = random.Random(seed)  # noqa: S311 - guards nothing
    texts: list[str] = []
    for _ in range(10):
        original = rng.choices("abcdefgh", k=60)
        for num_changes in (0, *(rng.randrange(13) for _ in range(4))):
            copy = original.copy()
            for position in rng.sample(range(60), num_changes):
                copy[position] = rng.choice("abcdefgh")
            texts.append("".join(copy))
    rng.shuffle(texts)
    return {f"{i:02d}": text for i, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("one", "other", "size", "similarity"),
    [
        pytest.param("abcd", "abce", 2, 2 / 4, id="two of four shingles"),
        pytest.param("abab", "ab", 2, 1 / 2, id="a shingle counts once"),
        pytest.param("ab", "ab", 5, 1.0, id="equal texts shorter than a shingle"),
        pytest.param("ab", "abc", 5, 0.0, id="different texts shorter than a shingle"),
        pytest.param("", "", 5, 1.0, id="empty texts"),
        pytest.param("abc", "xyz", 1, 0.0, id="nothing in common"),
    ],
)
def test_known_similarities(one: str, other: str, size: int, similarity: float) -> None:
    assert jaccard(shingles(one, size), shingles(other, size)) == similarity
    found = near({"a": one, "b": other}, 0.4, size=size)
    assert found == ([("b", "a", similarity)] if similarity else [])


@pytest.mark.parametrize(
    ("threshold", "found"),
    [
        pytest.param(0.5, [("b", "a", 0.5)], id="at the threshold"),
        pytest.param(0.51, [], id="below the threshold"),
    ],
)
def test_the_threshold_is_inclusive(threshold: float, found: list[Duplicate]) -> None:
    assert near({"a": "abcdef", "b": "cdefgh"}, threshold) == found


def test_a_duplicate_does_not_make_duplicates_of_its_own() -> None:
    """The middle text is similar to both others, which are not similar to each other."""
    assert near({"1": "abcdef", "2": "cdefgh", "3": "efghij"}, 0.5) == [("2", "1", 0.5)]
    assert near({"2": "abcdef", "1": "cdefgh", "3": "efghij"}, 0.5) == [
        ("2", "1", 0.5),
        ("3", "1", 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "original", "similarity"),
    [
        pytest.param("abcdefg", "1", 7 / 8, id="nearer to the first"),
        pytest.param("abcdefi", "2", 7 / 8, id="nearer to the second"),
        pytest.param("abcdef", "1", 6 / 8, id="a tie goes to the smallest id"),
    ],
)
def test_a_duplicate_is_of_the_most_similar_kept_one(
    text: str, original: str, similarity: float
) -> None:
    assert near({"1": "abcdefgh", "2": "abcdefij", "3": text}, 0.65) == [
        ("3", original, similarity)
    ]


@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_duplicates_are_those_of_brute_force(threshold: float, seed: int) -> None:
    texts = mutated_texts(seed)
    found = near(texts, threshold, size=3, seed=seed)
    assert found == brute_force(texts, threshold, 3)
    assert found


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_every_original_is_kept_and_no_two_kept_ones_are_similar(threshold: float) -> None:
    texts = mutated_texts(9)
    duplicates = near(texts, threshold, size=3)
    kept = sorted(texts.keys() - {sample for sample, _, _ in duplicates})
    assert {original for _, original, _ in duplicates} <= set(kept)
    pairs = [(one, other) for one in kept for other in kept if one < other]
    assert all(
        jaccard(shingles(texts[one], 3), shingles(texts[other], 3)) < threshold
        for one, other in pairs
    )


def test_nearly_all_pairs_at_the_threshold_are_found() -> None:
    """400 pairs of texts with no letter in common but within a pair: 8 of 10 letters shared."""
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))
    blocks = [letters[i : i + 10] for i in range(0, 4000, 10)]
    pairs = {f"{i}-{j}": block[j : j + 9] for i, block in enumerate(blocks) for j in (0, 1)}
    duplicates = near(pairs, 0.8)
    assert len(duplicates) >= 396
    assert all(sample == original[:-1] + "1" for sample, original, _ in duplicates)
    assert {similarity for _, _, similarity in duplicates} == {0.8}


@settings(max_examples=12)
@given(
    texts=st.lists(st.text(max_size=12), max_size=8),
    threshold=st.floats(0.3, 1),
    size=st.integers(1, 4),
)
def test_exact_copies_are_found_with_similarity_one(
    texts: Sequence[str], threshold: float, size: int
) -> None:
    copies = {f"{i}-{j}": text for i, text in enumerate(texts) for j in (0, 1)}
    found = {sample: similarity for sample, _, similarity in near(copies, threshold, size=size)}
    for i in range(len(texts)):
        assert f"{i}-1" in found
        if f"{i}-0" not in found:
            assert found[f"{i}-1"] == 1.0


@settings(max_examples=10)
@given(order=st.permutations(range(50)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    table = text_table(mutated_texts(3))
    one, other = (
        near_duplicates([rows], threshold=0.6, num_perm=64, shingle_chars=3, seed=0)
        for rows in (table, table[order])
    )
    assert_frame_equal(one, other)


@settings(max_examples=10)
@given(order=st.permutations(range(50)), places=st.lists(st.integers(0, 50), max_size=6))
def test_duplicates_do_not_depend_on_the_batches(order: list[int], places: list[int]) -> None:
    table = text_table(mutated_texts(3))
    one, other = (
        near_duplicates(batches, threshold=0.6, num_perm=64, shingle_chars=3, seed=0)
        for batches in ([table], cut(table[order], places))
    )
    assert_frame_equal(one, other)


def test_a_seed_beyond_32_bits_is_taken() -> None:
    texts = mutated_texts(0)
    assert near(texts, 0.8, size=3, seed=2**40 + 1) == brute_force(texts, 0.8, 3)


def test_no_rows_have_no_duplicates() -> None:
    empty = pl.DataFrame(schema=dict.fromkeys(("sample_id", "content_id", "text"), pl.String))
    for batches in ([empty], [empty, empty], []):
        duplicates = near_duplicates(batches, threshold=0.8, num_perm=128, shingle_chars=5, seed=0)
        assert duplicates.is_empty()
        assert duplicates.schema == NEAR_DUPLICATES


def test_a_repeated_id_is_refused() -> None:
    table = pl.DataFrame({"sample_id": ["a", "a"], "content_id": ["x", "y"], "text": ["x", "y"]})
    with pytest.raises(DataError, match="every sample_id once, got 1 again in 2 rows"):
        near_duplicates([table], threshold=0.8, num_perm=128, shingle_chars=5, seed=0)


@pytest.mark.parametrize(
    ("threshold", "num_perm", "message"),
    [
        (0.0, 128, r"threshold in \(0, 1\], got 0.0"),
        (1.1, 128, r"threshold in \(0, 1\], got 1.1"),
        (0.05, 16, "99.9% of the pairs at threshold 0.05, got 16"),
        (0.8, 1, "got 1. Raise either"),
    ],
)
def test_settings_that_find_too_little_are_refused(
    threshold: float, num_perm: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        near_duplicates(
            [text_table({"a": "x"})],
            threshold=threshold,
            num_perm=num_perm,
            shingle_chars=5,
            seed=0,
        )
