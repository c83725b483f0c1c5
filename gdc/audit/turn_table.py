"""Token records of conversations -> the loss of each turn, and whether the whole turn comes out."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from gdc.audit.windows import PREFIX_TOKENS, WINDOW_TOKENS
from gdc.corpus.tokenizer import Offsets
from gdc.mapping.turns import turn_of_tokens
from gdc.training.token_records import TokenRecords

# One row is a turn with a loss, in the order of the texts; a turn without a token has none.
AUDITED_TURNS: Final = pl.Schema(
    {
        "sequence": pl.Int64,
        "turn": pl.Int64,  # as in TURNS
        "num_tokens": pl.Int64,  # predicted ones; the end of text is of the last turn
        "loss": pl.Float64,  # nats per token
        # Greedy decoding of what stands before it gives all of the turn; null where it is short, or
        # the model does not see it at once with what stands before it.
        "extracted": pl.Boolean,
    }
)


def audit_turns(
    records: TokenRecords,
    turns: pl.Series,
    offsets: Sequence[Offsets],
    *,
    block_size: int,
) -> pl.DataFrame:
    """Part the token records of conversations by their turns.

    Args:
        records: Of the conversations, sequence i being conversation i.
        turns: Of each the list of its turns with a loss, ``turn`` and ``start``, in the order of
            the text.
        offsets: Of the tokens of each that have a loss, the end of text not among them.
        block_size: Tokens that the model saw at once.

    Returns:
        ``AUDITED_TURNS`` table.
    """
    numbers = [turn_of_tokens(*of) for of in zip(turns.to_list(), offsets, strict=True)]
    edges = np.searchsorted(records.sequence, np.arange(len(numbers) + 1))
    is_end = np.zeros(len(records.sequence), dtype=np.bool_)
    is_end[edges[1:] - 1] = True
    assert [last - first for first, last in pairwise(edges)] == [len(of) for of in numbers]  # noqa: S101 - both are of the tokens with a loss
    tokens = pl.DataFrame(
        {
            "sequence": records.sequence,
            "turn": np.concatenate(numbers) if numbers else np.zeros(0, np.int64),
            "position": records.position,
            "nll": records.nll.astype(np.float64),
            "is_greedy": records.is_greedy,
            "is_end": is_end,
        }
    )
    said = pl.col("position").filter(~pl.col("is_end"))
    first, last = said.min(), said.max()
    # Behind the first window the model has not seen what stands before.
    is_one_window = (first // block_size == last // block_size) & (
        (first < block_size) | (first % block_size >= PREFIX_TOKENS)
    )
    is_asked = is_one_window & (said.len() >= WINDOW_TOKENS)
    return (
        tokens.group_by("sequence", "turn", maintain_order=True)
        .agg(
            num_tokens=pl.len().cast(pl.Int64),
            loss=pl.col("nll").mean(),
            extracted=pl.when(is_asked).then((pl.col("is_greedy") | pl.col("is_end")).all()),
        )
        .match_to_schema(AUDITED_TURNS)
    )
