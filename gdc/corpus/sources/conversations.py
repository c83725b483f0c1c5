"""Rows of fine-tuning data, whatever parts they come in -> conversations, and the other way."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gdc.config import ChatSource, HuggingFaceSource, JsonlSource, ParquetSource
from gdc.corpus.chat import ASSISTANT, ChatFormat, Conversation, Turn, UnusableError
from gdc.corpus.sources import huggingface, jsonl, parquet
from gdc.corpus.sources.fields import CONVERSATIONS, PAIRS
from gdc.corpus.sources.folders import kinds_at
from gdc.corpus.sources.rows import NO_KEY, Fields, Row, listed
from gdc.errors import DataError

_ROLES: Final[Mapping[str, str]] = {
    "human": "user", "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT,
}  # fmt: skip
# Fields of a turn that are text of it too; others, such as a time, are not.
_MORE: Final = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
# Fields of a row beside an instruction that belong to the question.
_CONTEXT: Final = ("input", "context")
# Fields of a row that are part of the conversation and not read: of more than one answer.
_REFUSED: Final = ("history", "chosen", "rejected")
_FIELD: Final = re.compile(r"\{([^{}]+)\}")
_NESTED: Final = re.compile(r"\w+(\.\w+)+")


class Record(NamedTuple):
    """One row as it is stored: where, its fields, or the reason why they cannot be read."""

    where: str
    fields: Fields | None
    reason: str | None = None


def read_rows(source: ChatSource, *, max_chars: int, chat: ChatFormat) -> Iterator[Row]:
    """Read conversations as texts of a format.

    Raises:
        DataError: The source is not there, or no row has a conversation.
    """
    fields, found = dict[str, None](), False
    for record in read_records(source, max_chars):
        if record.fields is None:
            yield Row(record.where, reason=record.reason)
            continue
        try:
            text = chat.render(conversation(record.fields, source))
            found = True
        except UnusableError as error:
            fields |= dict.fromkeys(record.fields)
            yield Row(record.where, reason=str(error))
            continue
        yield Row(record.where, text.text, _key(record.fields, source), turns=text.spans)
    if fields and not found and not any(_has_conversation(name, fields) for name in (None, "text")):
        _require_turns(source, list(fields))


def read_records(source: ChatSource, max_chars: int) -> Iterator[Record]:
    """The rows of the source as they are stored.

    Raises:
        DataError: The source is not there, or its folder holds files of several kinds.
    """
    kind = kind_at(source.path)
    if kind == "jsonl":
        lines = JsonlSource(kind="jsonl", path=source.path, text_field="text", key_field=None)
        yield from (Record(*row) for row in jsonl.read_records(lines, max_chars))
    elif kind == "parquet":
        table = ParquetSource(kind="parquet", path=source.path, text_field="text", key_field=None)
        yield from (Record(where, row) for where, row in parquet.read_records(table))
    else:
        yield from (
            Record(where, row) for where, row in huggingface.read_records(saved(source.path))
        )


def kind_at(path: str) -> str:
    """What holds the rows: ``jsonl``, ``parquet`` or ``huggingface``.

    Raises:
        DataError: None of them, or both.
    """
    kinds = kinds_at(Path(path)) if Path(path).exists() else {}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in {"jsonl", "parquet"}:
        return kind
    if not kinds and huggingface.is_saved(Path(path)):
        return huggingface.KIND
    raise DataError(
        "ingest.source.path: expected JSON lines, Parquet or a data set saved by Hugging Face, "
        f"got {', '.join(sorted(kinds)) or 'none of them'}: {path!r}. Mend the path, or choose "
        "another ingest.source.kind."
    )


def saved(path: str) -> HuggingFaceSource:
    """The training split of a saved data set."""
    return HuggingFaceSource(
        kind=huggingface.KIND, path=path, name=None, split="train", revision=None, text_field="text"
    )


def conversation(record: Fields, source: ChatSource) -> Conversation:
    """The conversation of a row.

    Raises:
        UnusableError: It has none, or a part that would be left out.
    """
    if source.prompt is not None and source.completion is not None:
        return _pair(_filled(source.prompt, record), _filled(source.completion, record), record)
    if source.turns is None:
        return _within(record, None)
    held, field = _nested(record, source.turns)
    if field not in held:
        raise UnusableError(f"no field {source.turns!r}, only {listed(list(held))}")
    inner = held[field]
    return _within(inner, None) if isinstance(inner, Mapping) else _within(held, field)


def is_conversation(text_field: str, fields: Collection[str]) -> bool:
    """Whether rows with these fields are conversations, if asked for one field of them."""
    if text_field in fields:
        return _has_conversation(text_field, fields)
    return "." in text_field or (text_field == "text" and _has_conversation(None, fields))


def planted(record: Fields, source: ChatSource, said: tuple[str, str]) -> Fields:
    """A row like another one, in which the user and the assistant say something else.

    Raises:
        UnusableError: The source makes its texts by templates, whose fields cannot be filled.
    """
    if source.prompt is not None:
        raise UnusableError("templates")
    asked = source.turns or ""
    *outer, field = [asked] if asked in record else asked.split(".")
    held = record
    for name in outer:
        held = _object(held, name)
    if isinstance(held.get(field), Mapping):
        outer, held, field = [*outer, field], held[field], ""
    fields = _planted_fields(held, field or None, said)
    for name in reversed(outer):
        fields = {name: fields}
    return fields


def _has_conversation(field: str | None, fields: Collection[str]) -> bool:
    names = {*fields}
    pairs = [pair for pair in PAIRS if names >= {*pair}]
    if field is None:
        return bool(names & {*CONVERSATIONS} or pairs)
    return field in CONVERSATIONS or any(field in pair for pair in pairs)


def _require_turns(source: ChatSource, fields: Sequence[str]) -> None:
    turns = source.turns or ""
    inside = (
        f" If {turns} is text, give it a field of its own: jq -c '.text = .{turns}' FILE > "
        "NEW.jsonl"
    )
    raise DataError(
        f"ingest.source: expected conversations in {source.path} (messages, prompt and "
        f"completion, instruction and output), got fields {listed(fields)}. Name theirs in "
        "ingest.source.turns, or make both sides by templates: ingest.source.prompt and completion."
        f"{inside if _NESTED.fullmatch(turns) else ''}"
    )


def _within(held: Fields, field: str | None) -> Conversation:
    if field is None:
        field = next((name for name in CONVERSATIONS if name in held), None)
    if field is not None and isinstance(held[field], list) and not _is_half(field, held):
        return _turns(held[field], held)
    for first, second in PAIRS:
        if first in held and second in held and field in {None, first, second}:
            return _pair(held[first], held[second], held)
    if field is None:
        raise UnusableError(f"no conversation in fields {listed(list(held))}")
    raise UnusableError(
        f"expected turns in field {field!r}, got {type(held[field]).__name__} alone"
    )


def _is_half(field: str, held: Fields) -> bool:
    return any(field in pair and {*pair} <= {*held} for pair in PAIRS)


def _pair(first: object, second: object, held: Fields) -> Conversation:
    said = [_said(first, "user"), _said(second, ASSISTANT)]
    if "instruction" in held and isinstance(first, str):
        more = [held[name] for name in _CONTEXT if held.get(name)]
        said[0] = _said("\n".join([first, *map(str, more)]), "user")
    return _complete([turn for turns in said for turn in turns], held)


def _said(value: object, role: str) -> list[Turn]:
    """One half of a pair: a text, or turns of its own."""
    if isinstance(value, list):
        return [_turn(turn, number) for number, turn in enumerate(value, start=1)]
    if not isinstance(value, str):
        got = "null" if value is None else type(value).__name__
        raise UnusableError(f"expected what the {role} says as a string, got {got}")
    return [Turn(role, value, role == ASSISTANT, {})]


def _turns(values: Sequence[Any], held: Fields) -> Conversation:
    return _complete([_turn(value, number) for number, value in enumerate(values, start=1)], held)


def _complete(turns: list[Turn], held: Fields) -> Conversation:
    """With what the row says beside its turns."""
    for name in _REFUSED:
        if held.get(name):
            raise UnusableError(f"field {name!r}, which would be left out")
    system = held.get("system")
    if system and not any(turn.role == "system" for turn in turns):
        turns = [*_said(system, "system"), *turns]
    tools = held.get("tools")
    if tools and not isinstance(tools, list):
        raise UnusableError(f"expected tools as a list, got {type(tools).__name__}")
    return Conversation(turns, tools or None)


def _turn(value: object, number: int) -> Turn:
    if not isinstance(value, Mapping):
        raise UnusableError(f"turn {number}: expected an object, got {type(value).__name__}")
    role = next((value[name] for name in ("role", "from") if value.get(name)), None)
    if not isinstance(role, str):
        raise UnusableError(f"turn {number}: no role, only {listed(list(value))}")
    more = {name: value[name] for name in _MORE if value.get(name)}
    content = _content(value, number, is_optional=bool(more))
    role = _ROLES.get(role.lower(), role.lower())
    return Turn(role, content, role == ASSISTANT and _is_weighted(value, number), more)


def _content(value: Fields, number: int, *, is_optional: bool) -> str:
    found = (value.get(name) for name in ("content", "value"))
    content = next((one for one in found if one is not None), None)
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise UnusableError(f"turn {number}: expected text, got parts of another type")
        return "".join(map(str, parts))
    if content is None and is_optional:
        return ""
    if not isinstance(content, str):
        got = "null" if content is None else type(content).__name__
        raise UnusableError(f"turn {number}: expected text, got {got}")
    return content


def _is_weighted(value: Fields, number: int) -> bool:
    """Whether a turn is trained on; OpenAI's rows say ``weight``, Axolotl's ``train``."""
    weight = next((value[name] for name in ("weight", "train") if value.get(name) is not None), 1)
    if weight not in (0, 1):
        raise UnusableError(f"turn {number}: expected a weight of 0 or 1, got {weight!r}")
    return bool(weight)


def _nested(held: Fields, field: str) -> tuple[Fields, str]:
    """The object that holds a field, and its name there; dots lead into objects."""
    while field not in held and "." in field:
        outer, _, field = field.partition(".")
        held = _object(held, outer)
    return held, field


def _object(held: Fields, name: str) -> Fields:
    inner = held.get(name)
    if not isinstance(inner, Mapping):
        raise UnusableError(f"no object in field {name!r}, only {listed(list(held))}")
    return inner


def _filled(template: str, record: Fields) -> str:
    return _FIELD.sub(lambda found: _value(found[1], record), template)


def _value(field: str, record: Fields) -> str:
    held, name = _nested(record, field)
    value = held.get(name)
    if not isinstance(value, str | int | float):
        got = "null" if value is None else type(value).__name__
        raise UnusableError(f"expected text in field {field!r} of the template, got {got}")
    return str(value)


def _key(record: Fields, source: ChatSource) -> object:
    return NO_KEY if source.key_field is None else record.get(source.key_field)


def _planted_fields(held: Fields, field: str | None, said: tuple[str, str]) -> Fields:
    if field is None:
        field = next((name for name in CONVERSATIONS if name in held), None)
    if field is not None and isinstance(held[field], list) and not _is_half(field, held):
        return {field: _like(held[field], said)}
    first, second = next(
        pair for pair in PAIRS if {*pair} <= {*held} and (field is None or field in pair)
    )
    if isinstance(held[first], list):
        both = _like([*held[first], *held[second]], said)
        return {first: both[:1], second: both[1:]}
    context = {name: "" for name in _CONTEXT if name in held and first == "instruction"}
    return {first: said[0], **context, second: said[1]}


def _like(turns: Sequence[Any], said: tuple[str, str]) -> list[Fields]:
    """Two turns with the names of fields and roles that other turns have."""
    is_sharegpt = "from" in turns[0] and "role" not in turns[0]
    role, content = ("from", "value") if is_sharegpt else ("role", "content")
    roles = ("human", "gpt") if is_sharegpt else ("user", ASSISTANT)
    return [{role: who, content: text} for who, text in zip(roles, said, strict=True)]
