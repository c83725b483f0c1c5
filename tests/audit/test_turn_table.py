"""Turns of conversations by hand: their losses, and which of them greedy decoding gives whole."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from gdc.audit.turn_table import AUDITED_TURNS, audit_turns
from gdc.training.token_records import TokenRecords

# Each conversation: turns with their number and first character, the positions of their tokens and
# of the end of text; a token is a character.
Conversation = tuple[list[tuple[int, int]], list[int], list[float], list[bool]]


def audited(conversations: Sequence[Conversation], block_size: int = 64) -> pl.DataFrame:
    lengths = [len(positions) for _, positions, _, _ in conversations]
    flat = [
        np.concatenate([np.asarray(conversation[part]) for conversation in conversations])
        for part in (1, 2, 3)
    ]
    position, nll, is_greedy = flat
    nothing = np.zeros(len(position), np.float32)
    records = TokenRecords(
        np.repeat(np.arange(len(lengths)), lengths), position, nll.astype(np.float32), is_greedy,
        nothing, nothing, nothing.astype(np.int32),
    )  # fmt: skip
    turns = pl.Series(
        [[{"turn": n, "start": start} for n, start in turns] for turns, *_ in conversations]
    )
    offsets = [[(p, p + 1) for p in positions[:-1]] for _, positions, _, _ in conversations]
    return audit_turns(records, turns, offsets, block_size=block_size)


def said(*turns: tuple[int, int, int], missed: int | None = None) -> Conversation:
    """Turns (number, first position, tokens), losses 1, 2, ...; at one position not greedy."""
    positions = [first + i for _, first, num in turns for i in range(num)]
    positions.append(positions[-1] + 1)
    return (
        [(number, first) for number, first, _ in turns],
        positions,
        [float(i + 1) for i in range(len(positions))],
        [position != missed for position in positions],
    )


def test_a_turn_has_the_mean_of_its_tokens_and_the_last_the_end_of_text_too() -> None:
    table = audited([said((1, 5, 2), (3, 12, 3)), said((0, 0, 1))])
    assert table.schema == AUDITED_TURNS
    assert table.drop("extracted").rows() == [(0, 1, 2, 1.5), (0, 3, 4, 4.5), (1, 0, 2, 1.5)]


@pytest.mark.parametrize(
    ("conversation", "extracted"),
    [
        pytest.param(said((1, 3, 10)), [True], id="all of its tokens are the likeliest"),
        pytest.param(said((1, 3, 10), missed=7), [False], id="one is not"),
        pytest.param(said((1, 3, 10), missed=13), [True], id="the end of text, which is not said"),
        pytest.param(said((1, 3, 9)), [None], id="short"),
        pytest.param(said((1, 3, 10), (3, 20, 10), missed=25), [True, False], id="each alone"),
        pytest.param(said((1, 60, 10)), [None], id="in two windows of the model"),
        pytest.param(said((1, 66, 10)), [None], id="the model does not see what is before"),
        pytest.param(said((1, 74, 10)), [True], id="it sees ten tokens before"),
    ],
)
def test_a_turn_comes_out_if_greedy_decoding_gives_all_of_it(
    conversation: Conversation, extracted: list[bool | None]
) -> None:
    assert audited([conversation])["extracted"].to_list() == extracted
