"""Token losses of conversations -> the loss of each turn, and how far below unseen text it is."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.corpus.tokenizer import Offsets
from gdc.errors import DataError
from gdc.mapping.spans import compare_with_heldout, mean_over_runs
from gdc.schema import TURN_LOSSES


def turn_losses(
    runs: Sequence[pl.DataFrame],
    heldout_runs: Sequence[pl.DataFrame],
    turns: pl.Series,
    offsets: Sequence[Offsets],
    p_value: float,
) -> pl.DataFrame:
    """Part the token losses of each conversation by its turns.

    The end of text, and a mark behind a turn that has a loss, belong to the turn before it, so the
    tokens of a sample's turns are those of the sample.

    Args:
        runs: For each tracked run the ``TOKEN_LOSSES`` of the conversations; losses are averaged
            over runs.
        heldout_runs: The same of the held-out samples.
        turns: Of each conversation the list of its turns with a loss, ``turn`` and ``start``, in
            the order of the text.
        offsets: Of the tokens of each that have a loss, the end of text not among them.
        p_value: Of ``find_spans``; it decides how finely tokens are compared with held-out ones.

    Returns:
        ``TURN_LOSSES`` table in the order of the samples, turns in the order of the text; a turn
        without a token is left out.

    Raises:
        DataError: A sample has losses of another number of tokens than its turns have.
    """
    tokens = _tokens_of_turns(runs, turns, offsets)
    of_tokens = (tokens["early"].to_numpy(), tokens["late"].to_numpy())
    _, gap = compare_with_heldout(of_tokens, mean_over_runs(heldout_runs), p_value)
    return (
        tokens.with_columns(gap=gap)
        .group_by("sample_id", "turn", maintain_order=True)
        .agg(
            num_tokens=pl.len().cast(pl.Int64),
            early_loss=pl.col("early").mean(),
            late_loss=pl.col("late").mean(),
            gap=pl.col("gap").mean(),
        )
        .match_to_schema(TURN_LOSSES)
    )


def turn_tokens(losses: pl.DataFrame, turns: pl.Series, offsets: Sequence[Offsets]) -> pl.DataFrame:
    """The losses of the tokens of each turn; see ``turn_losses``.

    Returns:
        ``sample_id``, ``turn``, and ``early`` and ``late`` as in ``TOKEN_LOSSES``; rows as those of
        ``turn_losses``.

    Raises:
        DataError: As there.
    """
    of_turns = _tokens_of_turns([losses], turns, offsets)
    lists = pl.col("early", "late").cast(pl.Float32)
    return of_turns.group_by("sample_id", "turn", maintain_order=True).agg(lists)


def _tokens_of_turns(
    runs: Sequence[pl.DataFrame], turns: pl.Series, offsets: Sequence[Offsets]
) -> pl.DataFrame:
    """``sample_id``, ``turn``, ``early`` and ``late`` of each token that has a loss."""
    early, late = mean_over_runs(runs)
    lengths = runs[0].select("sample_id", num=pl.col("late").list.len())
    for (sample_id, num), tokens in zip(lengths.iter_rows(), offsets, strict=True):
        _require_as_many(sample_id, num, tokens)
    numbers = [turn_of_tokens(*of) for of in zip(turns.to_list(), offsets, strict=True)]
    ids = lengths["sample_id"].repeat_by(lengths["num"]).explode()
    columns = {"turn": np.concatenate(numbers), "early": early, "late": late}
    # The first token of a text may have none.
    return pl.DataFrame({"sample_id": ids, **columns}).filter(pl.col("late").is_not_nan())


def scored_turns(turns: pl.DataFrame) -> pl.DataFrame:
    """Of a ``TURNS`` table: ``content_id``, and ``turns`` as ``turn_losses`` takes them."""
    scored = turns.filter("has_loss").sort("content_id", "start")
    return scored.group_by("content_id").agg(turns=pl.struct("turn", "start"))


def turn_of_tokens(turns: Sequence[dict[str, int]], tokens: Offsets) -> NDArray[np.int64]:
    """The number of the turn of each token of a conversation, and of the end of text.

    Args:
        turns: As in ``turn_losses``, of one conversation.
        tokens: Offsets of its tokens that have a loss, the end of text not among them.
    """
    starts = np.array([turn["start"] for turn in turns], dtype=np.int64)
    numbers = np.array([turn["turn"] for turn in turns], dtype=np.int64)
    begins = np.array([begin for begin, _ in tokens], dtype=np.int64)
    place = np.searchsorted(starts, begins, side="right") - 1
    of_tokens: NDArray[np.int64] = numbers[np.append(place, len(numbers) - 1)]
    return of_tokens


def _require_as_many(sample_id: str, num_losses: int, tokens: Offsets) -> None:
    if num_losses != len(tokens) + 1:
        raise DataError(
            f"data/trace: expected {len(tokens) + 1} token losses of sample {sample_id}, as many "
            f"as its turns have, got {num_losses}. Re-run from: gdc stage train."
        )
