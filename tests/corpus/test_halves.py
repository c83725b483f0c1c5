"""Which model is trained on what: complementary halves, copies together, no dependence on order."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.corpus.halves import assign_halves, with_near_copies
from gdc.corpus.near_duplicates import near_duplicates
from gdc.corpus.samples import content_id
from gdc.errors import ConfigError
from gdc.schema import HALVES

NO_DUPLICATES = pl.DataFrame(schema={"sample_id": pl.String, "duplicate_of": pl.String})


def samples_of(*contents: str) -> pl.DataFrame:
    """Copies of a content are numbered as in the corpus."""
    copies = pl.int_range(pl.len()).over("content_id").cast(pl.String)
    return pl.DataFrame({"content_id": contents}, schema={"content_id": pl.String}).with_columns(
        sample_id=pl.col("content_id") + "-" + copies
    )


def seen_of(table: pl.DataFrame) -> dict[str, list[bool]]:
    return dict(table.iter_rows())


contents = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12)


@given(names=contents, num_pairs=st.integers(0, 3), seed=st.integers(0, 99))
def test_every_sample_is_unseen_by_one_model_of_each_pair(
    names: list[str], num_pairs: int, seed: int
) -> None:
    table = assign_halves(samples_of(*names), NO_DUPLICATES, num_models=2 * num_pairs, seed=seed)
    assert table.schema == HALVES
    assert table["sample_id"].to_list() == sorted(samples_of(*names)["sample_id"])
    for seen in seen_of(table).values():
        assert len(seen) == 2 * num_pairs
        assert all(seen[2 * k] != seen[2 * k + 1] for k in range(num_pairs))


@given(names=contents, seed=st.integers(0, 99), shuffle=st.integers(0, 99))
def test_neither_row_order_nor_other_texts_matter(
    names: list[str], seed: int, shuffle: int
) -> None:
    samples = samples_of(*names)
    table = assign_halves(samples, NO_DUPLICATES, num_models=2, seed=seed)
    shuffled = samples.sample(fraction=1, shuffle=True, seed=shuffle)
    assert_frame_equal(assign_halves(shuffled, NO_DUPLICATES, num_models=2, seed=seed), table)
    alone = assign_halves(samples[:1], NO_DUPLICATES, num_models=2, seed=seed)
    assert seen_of(alone).items() <= seen_of(table).items()


def test_copies_and_chains_of_near_copies_fall_in_one_half() -> None:
    samples = samples_of("a", "a", "a", "b", "c", "d", *[f"x{i}" for i in range(40)])
    # d is like c, and c is like a: all in the half of a.
    duplicates = pl.DataFrame({"sample_id": ["c-0", "d-0"], "duplicate_of": ["a-1", "c-0"]})
    for seed in range(20):
        seen = seen_of(assign_halves(samples, duplicates, num_models=4, seed=seed))
        assert seen["a-0"] == seen["a-1"] == seen["a-2"] == seen["c-0"] == seen["d-0"]


def test_halves_are_about_even_and_differ_between_pairs() -> None:
    samples = samples_of(*[f"x{i:04}" for i in range(1000)])
    seen = seen_of(assign_halves(samples, NO_DUPLICATES, num_models=4, seed=0)).values()
    firsts = [models[0] for models in seen]
    assert 440 < sum(firsts) < 560
    assert 440 < sum(models[0] == models[2] for models in seen) < 560


def test_a_model_without_its_partner_is_refused() -> None:
    with pytest.raises(ConfigError, match="even number, got 3"):
        assign_halves(samples_of("a"), NO_DUPLICATES, num_models=3, seed=0)


def test_texts_have_near_copies_where_another_text_shares_their_group() -> None:
    """c is like a, of which there are two, and d like c; b has an exact copy alone, e none."""
    samples = samples_of("a", "a", "b", "b", "c", "d", "e")
    pairs = [("a-1", "a-0"), ("b-1", "b-0"), ("c-0", "a-0"), ("d-0", "c-0")]
    duplicates = pl.DataFrame(
        pairs, schema={"sample_id": pl.String, "duplicate_of": pl.String}, orient="row"
    )
    found = with_near_copies(samples, duplicates)
    assert sorted(found) == ["a-0", "a-1", "c-0", "d-0"]
    assert with_near_copies(samples, NO_DUPLICATES).to_list() == []


def test_texts_of_one_set_of_shingles_are_near_copies_unless_they_are_equal() -> None:
    texts = ["abc" * 9, "abc" * 12, "xyz" * 9, "xyz" * 9]
    samples = pl.DataFrame({"sample_id": list("0123"), "text": texts}).with_columns(
        content_id=pl.Series([content_id(text) for text in texts])
    )
    duplicates = near_duplicates([samples], threshold=0.8, num_perm=64, shingle_chars=5, seed=0)
    assert duplicates.rows() == [("1", "0", 1.0), ("3", "2", 1.0)]
    assert with_near_copies(samples, duplicates).to_list() == ["0", "1"]
