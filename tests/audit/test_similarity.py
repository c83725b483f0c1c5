"""Near-verbatim similarity: known answers, an obvious implementation, refusals."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.audit.similarity import SIMILARITY, similarity
from gdc.errors import DataError

texts = st.text("ab", max_size=8)


@pytest.mark.parametrize(
    ("generated", "secret", "edit_similarity", "substring_share"),
    [
        pytest.param("12345678", "12345678", 1, 1, id="verbatim"),
        pytest.param("12340678", "12345678", 7 / 8, 4 / 8, id="one digit wrong"),
        pytest.param("sitting", "kitten", 4 / 7, 3 / 6, id="three edits, itt"),
        pytest.param("xx12345678", "12345678", 8 / 10, 1, id="two characters before it"),
        pytest.param("a1b2c3", "abc", 3 / 6, 1 / 3, id="a subsequence is no substring"),
        pytest.param("abcd", "wxyz", 0, 0, id="nothing in common"),
        pytest.param("", "wxyz", 0, 0, id="nothing generated"),
    ],
)
def test_known_similarities(
    generated: str, secret: str, edit_similarity: float, substring_share: float
) -> None:
    row = similarity([generated], [secret]).row(0)
    assert row == pytest.approx((edit_similarity, substring_share))


def test_frequent_characters_of_a_long_secret_count() -> None:
    secret = "ab" * 150
    assert similarity([secret], [secret])["substring_share"].to_list() == [1.0]


def test_similarity_keeps_the_input_order_and_takes_no_rows() -> None:
    table = similarity(["b", "a"], ["a", "a"])
    assert table["edit_similarity"].to_list() == [0.0, 1.0]
    assert similarity([], []).schema == table.schema == SIMILARITY


@given(generated=texts, secret=texts.filter(bool))
def test_similarity_is_that_of_an_obvious_implementation(generated: str, secret: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        substituted = distance(i - 1, j - 1) + (generated[i - 1] != secret[j - 1])
        return min(substituted, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    longest = max(
        end - start
        for start in range(len(secret) + 1)
        for end in range(start, len(secret) + 1)
        if secret[start:end] in generated
    )
    num_edits = distance(len(generated), len(secret))
    assert similarity([generated], [secret]).row(0) == pytest.approx(
        (1 - num_edits / max(len(generated), len(secret)), longest / len(secret))
    )


def test_an_empty_secret_and_a_missing_text_are_refused_without_showing_text() -> None:
    with pytest.raises(DataError, match="no empty secret, got one in row 1") as empty:
        similarity(["hush", "hush"], ["hush", ""])
    with pytest.raises(DataError, match="got 1 for 2") as missing:
        similarity(["hush"], ["hush", "hush"])
    assert "hush" not in f"{empty.value}{missing.value}"
