"""A row of fine-tuning data -> one text to show and to compare, whatever parts it comes in.

It is not what a model is trained on: that is up to the chat template of its tokenizer.
"""

from collections.abc import Mapping

from gdc.corpus.sources.fields import CONVERSATIONS, PAIRS

_ROLES = ("role", "from")


def joined_text(record: Mapping[str, object], text_field: str) -> object:
    """The text of a row in one string, if it comes in known parts; else the field as it is.

    Args:
        record: The row.
        text_field: A field of strings; one of turns, such as ``messages``; or one of the fields of
            a pair, such as ``completion`` beside ``prompt``, which are both read.
    """
    value = record.get(text_field)
    if isinstance(value, list):
        turns = [_turn(turn, CONVERSATIONS.get(text_field, "content")) for turn in value]
        texts = [turn for turn in turns if turn is not None]
        return "\n".join(texts) if texts and len(texts) == len(turns) else value
    for pair in PAIRS:
        if text_field in pair and set(pair) <= set(record):
            names = (
                ("instruction", "input", "output") if pair == ("instruction", "output") else pair
            )
            parts = [record.get(name) or "" for name in names]
            if all(isinstance(part, str) for part in parts):
                return "\n".join(str(part) for part in parts if part)
    return value


def _turn(turn: object, content: str) -> str | None:
    """One turn with who speaks; None: it is none."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get(content), str):
        return None
    role = next((turn[name] for name in _ROLES if isinstance(turn.get(name), str)), None)
    return str(turn[content]) if role is None else f"{role}: {turn[content]}"
