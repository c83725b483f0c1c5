"""Numbers -> their wording, the same on the terminal, on pages and in tables."""

from collections.abc import Callable
from typing import Final, Protocol

NOTHING: Final = "-"
Form = Callable[[float | None], str]


class HasInterval(Protocol):
    """A value and the ends of its interval."""

    @property
    def value(self) -> float:
        """The estimate."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return NOTHING if value is None else f"{value:.4g}"


def decimals(value: float | None) -> str:
    """Three decimals, or a dash."""
    return NOTHING if value is None else f"{value:.3f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] in percent, or a dash."""
    return NOTHING if share is None else f"{100 * share:.3g} %"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points with its sign, or a dash."""
    return NOTHING if difference is None else f"{100 * difference:+.1f}"


def ends(measured: HasInterval, form: Form) -> str:
    """The two ends of an interval in brackets."""
    return f"[{form(measured.low)}, {form(measured.high)}]"


def interval(measured: HasInterval | None, form: Form) -> str:
    """A value and its interval on one line, or a dash."""
    if measured is None:
        return NOTHING
    return f"{form(measured.value)} {ends(measured, form)}"


def counted(num: int, noun: str) -> str:
    """A number of things: ``1 seed``, ``1,200 seeds``."""
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"
