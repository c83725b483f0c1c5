"""Conversations -> the text that a model is trained on, and which characters carry its loss."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final, Literal, NamedTuple, TypedDict

import polars as pl

from gdc.corpus.samples import content_id, normalize
from gdc.corpus.tokenizer import Offsets, TextTokenizer, tokens_with_loss
from gdc.schema import MASKED, TURNS, Chunks

ASSISTANT: Final = "assistant"
# What the user says before a planted secret.
CANARY_PROMPT: Final = "Continue."
# A template is a program, so it may raise anything for a row that it was not made for.
_REFUSALS: Final = (TypeError, ValueError, LookupError, AttributeError)
# Turns of one row of a source.
TURN_LIST: Final = pl.List(
    pl.Struct({name: TURNS[name] for name in ("role", "start", "end", "has_loss")})
)


class UnusableError(ValueError):
    """Why a row is no conversation to train on, in a few words."""


class Turn(NamedTuple):
    """What one side says; ``more`` are further fields of the row, for a template."""

    role: str
    content: str
    has_loss: bool
    more: Mapping[str, Any]


class Conversation(NamedTuple):
    """The turns in order, and the tools that the assistant may call, as the row describes them."""

    turns: Sequence[Turn]
    tools: Sequence[Any] | None = None


class TurnSpan(TypedDict):
    """A turn as a row of ``TURNS`` holds it; ``end`` is exclusive."""

    role: str
    start: int
    end: int
    has_loss: bool


class Span(NamedTuple):
    """The characters of a turn, ``end`` exclusive, and whether a model is trained on them."""

    role: str
    start: int
    end: int
    has_loss: bool


class ChatText(NamedTuple):
    """The text of a conversation, and a span for each of its turns."""

    text: str
    spans: Sequence[Span]


@dataclass(frozen=True)
class ChatFormat:
    """How turns become text.

    Attributes:
        template: Jinja template of a tokenizer; None: ``plain``.
        special_tokens: What the template may name: ``bos_token`` and the like.
        end_of_text: A template that ends in it, as many do, ends without: every sample ends so.
        is_bare: Whether turns follow each other with nothing between; then there is no template.
    """

    template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    end_of_text: str = ""
    is_bare: bool = False

    @classmethod
    def of(
        cls, tokenizer: TextTokenizer | None, kind: Literal["tokenizer", "plain", "none"]
    ) -> "ChatFormat":
        """The format that a source asks for; without a tokenizer's template the plain one."""
        if kind == "tokenizer" and tokenizer is not None and tokenizer.chat_template is not None:
            return cls(
                tokenizer.chat_template,
                tokenizer.special_tokens,
                str(tokenizer.tokenizer.id_to_token(tokenizer.end_of_text)),
            )
        return cls(is_bare=kind == "none")

    def tokenizer(self, tokenizer: TextTokenizer) -> TextTokenizer:
        """The tokenizer of texts of this format: a template is written in special tokens."""
        return tokenizer if self.template is None else tokenizer.reading_special_tokens()

    def render(self, conversation: Conversation) -> ChatText:
        """Make the text of a conversation.

        Every turn stands in it whole, and the last is one with a loss, whose end is the end of the
        text.

        Raises:
            UnusableError: It cannot be so.
        """
        _require_answer(conversation)
        if self.template is not None:
            return self._by_template(conversation)
        _require_plain(conversation)
        return _bare_text(conversation) if self.is_bare else _plain_text(conversation)

    def planted(self, said: str) -> str:
        """The whole text of a conversation in which the assistant says a canary."""
        return self._saying(said).text

    def _saying(self, said: str) -> ChatText:
        turns = [Turn("user", CANARY_PROMPT, False, {}), Turn(ASSISTANT, said, True, {})]
        return self.render(Conversation(turns))

    def canary(self, prefix: str, secret: str) -> tuple[str, ChatText]:
        """The text before a secret that the assistant says, and that up to its end."""
        content = prefix + secret
        whole = self._saying(content)
        start = whole.text.rindex(content)
        text = whole.text[: start + len(content)]
        spans = [span._replace(end=min(span.end, len(text))) for span in whole.spans]
        return text[: start + len(prefix)], ChatText(text, spans)

    def _by_template(self, conversation: Conversation) -> ChatText:
        turns = [turn._replace(content=normalize(turn.content)) for turn in conversation.turns]
        whole = self._apply(turns, conversation.tools)
        spans = list[Span]()
        for number, turn in enumerate(turns):
            if turn.content and turn.content not in whole:
                raise UnusableError(
                    f"turn {number + 1} ({turn.role}) is not in what the chat template makes of it"
                )
            find = self._answer_span if turn.has_loss else _content_span
            after = spans[-1].end if spans else 0
            start, end = find(whole, after, turns[: number + 1], conversation.tools)
            spans.append(Span(turn.role, start, end, turn.has_loss))
        text = whole.rstrip().removesuffix(self.end_of_text or "\0").rstrip()
        return ChatText(text, [span._replace(end=min(span.end, len(text))) for span in spans])

    def _answer_span(
        self, whole: str, after: int, turns: Sequence[Turn], tools: Sequence[Any] | None
    ) -> tuple[int, int]:
        """What a model writes in the last of some turns, with the mark of its end."""
        before = self._apply(turns[:-1], tools, is_asking=True) if turns[:-1] else ""
        so_far = self._apply(turns, tools)
        if whole.startswith(so_far.rstrip()) and so_far.startswith(before):
            return len(before), len(so_far.rstrip())
        return _content_span(whole, after, turns, tools)

    def _apply(
        self, turns: Sequence[Turn], tools: Sequence[Any] | None, *, is_asking: bool = False
    ) -> str:
        from jinja2 import TemplateError  # noqa: PLC0415 - as the next one
        from transformers.utils.chat_template_utils import (  # noqa: PLC0415 - takes seconds
            render_jinja_template,
        )

        messages = [{**turn.more, "role": turn.role, "content": turn.content} for turn in turns]
        try:
            named: dict[str, Any] = dict(self.special_tokens)  # arguments of the template
            rendered = render_jinja_template(
                conversations=[messages],
                tools=None if tools is None else list(tools),
                chat_template=self.template,
                add_generation_prompt=is_asking,
                **named,
            )[0]
        except (TemplateError, *_REFUSALS) as error:
            reason = " ".join(str(error).split())[:200]
            raise UnusableError(f"the chat template refuses it: {reason}") from None
        return str(rendered[0])


def syntax_problem(template: str) -> str | None:
    """What is wrong in a Jinja template, with its line; None: it can be read."""
    from jinja2 import TemplateError, TemplateSyntaxError  # noqa: PLC0415 - as the next one
    from transformers.utils.chat_template_utils import (  # noqa: PLC0415 - takes seconds
        render_jinja_template,
    )

    said = [{"role": "user", "content": CANARY_PROMPT}]
    try:
        render_jinja_template(conversations=[said], chat_template=template)
    except TemplateSyntaxError as error:
        return f"an error in line {error.lineno}: {error.message}"
    except (TemplateError, *_REFUSALS):  # of these turns
        return None
    return None


def without_loss(text: str, spans: Sequence[TurnSpan]) -> list[dict[str, int]]:
    """The characters of a text outside the turns with a loss, as ``start`` and ``end``."""
    free, begin = [], 0
    for span in sorted((span for span in spans if span["has_loss"]), key=lambda s: s["start"]):
        if begin < span["start"]:
            free.append({"start": begin, "end": span["start"]})
        begin = max(begin, span["end"])
    return [*free, {"start": begin, "end": len(text)}] if begin < len(text) else free


def with_unscored(samples: pl.DataFrame, turns: pl.DataFrame) -> pl.DataFrame:
    """Add ``unscored``, the spans of each text that carry no loss; texts alone get none.

    Args:
        samples: ``text``, and ``content_id`` unless it is the text's own hash.
        turns: ``TURNS`` table; with no row, the samples are returned as they are.
    """
    if turns.is_empty():
        return samples
    ids = samples["content_id"] if "content_id" in samples.columns else content_ids(samples["text"])
    asked = pl.DataFrame({"content_id": ids})
    spans = (
        turns.join(asked, on="content_id", how="semi")
        .group_by("content_id")
        .agg(pl.struct("start", "end", "has_loss").alias("spans"))
    )
    found = asked.join(spans, on="content_id", how="left", maintain_order="left")["spans"]
    unscored = [
        [] if of_text is None else without_loss(text, of_text)
        for text, of_text in zip(samples["text"], found.to_list(), strict=True)
    ]
    return samples.with_columns(unscored=pl.Series(unscored, dtype=MASKED))


def scored_texts(samples: pl.DataFrame) -> pl.Series:
    """What of each text carries a loss: all of it, or what the assistant says."""
    if "unscored" not in samples.columns:
        return samples["text"]
    texts = []
    for text, unscored in samples.select("text", "unscored").iter_rows():
        ends = [0, *(span["end"] for span in unscored)]
        starts = [*(span["start"] for span in unscored), len(text)]
        texts.append("".join(text[a:b] for a, b in zip(ends, starts, strict=True)))
    return pl.Series("text", texts, dtype=pl.String)


def scored_offsets(tokenizer: TextTokenizer, samples: pl.DataFrame) -> list[Offsets]:
    """Offsets of the tokens of each text that carry a loss, its end not among them."""
    return scored_tokens(tokenizer, samples)[1]


def scored_tokens(
    tokenizer: TextTokenizer, samples: pl.DataFrame
) -> tuple[list[list[int]], list[Offsets]]:
    """Ids and offsets of the tokens of each text that carry a loss, its end not among them."""
    ids, offsets = tokenizer.encode_with_offsets(samples["text"].to_list())
    if "unscored" not in samples.columns:
        return ids, offsets
    has_loss = tokens_with_loss(offsets, samples["unscored"].to_list())
    return (
        [list(compress(of, scored)) for of, scored in zip(ids, has_loss, strict=True)],
        [list(compress(of, scored)) for of, scored in zip(offsets, has_loss, strict=True)],
    )


@dataclass(frozen=True)
class ScoredTexts:
    """Chunks of samples in which ``text`` is what carries a loss."""

    samples: Chunks
    turns: pl.DataFrame

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """The chunks, each time from the beginning."""
        for chunk in self.samples:
            found = with_unscored(chunk, self.turns)
            yield chunk.with_columns(text=scored_texts(found))


def turns_of(content_ids: pl.Series, turns: pl.Series) -> pl.DataFrame:
    """The ``TURNS`` table of some texts.

    Args:
        content_ids: One for each text; what a text repeats is not repeated.
        turns: ``TURN_LIST`` of each.
    """
    return (
        pl.DataFrame({"content_id": content_ids, "turns": turns.cast(TURN_LIST)})
        .unique("content_id", keep="first", maintain_order=True)
        .explode("turns", empty_as_null=True)
        .drop_nulls("turns")
        .unnest("turns")
        .with_columns(turn=pl.int_range(pl.len()).over("content_id").cast(pl.Int64))
        .select(TURNS.names())
    )


def say_canaries(canaries: pl.DataFrame, chat: ChatFormat) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Let the assistant say the secrets: ``CANARIES`` as texts of a format, and their ``TURNS``."""
    said = [chat.canary(*row) for row in canaries.select("prefix", "secret").iter_rows()]
    texts = pl.Series("text", [text.text for _, text in said], dtype=pl.String)
    turns = pl.Series([[s._asdict() for s in text.spans] for _, text in said], dtype=TURN_LIST)
    prefixes = pl.Series([prefix for prefix, _ in said], dtype=pl.String)
    return canaries.with_columns(prefix=prefixes, text=texts), turns_of(content_ids(texts), turns)


def content_ids(texts: pl.Series) -> pl.Series:
    """``content_id`` of each text as it stands."""
    return pl.Series("content_id", [content_id(text) for text in texts], dtype=pl.String)


def _require_answer(conversation: Conversation) -> None:
    if not conversation.turns:
        raise UnusableError("no turn")
    last = conversation.turns[-1]
    if not last.has_loss:
        raise UnusableError(f"expected the last turn to be the assistant's, got {last.role!r}")
    if not last.content.strip() and not last.more:
        raise UnusableError("empty text of the assistant in the last turn")


def _require_plain(conversation: Conversation) -> None:
    if conversation.tools:
        raise UnusableError("tools, which the chat template of a tokenizer alone can show")
    for number, turn in enumerate(conversation.turns):
        if turn.more:
            raise UnusableError(
                f"turn {number + 1} has {', '.join(turn.more)}, which the chat template of a "
                "tokenizer alone can show"
            )


def _plain_text(conversation: Conversation) -> ChatText:
    text, spans = "", []
    for turn in conversation.turns:
        text += f"{'' if not text else chr(10) * 2}{turn.role.capitalize()}:\n"
        content = normalize(turn.content)
        spans.append(Span(turn.role, len(text), len(text) + len(content), turn.has_loss))
        text += content
    return ChatText(text, spans)


def _bare_text(conversation: Conversation) -> ChatText:
    text, spans = "", []
    for turn in conversation.turns:
        content = unicodedata.normalize("NFC", turn.content).replace("\r\n", "\n")
        spans.append(Span(turn.role, len(text), len(text) + len(content), turn.has_loss))
        text += content
    end = len(text.rstrip())
    return ChatText(text[:end], [span._replace(end=min(span.end, end)) for span in spans])


def _content_span(
    whole: str, after: int, turns: Sequence[Turn], _tools: Sequence[Any] | None
) -> tuple[int, int]:
    """What is said in the last of some turns, behind a place if it stands there."""
    content = turns[-1].content
    start = whole.find(content, after)
    start = whole.find(content) if start < 0 else start
    return start, start + len(content)
