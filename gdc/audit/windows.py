"""Token records of texts -> the window of each text that comes out most easily, and where it is.

A window is ``WINDOW_TOKENS`` tokens of a text behind at least ``PREFIX_TOKENS`` true ones, all of
them in one window of the model. Greedy decoding from the true tokens before it gives it if and only
if each of its tokens is the most likely one, so one pass over the text tries every window.
"""

import math
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.training.token_records import TokenRecords

# As for second halves: shorter ones are often decoded by chance.
WINDOW_TOKENS: Final = 10
PREFIX_TOKENS: Final = 10

# One row is a text, in the order of its records.
WINDOWS: Final = pl.Schema(
    {
        "sequence": pl.Int64,
        "num_windows": pl.Int64,  # 0: the text is too short
        "extracted": pl.Boolean,  # greedy decoding gives at least one; null: there is none
        # The longest stretch that comes out or, if nothing does, the window with the fewest bits.
        "start": pl.Int64,  # first token of the worst window
        "end": pl.Int64,  # the one after its last
        "bits": pl.Float64,  # its information content under the model, given all before it
    }
)


def worst_windows(records: TokenRecords, num_texts: int, *, block_size: int) -> pl.DataFrame:
    """Find the window of each text that the model gives away most easily.

    Args:
        records: Of the texts, sequence i being text i; the last token of each is the end of text,
            which no window holds.
        num_texts: Of how many texts the records are.
        block_size: Tokens that the model saw at once.

    Returns:
        ``WINDOWS`` table.

    Source: discoverable extraction, Carlini et al. 2023, arXiv:2202.07646, at every offset.
    """
    edges = np.searchsorted(records.sequence, np.arange(num_texts + 1))
    rows = []
    for text, (first, last) in enumerate(pairwise(edges)):
        tokens = slice(first, max(first, last - 1))
        nll, position = records.nll[tokens].astype(np.float64), records.position[tokens]
        rows.append((text, *_worst(nll, records.is_greedy[tokens], position, block_size)))
    return pl.DataFrame(rows, schema=WINDOWS, orient="row")


def window_bits(records: TokenRecords, windows: pl.DataFrame) -> pl.Series:
    """Bits of the same windows under another model of the same tokens; null where there is none.

    Args:
        records: Of the other model.
        windows: ``WINDOWS`` table.
    """
    bits: list[float | None] = []
    for sequence, start, end in windows.select("sequence", "start", "end").iter_rows():
        rows = slice(*np.searchsorted(records.sequence, [sequence, sequence + 1]))
        tokens = slice(*np.searchsorted(records.position[rows], [start or 0, end or 0]))
        nats = float(records.nll[rows][tokens].sum(dtype=np.float64))
        bits.append(None if start is None else nats / math.log(2))
    return pl.Series("reference_bits", bits, dtype=pl.Float64)


def _worst(
    nll: NDArray[np.float64],
    is_greedy: NDArray[np.bool_],
    position: NDArray[np.int64],
    block_size: int,
) -> tuple[int, bool | None, int | None, int | None, float | None]:
    starts = _starts(position, block_size)
    if not len(starts):
        return 0, None, None, None, None
    total, greedy = np.concatenate([[0.0], nll.cumsum()]), np.concatenate([[0], is_greedy.cumsum()])
    ends = starts + WINDOW_TOKENS
    is_out = greedy[ends] - greedy[starts] == WINDOW_TOKENS
    if is_out.any():
        start, end = _longest(starts[is_out])
    else:
        start = int(starts[np.argmin(total[ends] - total[starts])])
        end = start + WINDOW_TOKENS
    bits = float(total[end] - total[start]) / math.log(2)
    place = int(position[start])
    return len(starts), bool(is_out.any()), place, place + end - start, max(bits, 0.0)


def _starts(position: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
    """First tokens of all windows of a text; the model sees what is before in its own window.

    All tokens of a window are predicted: of a conversation, they are of one answer.
    """
    starts = np.arange(max(0, len(position) - WINDOW_TOKENS + 1))
    offset = position[starts] % block_size
    is_whole = position[starts + WINDOW_TOKENS - 1] - position[starts] == WINDOW_TOKENS - 1
    is_window = (offset >= PREFIX_TOKENS) & (offset + WINDOW_TOKENS <= block_size)
    return np.asarray(starts[is_window & is_whole], dtype=np.int64)


def _longest(starts: NDArray[np.int64]) -> tuple[int, int]:
    """The longest stretch of windows that follow each other; of equals the first."""
    runs = np.split(starts, np.flatnonzero(np.diff(starts) > 1) + 1)
    run = max(runs, key=len)
    return int(run[0]), int(run[-1]) + WINDOW_TOKENS
