"""The errors a caller may want to catch, and the exit codes of the command line."""

import re
from collections.abc import Mapping
from typing import ClassVar, Final

STAGE_FAILED: Final = 1
USER_ERROR: Final = 2
LEAKS: Final = 3
TRY_AGAIN: Final = 75  # EX_TEMPFAIL of sysexits.h
# What the command line ends with, and what it means.
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    STAGE_FAILED: "a stage failed",
    USER_ERROR: "an option, params.yaml or the data must be mended",
    LEAKS: "an audited model leaks more than --fail-above allows",
    TRY_AGAIN: "a service did not answer, or another run holds the folder: try again",
    130: "stopped by Ctrl-C",
    143: "stopped by SIGTERM",
}


# What stands before the @ of a URL; a password may hold a slash, which it should not, and no port
# is one. And what its query calls a secret.
_LOGIN: Final = re.compile(r"(?<=://)(?:[^\s/'\"]+|[^\s/:'\"]*:(?!\d+(?:[/\s'\"]|$))[^\s'\"]*)@")
_SECRET: Final = re.compile(
    r"([?&;][\w.-]*(?:passphrase|password|passwd|pwd|secret|token|auth(?!or)|signature|sig|key|credential)"
    r"[\w.-]*=)[^&;\s'\"]+",
    re.IGNORECASE,
)
# What a terminal obeys, or shows in another order; a line's end and a tab are none.
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def without_secrets(text: str) -> str:
    """The text with ``***`` in place of passwords and keys in URLs."""
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", text))


def without_controls(text: str) -> str:
    r"""The text with escapes, such as ``\x1b``, in place of what a terminal would obey."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class GdcError(ValueError):
    """Something the user can mend; the message says where, expected, got, and what to do.

    Passwords and keys in URLs are left out of it, and what a terminal would obey is an escape.
    """

    exit_code: ClassVar[int] = USER_ERROR

    def __init__(self, message: object = "") -> None:
        super().__init__(without_controls(without_secrets(str(message))))


class ConfigError(GdcError):
    """``params.yaml`` or a command-line value is wrong."""


class DataError(GdcError):
    """A source, or a row of it, cannot be used."""


class SchemaError(GdcError):
    """A table has not the columns of its contract."""


class TransientError(GdcError):
    """A service did not answer; the same call may work later, so the flow retries it."""

    exit_code: ClassVar[int] = TRY_AGAIN
