"""Token ids of many texts -> windows -> length-bucketed, padded batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.filesystem import scratch

# Target of a padded position; torch's cross entropy ignores it too.
PADDING: Final = -100
# Lengths are stretched by up to this share before sorting: batches differ from epoch to epoch, and
# padding is at most this share of a batch.
LENGTH_JITTER: Final = 0.2


@dataclass(frozen=True)
class TokenizedTexts:
    """Sequences end to end: ``ids`` int32, sequence i is ``ids[offsets[i]:offsets[i + 1]]``.

    A sequence is the ids of its text between two end-of-text ids. All ids but the first are
    predicted, or of them those where ``has_loss``, one bool for each id, is true; None: all. The
    arrays with an entry for each id may lie in files.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    has_loss: NDArray[np.bool_] | None = None

    @classmethod
    def from_ids(
        cls,
        texts: Sequence[Sequence[int]],
        end_of_text: int,
        has_loss: Sequence[NDArray[np.bool_]] | None = None,
    ) -> "TokenizedTexts":
        """Join the ids of the texts, which come without end-of-text ids, into one array.

        Args:
            texts: Ids of each.
            end_of_text: Put before and behind each; the one behind is always predicted.
            has_loss: Whether each id of each text is predicted; None: all are.
        """
        lengths = np.array([len(ids) + 2 for ids in texts], dtype=np.int64)
        joined = np.concatenate(
            [np.zeros(0, np.int32), *([end_of_text, *ids, end_of_text] for ids in texts)]
        )
        predicted = None
        if has_loss is not None:
            predicted = np.concatenate(
                [np.zeros(0, bool), *(np.r_[False, of_text, True] for of_text in has_loss)]
            )
        return cls(
            joined.astype(np.int32),
            np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
            predicted,
        )

    @classmethod
    def on_disk(cls, parts: Iterable["TokenizedTexts"]) -> "TokenizedTexts":
        """Join the sequences of all parts, in order, in a file; of each part it holds the offsets.

        All parts say which ids have a loss, or none does.
        """
        ends, end = [np.zeros(1, np.int64)], 0
        with scratch.new_file() as ids, scratch.new_file() as has_loss:
            for part in parts:
                ids.write(part.ids.tobytes())
                ends.append(part.offsets[1:] + end)
                end += len(part.ids)
                if part.has_loss is not None:
                    has_loss.write(part.has_loss.tobytes())
            predicted = scratch.mapped(has_loss, np.bool_)
            return cls(
                scratch.mapped(ids, np.int32),
                np.concatenate(ends),
                predicted if len(predicted) else None,
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Predicted tokens of each sequence."""
        if self.has_loss is None:
            return np.diff(self.offsets) - 1
        num: NDArray[np.int64] = np.diff(self._num_predicted_before[self.offsets])
        return num

    def num_targets(self, start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
        """Predicted tokens among the ``length`` ids behind each ``start``."""
        if self.has_loss is None:
            return length
        before = self._num_predicted_before
        return np.asarray(before[start + 1 + length] - before[start + 1], dtype=np.int64)

    def target_ranks(
        self, indices: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ranks of some ids, given by index, in sequences ``rows``, among all predicted ones."""
        if self.has_loss is None:
            # The first id of every sequence, its own included, is not predicted.
            return indices - (rows + 1)
        return self._num_predicted_before[indices]

    def positions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sequence of every predicted token, and its place among all ids but the first."""
        sequence = np.repeat(np.arange(len(self)), self.num_tokens)
        if self.has_loss is None:
            return sequence, np.arange(len(sequence)) - (self.offsets[sequence] - sequence)
        return sequence, np.flatnonzero(self.has_loss) - self.offsets[sequence] - 1

    @cached_property
    def _num_predicted_before(self) -> NDArray[np.int64]:
        assert self.has_loss is not None  # noqa: S101 - the callers look
        before = scratch.zeros(len(self.has_loss) + 1, np.int64, like=self.has_loss)
        for piece in scratch.pieces(len(self.has_loss)):
            behind = slice(piece.start + 1, piece.stop + 1)
            before[behind] = before[piece.start] + self.has_loss[piece].cumsum(dtype=np.int64)
            scratch.forget(before, self.has_loss)
        return before

    def forget_pages(self) -> None:
        """Give back the memory that pages of the arrays on disk take."""
        # Only a property that was read has an entry.
        scratch.forget(self.ids, self.has_loss, self.__dict__.get("_num_predicted_before"))


@dataclass(frozen=True)
class Windows:
    """Pieces of sequences: window j has the ``length[j]`` ids behind the id at ``start[j]``.

    It predicts ``num_targets[j]`` of them. Consecutive windows of a sequence share one id, so each
    of its tokens is predicted once.
    """

    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    num_targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sequence)

    def select(self, rows: NDArray[np.int64]) -> "Windows":
        """The windows of these rows, in their order."""
        return Windows(
            self.sequence[rows], self.start[rows], self.length[rows], self.num_targets[rows]
        )


def cut_windows(texts: TokenizedTexts, block_size: int) -> Windows:
    """Cut every sequence into windows of at most ``block_size`` ids; each predicts some."""
    lengths = np.diff(texts.offsets) - 1
    counts = -(-lengths // block_size)
    sequence = np.repeat(np.arange(len(texts)), counts)
    ordinal = np.arange(len(sequence)) - np.repeat(counts.cumsum() - counts, counts)
    skipped = ordinal * block_size
    length = np.minimum(lengths[sequence] - skipped, block_size)
    start = texts.offsets[sequence] + skipped
    windows = Windows(sequence, start, length, texts.num_targets(start, length))
    return (
        windows if texts.has_loss is None else windows.select(np.flatnonzero(windows.num_targets))
    )


def plan_batches(
    lengths: NDArray[np.int64], batch_tokens: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Group indices of similar length so that a padded batch has at most ``batch_tokens`` tokens.

    A length above ``batch_tokens`` makes a batch of its own. Both the batches and their order are
    random; every index occurs once.
    """
    stretched = lengths * rng.uniform(1, 1 + LENGTH_JITTER, size=len(lengths))
    batches = group_by_tokens(lengths, np.argsort(stretched, kind="stable"), batch_tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def group_by_tokens(
    lengths: NDArray[np.int64], order: NDArray[np.int64], batch_tokens: int
) -> list[NDArray[np.int64]]:
    """Cut ``order`` into runs whose longest length times their size is within ``batch_tokens``."""
    cuts, begin, longest = [], 0, 0
    for position, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        if position > begin and longest * (position - begin + 1) > batch_tokens:
            cuts.append(position)
            begin, longest = position, length
    return [run for run in np.split(order, cuts) if len(run)]


def pad_windows(
    texts: TokenizedTexts, windows: Windows, batch: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs and targets of the windows of a batch, both windows x longest length, padded right.

    Padded inputs are id 0, which no real position of a causal model sees; padded targets are
    ``PADDING``, as are those without a loss.
    """
    length = windows.length[batch]
    # A window has one id more than it predicts: the target of its last input.
    positions = np.arange(length.max() + 1)
    is_real = positions[:-1] < length[:, None]
    index = np.where(positions <= length[:, None], windows.start[batch][:, None] + positions, 0)
    ids = scratch.take(texts.ids, index)
    inputs = np.where(is_real, ids[:, :-1], 0).astype(np.int64)
    is_target = is_real
    if texts.has_loss is not None:
        is_target = is_real & scratch.take(texts.has_loss, index[:, 1:])
    targets = np.where(is_target, ids[:, 1:], PADDING).astype(np.int64)
    texts.forget_pages()
    return inputs, targets


def target_indices(
    texts: TokenizedTexts, windows: Windows, batch: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices into ``ids`` of all tokens that the windows of a batch predict, window by window."""
    length = windows.length[batch]
    first = np.repeat(windows.start[batch] + 1 - (length.cumsum() - length), length)
    indices = np.asarray(first + np.arange(length.sum()), dtype=np.int64)
    return indices if texts.has_loss is None else indices[texts.has_loss[indices]]
