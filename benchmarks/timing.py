"""How long work takes."""

import time
from collections.abc import Callable, Iterable


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def of_median_ratio(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Of pairs of times taken one after the other the one whose ratio is the median.

    Two so near share the speed of the machine. The shortest of all runs would favour the shorter
    work, which fits a quiet moment.
    """
    ordered = sorted(pairs, key=lambda pair: pair[0] / pair[1])
    return ordered[len(ordered) // 2]
