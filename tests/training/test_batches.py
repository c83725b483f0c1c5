"""Windows, batches and padding against hand-made answers and plain loops."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.filesystem import scratch
from gdc.training.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    cut_windows,
    group_by_tokens,
    pad_windows,
    plan_batches,
    target_indices,
)

END = 9

texts_of_ids = st.lists(st.lists(st.integers(0, 8), max_size=12), min_size=1, max_size=6)
lengths = st.lists(st.integers(1, 30), max_size=40).map(lambda values: np.array(values, np.int64))


def tokenized(*texts: Sequence[int]) -> TokenizedTexts:
    return TokenizedTexts.from_ids(texts, END)


def test_a_sequence_is_its_text_between_two_end_of_text_ids() -> None:
    texts = tokenized([1, 2], [], [3])
    assert texts.ids.tolist() == [9, 1, 2, 9, 9, 9, 9, 3, 9]
    assert texts.offsets.tolist() == [0, 4, 6, 9]
    assert texts.num_tokens.tolist() == [3, 1, 2]
    assert len(texts) == 3
    assert texts.ids.dtype == np.int32


@given(texts=texts_of_ids, masks=st.booleans(), piece=st.integers(1, 5))
def test_texts_on_disk_are_those_in_memory(
    texts: list[list[int]], masks: bool, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    has_loss = [np.array([i % 2 == 0 for i in text], bool) for text in texts] if masks else None
    whole = TokenizedTexts.from_ids(texts, END, has_loss)
    parts = [
        TokenizedTexts.from_ids([text], END, None if has_loss is None else [has_loss[row]])
        for row, text in enumerate(texts)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setattr(scratch, "PIECE", piece)
        mapped = TokenizedTexts.on_disk(parts)
        assert isinstance(mapped.ids, np.memmap)
        assert mapped.offsets.tolist() == whole.offsets.tolist()
        assert mapped.num_tokens.tolist() == whole.num_tokens.tolist()
        windows = cut_windows(whole, 4)
        again = cut_windows(mapped, 4)
        assert again.num_targets.tolist() == windows.num_targets.tolist()
        batch = np.arange(len(windows))
        for ours, theirs in zip(
            pad_windows(mapped, again, batch), pad_windows(whole, windows, batch), strict=True
        ):
            assert ours.tolist() == theirs.tolist()


def test_no_texts_make_no_windows() -> None:
    texts = tokenized()
    assert len(texts) == len(cut_windows(texts, 4)) == 0
    assert plan_batches(texts.num_tokens, 4, np.random.default_rng(0)) == []


def test_cut_windows_two_texts_by_hand() -> None:
    windows = cut_windows(tokenized([1, 2, 3, 4], [5]), 2)
    assert windows.sequence.tolist() == [0, 0, 0, 1]
    assert windows.start.tolist() == [0, 2, 4, 6]
    assert windows.length.tolist() == [2, 2, 1, 2]


def test_padded_windows_by_hand() -> None:
    texts = tokenized([1, 2, 3, 4], [5])
    inputs, targets = pad_windows(texts, cut_windows(texts, 3), np.array([2, 0, 1]))
    assert inputs.tolist() == [[9, 5, 0], [9, 1, 2], [3, 4, 0]]
    assert targets.tolist() == [[5, 9, PADDING], [1, 2, 3], [4, 9, PADDING]]
    assert inputs.dtype == targets.dtype == np.int64


@given(texts_of_ids, st.integers(1, 6))
def test_windows_match_a_plain_loop(ids: list[list[int]], block_size: int) -> None:
    texts = tokenized(*ids)
    by_hand, offset = [], 0
    for i, text in enumerate(ids):
        num_tokens = len(text) + 1
        for skipped in range(0, num_tokens, block_size):
            by_hand.append((i, offset + skipped, min(block_size, num_tokens - skipped)))
        offset += num_tokens + 1
    windows = cut_windows(texts, block_size)
    found = zip(windows.sequence, windows.start, windows.length, strict=True)
    assert [tuple(map(int, window)) for window in found] == by_hand


@given(texts_of_ids, st.integers(1, 6))
def test_windows_predict_each_token_once_and_in_order(
    ids: list[list[int]], block_size: int
) -> None:
    texts = tokenized(*ids)
    windows = cut_windows(texts, block_size)
    inputs, targets = pad_windows(texts, windows, np.arange(len(windows)))
    is_target = targets != PADDING
    assert is_target.sum(axis=1).tolist() == windows.length.tolist()
    assert windows.length.max() <= block_size
    expected = [token for text in ids for token in [*text, END]]
    assert targets[is_target].tolist() == expected
    assert inputs[is_target].tolist() == [token for text in ids for token in [END, *text]]


@given(texts_of_ids, st.integers(1, 6), st.integers(0, 9))
def test_target_indices_are_those_of_the_targets_of_a_padded_batch(
    ids: list[list[int]], block_size: int, seed: int
) -> None:
    texts = tokenized(*ids)
    windows = cut_windows(texts, block_size)
    chosen = np.random.default_rng(seed).permutation(len(windows))[:3]
    _, targets = pad_windows(texts, windows, chosen)
    found = texts.ids[target_indices(texts, windows, chosen)]
    assert found.tolist() == targets[targets != PADDING].tolist()


@given(lengths, st.integers(1, 60), st.integers(0, 3))
def test_every_index_is_planned_once_and_fits(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], batch_tokens: int, seed: int
) -> None:
    plan = plan_batches(lengths, batch_tokens, np.random.default_rng(seed))
    assert sorted(i for batch in plan for i in batch.tolist()) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= batch_tokens


def test_a_batch_ends_where_its_padded_size_would_be_too_large() -> None:
    lengths = np.array([1, 1, 3, 3, 9, 2])
    groups = group_by_tokens(lengths, np.arange(6), 6)
    assert [group.tolist() for group in groups] == [[0, 1], [2, 3], [4], [5]]


def test_a_batch_wastes_little_on_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, size=2000)
    plan = plan_batches(lengths, 2000, np.random.default_rng(0))
    padded_tokens = sum(int(lengths[batch].max()) * len(batch) for batch in plan)
    assert padded_tokens < 1.2 * lengths.sum()


def test_batches_follow_the_generator() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, size=100)

    def plan(seed: int) -> list[list[int]]:
        planned = plan_batches(lengths, 50, np.random.default_rng(seed))
        return [batch.tolist() for batch in planned]

    assert plan(0) == plan(0)
    assert plan(0) != plan(1)
    longest = [int(lengths[batch].max()) for batch in plan(0)]
    assert longest != sorted(longest)
    assert {frozenset(batch) for batch in plan(0)} != {frozenset(batch) for batch in plan(1)}


def test_a_batch_is_padded_to_its_longest_window() -> None:
    texts = tokenized([1, 2, 3, 4, 5], [6])
    windows = Windows(np.array([0, 1]), np.array([0, 7]), np.array([6, 2]), np.array([6, 2]))
    inputs, _ = pad_windows(texts, windows, np.array([1]))
    assert inputs.tolist() == [[9, 6]]
