"""A call on a wrong input -> whether it was accepted, if it was accepted or refused well."""

from collections.abc import Callable
from unicodedata import category

from gdc.errors import GdcError


def accepts(call: Callable[[], object]) -> bool:
    """Whether a function takes its input; a refusal says something, in few lines."""
    try:
        call()
    except GdcError as error:
        said = str(error)
        assert said.strip(), "a refusal without a word"
        assert len(said) < 4000, f"a refusal of {len(said)} characters"
        return False
    return True


def seen(text: str) -> str:
    """The characters of a text that are neither blank nor without width."""
    return "".join(c for c in text if not c.isspace() and category(c) not in ("Cc", "Cf"))
