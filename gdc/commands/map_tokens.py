"""Token losses of a trace, and the texts they are of -> memorized spans, and losses of turns."""

from dataclasses import dataclass, field

import polars as pl

from gdc.commands.own_files import naming_options
from gdc.config import SpansConfig
from gdc.corpus.chat import ChatFormat, scored_offsets, turns_of, with_unscored
from gdc.corpus.tokenizer import TextTokenizer, load_pretrained_tokenizer, tokens_with_loss
from gdc.mapping import spans
from gdc.mapping.spans import SpansSummary
from gdc.mapping.turns import scored_turns, turn_losses
from gdc.schema import SPANS, TURN_LOSSES


@dataclass(frozen=True)
class TokenTables:
    """What token losses tell: a ``SPANS`` and a ``TURN_LOSSES`` table.

    Without token losses, or with those of another tokenizer, both are empty; the summary says why.
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
    if name is None:
        why = "The trace has losses of tokens; to see memorized spans, name the --tokenizer."
        return TokenTables(SpansSummary(0, warnings=(why,)))
    with naming_options():
        tokenizer = load_pretrained_tokenizer(name, None)
    tokenizer = tokenizer if chat is None else chat.tokenizer(tokenizer)
    turns = None if chat is None else turns_of(corpus["content_id"], corpus["turns"])
    is_flagged = pl.col("sample_id").is_in(flagged.implode())
    samples = corpus.select("sample_id", "content_id", "text")
    samples = samples.filter(is_flagged) if turns is None else with_unscored(samples, turns)
    offsets = scored_offsets(tokenizer, samples)
    losses = samples.select("sample_id").join(tokens[0], on="sample_id", maintain_order="left")
    lengths = losses["late"].list.len().to_list()
    if any(length != len(of) + 1 for length, of in zip(lengths, offsets, strict=True)):
        why = (
            "Memorized spans are not shown: with this tokenizer, a sample has other numbers of "
            "token losses than its text has tokens and an end of text."
        )
        return TokenTables(SpansSummary(0, warnings=(why,)))
    if turns is None:
        found, summary = spans.find_spans([losses], [tokens[1]], offsets, config)
        return TokenTables(summary, found)
    found, summary = _spans_of_turns(
        losses.filter(is_flagged),
        samples.filter(is_flagged),
        tokens[1],
        tokenizer,
        config,
    )
    of_samples = samples.join(
        scored_turns(turns), on="content_id", how="left", maintain_order="left"
    )["turns"]
    by_turn = turn_losses([losses], [tokens[1]], of_samples, offsets, config.p_value)
    return TokenTables(summary, found, by_turn)


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
