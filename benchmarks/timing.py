"""Functions -> the seconds that they take."""

import time
from collections.abc import Callable, Iterable


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def of_median_ratio(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The pair with the median ratio, of pairs of times measured directly after each other.

    Both times of a pair see the same speed of the machine. The shortest of all runs would favour
    the shorter work, which more often falls into a quiet moment.
    """
    ordered = sorted(pairs, key=lambda pair: pair[0] / pair[1])
    return ordered[len(ordered) // 2]
