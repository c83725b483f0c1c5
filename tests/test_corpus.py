"""Source rows to samples: normal form, ids, copies, split."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.corpus import build_corpus, content_id, normalize, samples_from
from gdc.errors import DataError
from gdc.schema import CANARIES, CORPUS
from tests.builders import rows_of

NO_CANARIES = pl.DataFrame(schema=CANARIES)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        pytest.param("  a b \r\n c\t\r\n", "a b\n c", id="line ends and blanks at line ends"),
        pytest.param("if x:\n    y\n\n    z", "if x:\n    y\n\n    z", id="code keeps its shape"),
        pytest.param("e\u0301", "\u00e9", id="composed"),
        pytest.param(" \n\t ", "", id="nothing but blanks"),
    ],
)
def test_known_normal_forms(text: str, normal: str) -> None:
    assert normalize(text) == normal


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_a_content_id_is_pinned() -> None:
    assert content_id("hello") == "46fb7408d4f285228f4af516ea25851b"


def corpus_of(texts: list[str], canaries: pl.DataFrame = NO_CANARIES) -> pl.DataFrame:
    samples = samples_from(rows_of(texts), max_samples=None, seed=0)
    return build_corpus(samples, canaries, validation_fraction=0.5, seed=0)


def test_copies_are_counted_and_linked() -> None:
    corpus = corpus_of(["x", "y", "x ", "z", "x", *"abcdefg"])
    copies = corpus.filter(pl.col("text") == "x")
    assert copies["num_copies"].to_list() == [3, 3, 3]
    assert copies["sample_id"].to_list() == [f"{content_id('x')}-{i}" for i in range(3)]
    assert copies["source"].to_list() == ["test:0", "test:2", "test:4"]
    assert corpus.schema == CORPUS


@given(st.lists(st.text("abcd", min_size=1, max_size=2), max_size=40))
def test_no_row_is_lost_and_no_content_is_on_both_sides(texts: list[str]) -> None:
    # 20 distinct texts of their own, so that neither split can be empty.
    texts = [*texts, *(f"text {i}" for i in range(20))]
    corpus = corpus_of(texts)
    assert sorted(corpus["text"]) == sorted(texts)
    assert corpus["sample_id"].is_unique().all()
    assert (corpus.group_by("content_id").agg(pl.col("split").n_unique())["split"] == 1).all()


def test_row_order_decides_nothing_but_the_ordinals() -> None:
    texts = [f"text {i % 30}" for i in range(50)]
    a, b = corpus_of(texts), corpus_of(texts[::-1])
    assert a.drop("source").equals(b.drop("source"))


def test_max_samples_keeps_whole_contents_chosen_by_hash() -> None:
    texts = [f"text {i % 40}" for i in range(60)]
    kept = samples_from(rows_of(texts), max_samples=25, seed=0)
    assert 23 <= kept.height <= 25
    everything = samples_from(rows_of(texts), max_samples=None, seed=0)
    chosen = everything.filter(pl.col("content_id").is_in(kept["content_id"].to_list()))
    assert chosen.equals(kept)
    other = samples_from(rows_of(texts), max_samples=25, seed=1)
    assert set(other["content_id"]) != set(kept["content_id"])


def test_planted_rows_are_copies_in_the_training_split_and_their_text_is_reserved() -> None:
    canaries = pl.DataFrame(
        [
            ("natural-3-00", "natural", "text", " 5", "text 5", 3),
            ("natural-0-00", "natural", "text", " 6", "text 6", 0),
        ],
        schema=CANARIES,
        orient="row",
    )
    corpus = corpus_of([f"text {i}" for i in range(20)], canaries)
    five = corpus.filter(pl.col("text") == "text 5")
    assert sorted(five["split"]) == ["reserved", "train", "train", "train"]
    planted = five.filter(pl.col("split") == "train")
    assert planted["canary_id"].to_list() == ["natural-3-00"] * 3
    assert planted["num_copies"].to_list() == [3, 3, 3]
    assert corpus.filter(pl.col("text") == "text 6")["split"].to_list() == ["reserved"]
    assert corpus.height == 23


def test_one_distinct_text_is_refused() -> None:
    with pytest.raises(DataError, match="expected at least 2 distinct texts, got 1 in 3 rows"):
        samples_from(rows_of(["x", "x", " x"]), max_samples=None, seed=0)


def test_an_empty_split_is_refused() -> None:
    samples = samples_from(rows_of(["x", "y"]), max_samples=None, seed=0)
    with pytest.raises(DataError, match=r"the validation split is empty with 2 rows .* 0.001"):
        build_corpus(samples, NO_CANARIES, validation_fraction=0.001, seed=0)
