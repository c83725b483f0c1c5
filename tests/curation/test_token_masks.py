"""Masks by the text alone: by hand, against plain loops, laws, and plans that training reads."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gdc.config import GoldfishArm, SubstringDedupArm
from gdc.corpus.tokenizer import masked_tokens, train_tokenizer
from gdc.curation.token_masks import goldfish_mask, repeated_mask, token_mask_plan
from gdc.schema import PLAN

texts_of_ids = st.lists(st.lists(st.integers(0, 2), max_size=12), min_size=1, max_size=4)


def repeated(texts: list[list[int]], min_tokens: int) -> list[bool]:
    ids = np.array([i for text in texts for i in text], dtype=np.int64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return [bool(is_masked) for is_masked in repeated_mask(ids, lengths, min_tokens)]


def test_a_stretch_has_its_loss_where_it_stands_first() -> None:
    texts = [[1, 2, 3, 4], [9, 2, 3, 4, 9], [2, 3, 9]]
    assert repeated(texts, 3) == [*[False] * 4, False, True, True, True, False, *[False] * 3]
    # Of two tokens "2 3" stands a third time; no stretch goes from one text into the next.
    assert repeated(texts, 2)[-3:] == [True, True, False]
    assert not any(repeated([[1, 2], [3, 1], [2, 3]], 2))
    # In one text too, and where it overlaps itself.
    assert repeated([[7, 7, 7, 7]], 2) == [False, True, True, True]


@given(texts=texts_of_ids, min_tokens=st.integers(1, 4))
def test_repeats_match_a_plain_loop(texts: list[list[int]], min_tokens: int) -> None:
    seen: set[tuple[int, ...]] = set()
    expected = []
    for text in texts:
        mask = [False] * len(text)
        for start in range(len(text) - min_tokens + 1):
            stretch = tuple(text[start : start + min_tokens])
            if stretch in seen:
                mask[start : start + min_tokens] = [True] * min_tokens
            seen.add(stretch)
        expected += mask
    assert repeated(texts, min_tokens) == expected


def mixed_by_hand(context: list[int], seed: int) -> int:
    """The hash in whole numbers of Python."""
    value = 0
    for token in context:
        value = (value * 0x9E3779B97F4A7C15 + token + 1) % 2**64
    value = (value + seed) % 2**64
    for mixer in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        value = ((value ^ (value >> 31)) * mixer) % 2**64
    return value ^ (value >> 31)


@given(
    ids=st.lists(st.integers(0, 5), max_size=30),
    every=st.integers(2, 5),
    context=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_token_is_left_out_by_what_stands_before_it(
    ids: list[int], every: int, context: int, seed: int
) -> None:
    expected = [
        i >= context and mixed_by_hand(ids[i - context : i], seed) % every == 0
        for i in range(len(ids))
    ]
    found = goldfish_mask(np.array(ids, dtype=np.int64), every, context, seed=seed)
    assert found.tolist() == expected


def test_copies_are_masked_alike_and_one_token_of_so_many() -> None:
    rng = np.random.default_rng(0)
    copy, before = rng.integers(0, 500, 8000), rng.integers(0, 500, 50)
    alone = goldfish_mask(copy, 4, 13, seed=1)
    behind = goldfish_mask(np.concatenate([before, copy]), 4, 13, seed=1)
    assert (behind[63:] == alone[13:]).all()
    assert alone[13:].mean() == pytest.approx(1 / 4, abs=0.02)
    assert (goldfish_mask(copy, 4, 13, seed=2) != alone).any()


TEXTS = {
    "b-0": "the same long sentence stands here, then something else",
    "a-0": "at first: the same long sentence stands here",
    "c-0": "nothing of it",
}


@pytest.mark.parametrize(
    "arm",
    [
        GoldfishArm(rule="goldfish", every=3, context=2),
        SubstringDedupArm(rule="substring-dedup", min_tokens=10),
    ],
)
def test_a_plan_masks_what_the_rule_says_and_keeps_every_sample(
    arm: GoldfishArm | SubstringDedupArm,
) -> None:
    tokenizer = train_tokenizer([], 257)
    scored = pl.LazyFrame({"sample_id": list(TEXTS)})
    samples = pl.DataFrame({"sample_id": list(TEXTS), "text": list(TEXTS.values())})
    plan = token_mask_plan(arm, scored, [samples[:1], samples[1:]], tokenizer, seed=5).collect()
    assert plan.schema == PLAN
    assert plan["sample_id"].to_list() == list(TEXTS)
    assert plan["weight"].to_list() == [1.0] * 3
    for row in plan.iter_rows(named=True):
        text = TEXTS[row["sample_id"]]
        ids = np.array(tokenizer.encode([text])[0])
        found = masked_tokens(tokenizer.offsets([text])[0], row["masked"])
        assert row["action"] == ("mask" if found.any() else "keep")
        if isinstance(arm, GoldfishArm):
            assert found.tolist() == goldfish_mask(ids, 3, 2, seed=5).tolist()
            assert row["reason"] == f"{found.sum()} hashed tokens"
        else:
            # The smallest id keeps its loss; bytes are tokens here.
            repeat = "the same long sentence stands here" if row["sample_id"] == "b-0" else ""
            assert found.tolist() == [i < len(repeat) for i in range(len(text))]
            assert row["reason"] == f"{len(repeat)} repeated tokens"


def test_numbers_that_no_rule_can_have_are_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        GoldfishArm(rule="goldfish", every=1, context=13)
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        SubstringDedupArm(rule="substring-dedup", min_tokens=1)
