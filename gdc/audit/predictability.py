"""Stretches of text that come out of a model -> how well it predicts them after unrelated text.

What a model gives after its own prefix may be remembered, or be what it says after whatever text: a
licence, a heading, a phrase. After the prefixes of other texts only the latter comes out.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gdc.training.token_records import TokenRecords

NUM_PREFIXES: Final = 5
"""Unrelated prefixes after which a stretch is asked for."""

PREFIX_TOKENS: Final = 32
"""Tokens of an unrelated prefix at most; no more than stand before the stretch."""

PREDICTABLE_BITS: Final = 1.0
"""Bits per token up to which a stretch is predictable: every token is as likely as not."""

_NATS_PER_BIT: Final = float(np.log(2))


class Stretch(NamedTuple):
    """Tokens ``start`` up to but not including ``end`` of the text with number ``text``."""

    text: int
    start: int
    end: int


class IdsOfTexts(Protocol):
    """Ids of each of several texts, by its number."""

    def __getitem__(self, text: int, /) -> Sequence[int]: ...


def elsewhere(
    ids: IdsOfTexts,
    stretches: Sequence[Stretch],
    pool: Sequence[int] | NDArray[np.int64],
    *,
    block_size: int,
    first: int = 0,
) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Put each stretch after the ends of ``NUM_PREFIXES`` other texts.

    Args:
        ids: Of all texts, without the ends of text.
        stretches: Of some of them.
        pool: Numbers of the texts whose ends serve as prefixes, ascending; a text is no prefix of
            its own.
        block_size: Tokens that the model sees at once.
        first: Number of the first stretch, where they are not asked for all together.

    Returns:
        The texts to ask about, ``NUM_PREFIXES`` for each stretch in turn, and the place at which
        the stretch begins in each. Without another text there is none.
    """
    texts, starts = [], []
    for number, (text, start, end) in enumerate(stretches, first):
        place = int(np.searchsorted(pool, text))
        is_pooled = place < len(pool) and pool[place] == text
        num_others = len(pool) - is_pooled
        length = min(start % block_size, PREFIX_TOKENS)
        for k in range(NUM_PREFIXES if num_others else 0):
            at = (number * NUM_PREFIXES + k) % num_others
            other = ids[int(pool[at + (is_pooled and at >= place)])]
            prefix = list(other[max(0, len(other) - length) :])
            room = block_size - len(prefix)
            texts.append([*prefix, *ids[text][start : min(end, start + room)]])
            starts.append(len(prefix))
    return texts, np.array(starts, dtype=np.int64)


def bits_per_token(records: TokenRecords, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean bits of the tokens of each stretch but the first, over its unrelated prefixes.

    The first token has no context of its own. Lower: predictable after whatever text.

    Args:
        records: Of the texts that ``elsewhere`` made, in their order.
        starts: As it returned them.

    Source: Tiwari et al. 2026, arXiv:2602.18733, who compare with the bits after the own prefix.
    """
    edges = np.searchsorted(records.sequence, np.arange(len(starts) + 1))
    # The last token of a text is its end.
    means = [
        records.nll[first + start + 1 : last - 1].mean(dtype=np.float64)
        for start, (first, last) in zip(starts, pairwise(edges), strict=True)
    ]
    by_stretch = np.array(means, dtype=np.float64).reshape(-1, NUM_PREFIXES)
    return np.asarray(by_stretch.mean(axis=1) / _NATS_PER_BIT, dtype=np.float64)
