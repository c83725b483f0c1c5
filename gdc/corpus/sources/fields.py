"""The fields of a row -> whether they are the parts of a conversation, and what to do then."""

from collections.abc import Collection
from typing import Final

from gdc.errors import DataError

# Fields of turns, and pairs of a question and its answer.
CONVERSATIONS: Final = ("messages", "conversations", "conversation")
PAIRS: Final = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
)
_ADVICE: Final = " They are conversations: set ingest.source.kind: chat."


def advice(fields: Collection[str]) -> str:
    """What to make of fields of fine-tuning data, as one field is read; else an empty string."""
    has_turns = any(name in fields for name in CONVERSATIONS)
    return _ADVICE if has_turns or any({*pair} <= {*fields} for pair in PAIRS) else ""


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
                f"{text_field!r} alone of {where}, in which {other!r} holds the other half."
                f"{_ADVICE}"
            )
