"""Stretches after unrelated texts: hand-made texts and records, a direct call."""

import math

import numpy as np
import polars as pl
import pytest

from gdc.audit import membership_table
from gdc.audit.model_audit import ask_elsewhere
from gdc.audit.predictability import NUM_PREFIXES, Stretch, bits_per_token, elsewhere
from gdc.schema import MEMBERSHIP
from tests.audit.model_builders import ids_of, nll_after, records_of, samples_of, subject_of

IDS = [list(range(10, 20)), list(range(20, 25)), [31, 32]]


def test_a_stretch_stands_behind_the_ends_of_other_texts() -> None:
    texts, starts = elsewhere(IDS, [Stretch(0, 3, 6)], [0, 1, 2], block_size=64)
    # As many tokens as stand before it in its own text, if the other has so many.
    first, second = [22, 23, 24, 13, 14, 15], [31, 32, 13, 14, 15]
    assert texts == [first, second, first, second, first]
    assert starts.tolist() == [3, 2, 3, 2, 3]


def test_a_stretch_of_a_later_window_stands_behind_what_the_model_saw_and_is_cut_to_it() -> None:
    texts, starts = elsewhere(IDS, [Stretch(0, 5, 10)], [1], block_size=4)
    assert texts == [[24, 15, 16, 17]] * NUM_PREFIXES
    assert starts.tolist() == [1] * NUM_PREFIXES


def test_stretches_asked_for_in_parts_stand_behind_the_same_texts() -> None:
    stretches = [Stretch(0, 3, 6), Stretch(1, 2, 4), Stretch(2, 1, 2), Stretch(0, 1, 2)]
    whole, starts = elsewhere(IDS, stretches, [0, 2], block_size=64)
    parts = [
        elsewhere(IDS, stretches[first : first + 3], [0, 2], block_size=64, first=first)
        for first in (0, 3)
    ]
    assert [text for texts, _ in parts for text in texts] == whole
    assert np.concatenate([of_part for _, of_part in parts]).tolist() == starts.tolist()
    # Text 1 is no prefix itself, so it stands behind both by turns, from number 5 on.
    assert whole[NUM_PREFIXES : NUM_PREFIXES + 2] == [[31, 32, 22, 23], [18, 19, 22, 23]]


def test_without_another_text_there_is_nothing_to_ask() -> None:
    assert elsewhere(IDS, [Stretch(0, 3, 6)], [0], block_size=64)[0] == []


def test_bits_are_those_of_all_tokens_but_the_first_and_the_end() -> None:
    """Before the stretch two tokens, then 9, 1 and 2 bits, then the end; one prefix costs more."""
    bits = [[5.0, 5, 9, 1, 2, 7]] * (NUM_PREFIXES - 1) + [[5.0, 5, 9, 6, 7, 7]]
    nll = [[bit * math.log(2) for bit in text] for text in bits]
    records = records_of(nll, [[False] * 6] * NUM_PREFIXES)
    found = bits_per_token(records, np.full(NUM_PREFIXES, 2))
    assert found.tolist() == pytest.approx([((NUM_PREFIXES - 1) * 1.5 + 6.5) / NUM_PREFIXES])


def test_a_model_is_asked_with_the_other_text_before_the_stretch() -> None:
    model, tokenizer, _ = subject = subject_of(block_size=64)
    samples = samples_of("members only", "held-out text", "a third one", "another held")
    texts, is_member = samples["text"], samples["is_member"].to_numpy()
    found = ask_elsewhere(subject, texts, is_member, [Stretch(0, 4, 9)], batch_tokens=64)
    ids = [ids_of(tokenizer, text) for text in samples["text"]]
    nats = []
    for k in range(NUM_PREFIXES):
        before = [tokenizer.end_of_text, *ids[(1, 3)[k % 2]][-4:], ids[0][4]]
        nats.append(nll_after(model, before, ids[0][5:9]) / 4)
    assert found == pytest.approx([sum(nats) / len(nats) / math.log(2)], rel=1e-5)
    alone = ask_elsewhere(subject, texts[:1], is_member[:1], [Stretch(0, 4, 9)], batch_tokens=64)
    assert np.isnan(alone).all()


def test_what_is_predictable_is_not_memorized() -> None:
    suffixes = (("a", 19, True), ("b", 19, True), ("c", 4, True), ("d", 19, False))
    rows = [(name, True, 40, 1.0, num, 1.0, is_out) for name, num, is_out in suffixes]
    table = pl.DataFrame(rows, schema=MEMBERSHIP, orient="row")
    records = records_of([[1.0] * 40] * 4, [[True] * 40] * 4)
    stretches = membership_table.suffix_stretches(table, records, block_size=24)
    # Of the first window, and of those that come out and are long.
    assert stretches == [Stretch(0, 12, 24), Stretch(1, 12, 24)]
    judged = membership_table.with_bits_elsewhere(table, stretches, np.array([1.0, 1.01]))
    assert judged[membership_table.ELSEWHERE].to_list() == [1.0, 1.01, None, None]
    assert membership_table.is_memorized(judged).to_list() == [False, True, True, False]
