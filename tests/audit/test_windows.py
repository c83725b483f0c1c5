"""The window of a text that comes out most easily, against windows counted by hand."""

import math

import numpy as np
import polars as pl
import pytest

from gdc.audit.windows import PREFIX_TOKENS, WINDOW_TOKENS, window_bits, worst_windows
from gdc.training.token_records import TokenRecords


def records_of(*texts: tuple[list[float], set[int]]) -> TokenRecords:
    """Nats of each token of each text and which are greedy; an end of text follows."""
    nll = [[*values, 9.0] for values, _ in texts]
    greedy = [[i in found for i in range(len(values) + 1)] for values, found in texts]
    lengths = [len(values) for values in nll]
    size = sum(lengths)
    return TokenRecords(
        np.repeat(np.arange(len(texts)), lengths),
        np.concatenate([np.arange(length) for length in lengths]),
        np.concatenate(nll).astype(np.float32),
        np.concatenate(greedy),
        np.zeros(size, np.float32),
        np.ones(size, np.float32),
        np.zeros(size, np.int32),
    )


LN2 = math.log(2)


def row(records: TokenRecords, block_size: int = 100) -> tuple[object, ...]:
    return worst_windows(records, 1, block_size=block_size).row(0)[1:]


def test_the_window_with_fewest_bits_is_the_worst_where_nothing_comes_out() -> None:
    nats = [LN2] * 30
    nats[15:25] = [LN2 / 2] * 10
    assert row(records_of((nats, set()))) == (11, False, 15, 25, pytest.approx(5.0))


def test_a_stretch_that_comes_out_is_told_whole() -> None:
    assert row(records_of(([LN2] * 30, set(range(12, 25))))) == (
        11, True, 12, 25, pytest.approx(13.0),
    )  # fmt: skip


def test_tokens_that_are_too_few_or_without_a_prefix_are_no_window() -> None:
    assert row(records_of(([LN2] * 19, set(range(19))))) == (0, None, None, None, None)
    found = row(records_of(([LN2] * 30, set(range(13)))))
    assert found[1] is False


def test_a_window_lies_in_one_window_of_the_model() -> None:
    assert PREFIX_TOKENS == WINDOW_TOKENS == 10
    num_windows, extracted, start, end, _ = row(records_of(([LN2] * 60, set(range(60)))), 25)
    assert (num_windows, extracted) == (12, True)
    assert (start, end) == (10, 25)


def only(records: TokenRecords, is_scored: list[bool]) -> TokenRecords:
    """The records of the tokens that carry a loss."""
    return TokenRecords(*(getattr(records, name)[is_scored] for name in vars(records)))


def test_a_window_of_a_conversation_lies_in_one_answer_and_the_question_is_before_it() -> None:
    # A question of 12 tokens, an answer of 11, a question of 3, an answer of 15; all come out.
    records = records_of(([LN2] * 41, set(range(41))))
    is_scored = [False] * 12 + [True] * 11 + [False] * 3 + [True] * 15 + [True]
    answers = only(records, is_scored)
    assert row(answers) == (2 + 6, True, 26, 41, pytest.approx(15.0))
    found = worst_windows(answers, 1, block_size=100)
    assert window_bits(answers, found).to_list() == [pytest.approx(15.0)]


def test_a_plain_loop_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    texts = [
        (rng.exponential(1, size).tolist(), {*np.flatnonzero(rng.random(size) < 0.9).tolist()})
        for size in (5, 40, 70)
    ]
    found = worst_windows(records_of(*texts), 3, block_size=64)
    for (nats, greedy), extracted in zip(texts, found["extracted"], strict=True):
        outs = [
            {*range(start, start + 10)} <= greedy
            for start in range(len(nats) - 9)
            if 10 <= start % 64 <= 54
        ]
        assert extracted == (any(outs) if outs else None)


def test_bits_of_the_same_windows_under_another_model() -> None:
    ours = records_of(([LN2] * 30, set(range(12, 25))), ([LN2] * 5, set()))
    base = records_of(([3 * LN2] * 30, set()), ([LN2] * 5, set()))
    windows = worst_windows(ours, 2, block_size=100)
    found = window_bits(base, windows)
    assert found.to_list() == [pytest.approx(39.0), None]
    assert found.dtype == pl.Float64
