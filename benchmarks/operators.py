"""The processor time of a training step, operator by operator.

    python benchmarks/operators.py          # prints
    python benchmarks/operators.py --write  # and writes the table to docs/results/speed.md

Steps of ``benchmarks/training.py`` with one thread, by the clock of this thread, so other work on
the machine lengthens nothing but what it takes from the cache. Every operator that torch calls is
timed, also those of the backward pass. What the whole steps take is measured without these clocks,
by turns, and is the 100 %; what no operator took is Python, autograd and memory.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import result_pages
import torch
import training
from machine import machine
from torch.utils._python_dispatch import TorchDispatchMode

from gdc.statistics import markdown
from gdc.training import loop

NUM_SAMPLES: Final = 150
NUM_TURNS: Final = 3
PRODUCTS: Final = "products of matrices"
ALL_ELSE: Final = "other operators"
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    PRODUCTS: ("mm", "addmm", "bmm"),
    "attention": ("_scaled_dot_product",),
    "cross entropy": (
        "_log_softmax", "nll_loss", "exp_", "sub_", "mul_", "scatter_add_", "gather",
    ),
    "gelu": ("gelu",),
    "layer norm": ("native_layer_norm",),
    "sums: gradients of biases, additions": ("sum", "add"),
    "casts": ("_to_copy",),
    "AdamW and clipping": ("_fused_adamw_", "_foreach"),
}  # fmt: skip
"""Beginnings of the names of operators; the first kind that has one counts."""


class Clock(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it so
    """Adds up the seconds of this thread in each kind of operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = dict.fromkeys([*KINDS, ALL_ELSE], 0.0)
        self.operations = 0.0  # floating-point operations of the products

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """Call the operator."""
        started = time.thread_time()
        result = func(*args, **(kwargs or {}))
        kind = kind_of(func.overloadpacket.__name__)
        self.seconds[kind] += time.thread_time() - started
        if kind == PRODUCTS:
            one, other = args[-2:]
            self.operations += 2 * one.numel() * other.shape[-1]
        return result


def kind_of(operator: str) -> str:
    """The row of the table that it belongs to."""
    for kind, names in KINDS.items():
        if operator.startswith(names):
            return kind
    return ALL_ELSE


def seconds_of_steps(precision: str, clock: Clock | None) -> list[float]:
    """What each step of a run takes."""
    seconds: list[float] = []
    train_step: Callable[[loop.Trainer], int] = loop.Trainer.train_step

    def timed_step(trainer: loop.Trainer) -> int:
        started = time.thread_time()
        if clock is None:
            num_tokens = train_step(trainer)
        else:
            with clock:
                num_tokens = train_step(trainer)
        seconds.append(time.thread_time() - started)
        return num_tokens

    with patch.object(loop.Trainer, "train_step", timed_step):
        training.tracked(training.texts(NUM_SAMPLES), precision)
    return seconds


def processor_seconds(work: Callable[[], object]) -> float:
    """Seconds of this thread that ``work`` takes."""
    started = time.thread_time()
    work()
    return time.thread_time() - started


def shares(precision: str) -> tuple[dict[str, float], float, float]:
    """Share of each kind in a step, seconds of a step, and operations a second in products."""
    # What is built in the first steps of a process is built before.
    seconds_of_steps(precision, None)
    clocks, steps = [Clock() for _ in range(NUM_TURNS)], []
    for clock in clocks:
        steps.append(seconds_of_steps(precision, None))
        seconds_of_steps(precision, clock)
    whole = median(map(sum, steps))
    kinds = [*KINDS, ALL_ELSE]
    found = {kind: median(clock.seconds[kind] for clock in clocks) / whole for kind in kinds}
    found["no operator"] = 1 - sum(found.values())
    rate = clocks[0].operations / (found[PRODUCTS] * whole)
    return found, whole / len(steps[0]), rate


def main() -> None:
    """Print the table of both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with patch.object(training, "timed", processor_seconds):
        alone = training.PRODUCTS / min(training.matrix_products() for _ in range(NUM_TURNS))
    precisions = ["float32", *(["bfloat16"] if training.has_bfloat16() else [])]
    measured = [shares(precision) for precision in precisions]
    rows = [[kind, *(f"{found[kind]:.1%}" for found, _, _ in measured)] for kind in measured[0][0]]
    rows.append(["ms a step", *(f"{1e3 * seconds:.0f}" for _, seconds, _ in measured)])
    rows.append(["1e9 operations/s in products", *(f"{rate / 1e9:.0f}" for _, _, rate in measured)])
    text = (
        f"{machine()}, one thread, {NUM_TURNS} turns. Large products of matrices alone: "
        f"{alone / 1e9:.0f}e9 operations/s in float32.\n\n{markdown.table(('', *precisions), rows)}"
    )
    sys.stdout.write(text)
    if options.write:
        result_pages.put("benchmarks/operators.py", text)


if __name__ == "__main__":
    main()
