"""The n-gram model that leaves each text out: by hand, against a plain loop, and laws."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.scores import ngrams
from gdc.scores.ngrams import NGRAM_NATS, ORDERS, half_nats, ngram_nats
from tests.builders import cut

# No sample has near copies.
NONE = pl.Series([], dtype=pl.String)


def table_of(texts: Sequence[str], num_trained: int) -> pl.DataFrame:
    """Samples 0, 1, ...; ``num_copies`` counts equal texts of the same split."""
    splits = [(text, i < num_trained) for i, text in enumerate(texts)]
    copies = Counter(splits)
    rows = [(str(i), split[0], copies[split]) for i, split in enumerate(splits)]
    schema = {"sample_id": pl.String, "text": pl.String, "num_copies": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def nats(texts: Sequence[str], num_trained: int) -> list[list[float]]:
    ids = [str(i) for i in range(num_trained)]
    found = ngram_nats([table_of(texts, num_trained)], ids)
    assert found.schema == NGRAM_NATS
    return found["ngram_nats"].to_list()


def test_three_texts_by_hand() -> None:
    # "a" and "ab" are trained on; "b" is held out.
    one, two, heldout = nats(["a", "ab", "b"], num_trained=2)
    # Of the other text: one a, one b. Before its first byte, the start of a text, stands one a.
    assert one[0] == pytest.approx(-math.log((1 + 4 / 256) / (2 + 4)))
    assert one[1] == pytest.approx(-math.log((1 + 4 * math.exp(-one[0])) / (1 + 4)))
    # Of the other text: one a. No b after it, and nothing that begins with a goes on.
    a, b = (1 + 4 / 256) / (1 + 4), (0 + 4 / 256) / (1 + 4)
    assert two[0] == pytest.approx(-math.log(a) - math.log(b))
    assert two[1] == pytest.approx(-math.log((1 + 4 * a) / (1 + 4)) - math.log(b))
    # Of both: two a, one b; no text begins with b.
    b = (1 + 4 / 256) / (3 + 4)
    assert heldout[0] == pytest.approx(-math.log(b))
    assert heldout[1] == pytest.approx(-math.log((0 + 4 * b) / (2 + 4)))


texts = st.lists(st.text("abé ", max_size=6), min_size=1, max_size=5)


@given(texts=texts, num_trained=st.integers(0, 5))
def test_it_matches_a_plain_loop(texts: list[str], num_trained: int) -> None:
    found = nats(texts, num_trained)
    for i, text in enumerate(texts):
        others = [other for j, other in enumerate(texts) if j < num_trained and (other != text)] + [
            other for j, other in enumerate(texts) if j < num_trained <= i and other == text
        ]
        assert found[i] == pytest.approx(by_loop(text, others))


def by_loop(text: str, others: Sequence[str]) -> list[float]:
    pairs: Counter[tuple[tuple[int, ...], int]] = Counter()
    contexts: Counter[tuple[int, ...]] = Counter()
    for other in others:
        for context, byte in contexts_of(other):
            pairs[context, byte] += 1
            contexts[context] += 1
    sums = [0.0] * ORDERS
    for position in range(len(text.encode())):
        probability = 1 / 256
        for order in range(ORDERS):
            context, byte = contexts_of(text)[position * ORDERS + order]
            probability = (pairs[context, byte] + 4 * probability) / (contexts[context] + 4)
            sums[order] -= math.log(probability)
    return sums


def contexts_of(text: str) -> list[tuple[tuple[int, ...], int]]:
    """For each byte the 0 to ``ORDERS - 1`` bytes before it; 256 before the first."""
    padded = [256] * ORDERS + list(text.encode())
    return [
        (tuple(padded[i - order : i]), padded[i])
        for i in range(ORDERS, len(padded))
        for order in range(ORDERS)
    ]


@settings(max_examples=12)
@given(texts=texts, places=st.lists(st.integers(0, 5), max_size=3))
def test_chunks_do_not_matter(texts: list[str], places: list[int]) -> None:
    table, ids = table_of(texts, 2), ["0", "1"]
    assert ngram_nats(cut(table, places), ids).equals(ngram_nats([table], ids))


def test_copies_of_a_text_say_nothing_of_it() -> None:
    text, other = "the secret is 4711", "the sea is wide"
    alone, repeated = nats([text, other], 2)[0], nats([text] * 5 + [other], 6)
    assert repeated[0] == repeated[4] == alone
    # Held out it is told by its copies.
    assert np.less(nats([text] * 5 + [other], 4)[4], alone).all()


def test_a_text_without_bytes_has_no_nats() -> None:
    assert nats(["", "a"], 2)[0] == [0.0] * ORDERS


def test_nats_of_the_halves_are_those_of_models_of_their_texts_alone() -> None:
    """Models 0 and 1 saw texts 0 and 2, and text 1; text 3 was seen by none and stands last."""
    table = table_of(["ab", "abab", "b", "ba"], num_trained=4)
    seen = [[True, False], [False, True], [True, False], [False, False]]
    halves = pl.DataFrame({"sample_id": ["3", "0", "1", "2"], "seen": [seen[3], *seen[:3]]})
    found = half_nats([table[:2], table[2:]], halves, NONE)
    assert found["sample_id"].to_list() == ["3", "0", "1", "2"]
    of_first, of_second = (ngram_nats([table], half)["ngram_nats"] for half in (["0", "2"], ["1"]))
    for text, nats_of_both in found.rows():
        assert nats_of_both == [*of_first[int(text)], *of_second[int(text)]]
    # Under the half that holds it a text owes nothing to itself.
    alone = half_nats(
        [table], halves.with_columns(seen=pl.Series([[False], [False], [True], [False]])), NONE
    )
    assert alone.row(2)[1] == pytest.approx([4 * math.log(256)] * ORDERS)


def test_a_text_with_near_copies_has_no_nats_of_halves_and_the_others_keep_theirs() -> None:
    table = table_of(["abcd", "abce", "abcd", "zz", "zz"], num_trained=5)
    halves = pl.DataFrame({"sample_id": list("01234"), "seen": [[True]] * 3 + [[False]] * 2})
    found = half_nats([table], halves, pl.Series(["0", "1", "2"]))["half_nats"]
    assert found.is_null().to_list() == [True, True, True, False, False]
    assert found[3:].to_list() == half_nats([table], halves, NONE)["half_nats"][3:].to_list()


@pytest.mark.parametrize("part", [1, 40, 2**18])
def test_neither_parts_nor_models_at_once_matter(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    table = table_of(["".join(rng.choice(list("abc"), 9)) for _ in range(12)], num_trained=10)
    seen = rng.random((12, 5)) < 0.5
    halves = pl.DataFrame({"sample_id": table["sample_id"], "seen": seen.tolist()})
    monkeypatch.setattr(ngrams, "_PART", part)
    found = half_nats([table[:5], table[5:5], table[5:]], halves, NONE)
    alone = [ngram_nats([table], table["sample_id"].filter(of))["ngram_nats"] for of in seen.T]
    assert found["half_nats"].to_list() == [
        [*chain.from_iterable(of)] for of in zip(*alone, strict=True)
    ]


def test_without_models_there_are_no_nats_of_halves() -> None:
    halves = pl.DataFrame(
        {"sample_id": ["0"], "seen": [[]]}, schema_overrides={"seen": pl.List(pl.Boolean)}
    )
    assert half_nats([table_of(["a"], 1)], halves, NONE).rows() == [("0", [])]
