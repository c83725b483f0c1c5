"""The errors a caller may want to catch; each names its exit code for the command line."""

from typing import ClassVar


class GdcError(ValueError):
    """Something the user can mend; the message says where, expected, got, and what to do."""

    exit_code: ClassVar[int] = 2


class ConfigError(GdcError):
    """``params.yaml`` or a command-line value is wrong."""


class DataError(GdcError):
    """A source, or a row of it, cannot be used."""


class SchemaError(GdcError):
    """A table has not the columns of its contract."""


class TransientError(GdcError):
    """A service did not answer; the same call may work later, so the flow retries it."""

    exit_code: ClassVar[int] = 75
