"""Token losses of a trace, and the texts they are of -> memorized spans, and losses of turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.commands.own_files import naming_options
from gdc.config import SpansConfig
from gdc.corpus.chat import ChatFormat, scored_tokens, turns_of, with_unscored
from gdc.corpus.tokenizer import TextTokenizer, load_pretrained_tokenizer, tokens_with_loss
from gdc.mapping import spans
from gdc.mapping.spans import SpansSummary
from gdc.mapping.turns import scored_turns, turn_losses, turn_tokens
from gdc.recording.trace import token_lists
from gdc.schema import SPANS, TOKEN_LOSSES, TURN_LOSSES
from gdc.scores import recorded
from gdc.scores.calibrated import MIN_HELDOUT
from gdc.scores.recorded import recorded_tokens_of

_OF_TOKENS: Final = {
    score.__name__: score
    for score in (
        recorded.hard_token_drop, recorded.worst_window_drop, recorded.recited_run_drop,
        recorded.window_votes_drop, recorded.error_balance_drop,
    )
}  # fmt: skip


@dataclass(frozen=True)
class TokenTables:
    """What token losses tell: a ``SPANS`` and a ``TURN_LOSSES`` table.

    Behind the losses of a turn stand the scores of tokens, of the turn as of a sample.

    Without token losses, or with those of another tokenizer or of no held-out sample, both are
    empty; the summary says why.
    """

    summary: SpansSummary
    spans: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPANS))
    turns: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TURN_LOSSES))


def find(
    tokens: tuple[pl.DataFrame, pl.DataFrame] | None,
    corpus: pl.DataFrame,
    flagged: pl.Series,
    how: tuple[str | None, ChatFormat | None],
    config: SpansConfig,
) -> TokenTables:
    """Find the memorized spans of flagged samples, and the losses of the turns of all.

    Args:
        tokens: As in ``Trace``.
        corpus: ``sample_id``, ``content_id`` and ``text`` in the order of the trace; of
            conversations ``turns`` too.
        flagged: Ids of the samples above the memorization threshold.
        how: Name of the tokenizer, and the format of conversations; None: none.
        config: Of ``find_spans``.

    Raises:
        ConfigError: There is no such tokenizer.
        DataError: The losses are no numbers that can be compared.
    """
    name, chat = how
    if tokens is None:
        return TokenTables(SpansSummary(0))
    if tokens[1].is_empty():
        return _not_shown("the trace has no losses of tokens of held-out samples. Record some.")
    if name is None:
        return _not_shown("to see them, name the --tokenizer.")
    with naming_options():
        tokenizer = load_pretrained_tokenizer(name, None)
    tokenizer = tokenizer if chat is None else chat.tokenizer(tokenizer)
    turns = None if chat is None else turns_of(corpus["content_id"], corpus["turns"])
    is_flagged = pl.col("sample_id").is_in(flagged.implode())
    samples = corpus.select("sample_id", "content_id", "text")
    samples = samples.filter(is_flagged) if turns is None else with_unscored(samples, turns)
    ids, offsets = scored_tokens(tokenizer, samples)
    recorded = samples.select("sample_id").join(tokens[0], on="sample_id", maintain_order="left")
    losses = _at_tokens_of_text(recorded, ids)
    if losses is None:
        return _not_shown(
            "with this tokenizer, a sample has other numbers of token losses than its text has "
            "tokens and an end of text."
        )
    if turns is None:
        found, summary = spans.find_spans([losses], [tokens[1]], offsets, config)
        return TokenTables(summary, found)
    found, summary = _spans_of_turns(
        losses.filter(is_flagged), samples.filter(is_flagged), tokens[1], tokenizer, config
    )
    of_samples = samples.join(
        scored_turns(turns), on="content_id", how="left", maintain_order="left"
    )["turns"]
    by_turn = turn_losses([losses], [tokens[1]], of_samples, offsets, config.p_value)
    scores = _turn_scores(turn_tokens(losses, of_samples, offsets), tokens[1])
    return TokenTables(summary, found, by_turn.hstack(scores))


def _not_shown(why: str) -> TokenTables:
    return TokenTables(SpansSummary(0, warnings=(f"Memorized spans are not shown: {why}",)))


def _turn_scores(turns: pl.DataFrame, heldout: pl.DataFrame) -> pl.DataFrame:
    """The scores of tokens, of each turn as of a sample; null with too few held-out samples."""
    if heldout.height < MIN_HELDOUT:
        return pl.DataFrame(schema=dict.fromkeys(_OF_TOKENS, pl.Float64)).clear(turns.height)
    names = pl.int_range(pl.len()).cast(pl.String)
    numbered = turns.select(sample_id=names, early="early", late="late")
    found = recorded_tokens_of((numbered, heldout.select(TOKEN_LOSSES.names())))
    return found.samples.select(**{name: score(found) for name, score in _OF_TOKENS.items()})


def _at_tokens_of_text(recorded: pl.DataFrame, ids: Sequence[Sequence[int]]) -> pl.DataFrame | None:
    """Losses of all tokens of the texts and of their ends, NaN where none was recorded.

    Args:
        recorded: ``TOKEN_LOSSES`` of the texts, with ``token_ids`` where they are known. A model
            that sees no token before a text has no loss of the first, and some see no end.
        ids: Those of each text that can have a loss.

    Returns:
        ``TOKEN_LOSSES``; None: the losses are of other tokens.
    """
    losses = recorded.select(TOKEN_LOSSES.names())
    if "token_ids" not in recorded.columns:
        lengths = losses["late"].list.len()
        is_alike = all(n == len(of) + 1 for n, of in zip(lengths, ids, strict=True))
        return losses if is_alike else None
    begins = [_begin(found, of) for found, of in zip(recorded["token_ids"], ids, strict=True)]
    if None in begins:
        return None
    sizes = pl.Series([len(of) + 1 for of in ids], dtype=pl.Int64)
    columns = {}
    for name in ("early", "late"):
        padded = [
            _padded(values, begin or 0, size)
            for values, begin, size in zip(losses[name], begins, sizes, strict=True)
        ]
        columns[name] = token_lists(sizes, np.concatenate([np.zeros(0, np.float32), *padded]))
    return losses.with_columns(**columns)


def _begin(found: pl.Series, ids: Sequence[int]) -> int | None:
    """How many first tokens of a text have no loss, 0 or 1; None: the losses are of others.

    Behind the text one token may follow, its end.
    """
    recorded = found.to_list()
    for begin in (0, 1):
        expected = list(ids[begin:])
        if recorded[: len(expected)] == expected and len(recorded) - len(expected) in {0, 1}:
            return begin
    return None


def _padded(losses: pl.Series, begin: int, size: int) -> NDArray[np.float32]:
    padded = np.full(size, np.nan, np.float32)
    padded[begin : begin + len(losses)] = losses.to_numpy()
    return padded


def _spans_of_turns(
    losses: pl.DataFrame,
    samples: pl.DataFrame,
    heldout: pl.DataFrame,
    tokenizer: TextTokenizer,
    config: SpansConfig,
) -> tuple[pl.DataFrame, SpansSummary]:
    offsets = tokenizer.offsets(samples["text"].to_list())
    has_loss = tokens_with_loss(offsets, samples["unscored"].to_list())
    return spans.find_spans([spans.at_all_tokens(losses, has_loss)], [heldout], offsets, config)
