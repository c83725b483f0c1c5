"""A target -> many inputs, and how many were taken, refused, or showed a fault."""

import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import hypothesis
import polars as pl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.fuzz.targets import Target

HANG_SECONDS = 60


class HangError(BaseException):
    """An input took so long that nobody would wait for it; nothing of ours catches it."""


@dataclass
class Tally:
    """What became of the inputs of one target.

    Attributes:
        counts: Inputs by ``accepted``, ``refused``, ``wrong result``, ``traceback`` and ``hang``.
        faults: One account of each fault, by the line of code that raised it.
        seconds: Of all inputs.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def attack(
    target: Target,
    num_inputs: int,
    seed: int,
    tell: Callable[[Counter[str]], None] = lambda _: None,
) -> Tally:
    """Give a target so many inputs in the current folder; a fault does not end it.

    After each, ``tell`` is given the counts so far.
    """
    tally = Tally()

    @hypothesis.seed(seed)
    @settings(
        max_examples=num_inputs,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def give(data: st.DataObject) -> None:
        # A campaign may add a few inputs of its own choice.
        if tally.counts.total() < num_inputs:
            tally.counts[_outcome(target, data, tally)] += 1
            tell(tally.counts)

    started = time.monotonic()
    give()
    tally.seconds = time.monotonic() - started
    return tally


def _outcome(target: Target, data: st.DataObject, tally: Tally) -> str:
    raised: BaseException
    try:
        with _ended_in_time():
            return "accepted" if target(data) else "refused"
    except HypothesisException:
        raise
    except HangError as error:
        kind, raised = "hang", error
    except AssertionError as error:
        kind, raised = "wrong result", error
    # Whatever is no error of ours is a fault of ours.
    except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001
        kind, raised = "traceback", error
    tally.faults.setdefault(_place(raised), "".join(traceback.format_exception(raised)))
    return kind


def _place(error: BaseException) -> str:
    """The kind of error and the last line of gdc that it passed, or of the target."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/gdc/" in f.filename] or [
        f for f in frames if f.filename.endswith("targets.py")
    ]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {where}"


@contextmanager
def _ended_in_time() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
