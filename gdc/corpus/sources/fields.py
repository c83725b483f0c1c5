"""The fields of a row -> how to make one text of those that hold parts of it."""

from collections.abc import Collection
from typing import Final

from gdc.errors import DataError

CONVERSATIONS: Final = {"messages": "content", "conversations": "value", "conversation": "content"}
PAIRS: Final = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
)


def advice(fields: Collection[str]) -> str:
    """What to make of fields of fine-tuning data, as one field is read; else an empty string."""
    for field, content in CONVERSATIONS.items():
        if field in fields:
            return _advice(f'([.{field}[].{content}] | join("\\n"))')
    for first, second in PAIRS:
        if first in fields and second in fields:
            return _advice(f'(.{first} + "\\n" + .{second})')
    return ""


def require_whole(text_field: str, fields: Collection[str], where: str) -> None:
    """Refuse to read one half of fine-tuning data, as an answer without its question.

    Raises:
        DataError: ``text_field`` is a part of a pair whose other part is there too.
    """
    for pair in PAIRS:
        if text_field in pair and set(pair) <= set(fields):
            first, second = pair
            other = second if text_field == first else first
            raise DataError(
                f"ingest.source.text_field: expected the whole text of a sample, got "
                f"{text_field!r} alone of {where}, in which {other!r} holds the other half. "
                f"Set text_field to a field with both.{advice(pair)}"
            )


def _advice(value: str) -> str:
    return (
        " One field of strings is read, so make one of all that a sample is to hold; of JSON lines "
        f"for example: jq -c '.text = {value}' FILE > NEW.jsonl"
    )
