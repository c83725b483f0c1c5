"""Few shapes of batches against one for each batch: what they would save, in processor seconds.

    python benchmarks/shapes.py          # prints
    python benchmarks/shapes.py --write  # and writes the table to docs/results/speed.md

Today's batches are as long as their longest window and have as many rows as fit, so nearly every
batch has a shape of its own, and oneDNN builds kernels for it. Two ways to have few shapes: today's
batches filled up to 4 rows, 16 tokens and 256 predicted positions or multiples of these; or batches
planned for lengths in multiples of 16, each with all rows that the token budget allows. What is
filled in is masked. All run in turns in one process, on batches that are drawn
anew for each turn as for an epoch, with one thread: the processor seconds of waiting threads would
count too. Shown is the median of the turns' ratios.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import result_pages
import torch
import training
from machine import machine
from numpy.typing import NDArray
from torch import Tensor, nn

from gdc.config import Gpt2Model, LstmModel
from gdc.statistics import markdown
from gdc.training import losses
from gdc.training.batches import (
    LENGTH_JITTER,
    PADDING,
    TokenizedTexts,
    Windows,
    cut_windows,
    pad_windows,
    plan_batches,
)
from gdc.training.models import TargetStates, build_model, target_states

NUM_TURNS: Final = 3
NUM_TARGETS: Final = 256
# The model and the batches of the default preset, and the GPT-2 of the other benchmarks.
LSTM: Final = LstmModel(
    kind="lstm", block_size=128, precision="float32", hidden_size=96, num_layers=1, dropout=0.0
)
# Each with the tokens of a batch, the entries of the vocabulary, and the texts of an epoch.
MODELS: Final[dict[str, tuple[Gpt2Model | LstmModel, int, int, int]]] = {
    "LSTM of the default preset": (LSTM, 1024, 1024, 400),
    "GPT-2 of 4 x 256": (training.GPT2, 2048, training.VOCAB_SIZE, 200),
}
ROWS, LENGTH = 4, 16
TODAY, FILLED, PLANNED = "today's", "filled", "planned"


@dataclass(frozen=True)
class Batch:
    """Windows, and the rows and the length that they are padded to; None: no more than needed."""

    windows: NDArray[np.int64]
    shape: tuple[int, int] | None


def plan(lengths: NDArray[np.int64], size: int, variant: str, seed: int) -> list[Batch]:
    """An epoch's batches of at most ``size`` tokens, filled up or not."""
    rng = np.random.default_rng(seed)
    if variant != PLANNED:
        batches = plan_batches(lengths, size, rng)
        return [Batch(b, _filled(lengths[b]) if variant == FILLED else None) for b in batches]
    stretched = lengths * rng.uniform(1, 1 + LENGTH_JITTER, size=len(lengths))
    order, planned = np.argsort(-stretched, kind="stable"), []
    while len(order):
        length, taken = 0, order[:1]
        # A longer window among those that are taken makes the batch longer, and leaves fewer rows.
        while (found := _rounded(int(lengths[taken].max()), LENGTH)) > length:
            length = found
            taken = order[: max(1, size // length)]
        planned.append(Batch(taken, (max(1, size // length), length)))
        order = order[len(taken) :]
    return [planned[i] for i in rng.permutation(len(planned))]


def _filled(lengths: NDArray[np.int64]) -> tuple[int, int]:
    return _rounded(len(lengths), ROWS), _rounded(int(lengths.max()), LENGTH)


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def arrays(texts: TokenizedTexts, windows: Windows, batch: Batch) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a batch."""
    inputs, targets = pad_windows(texts, windows, batch.windows)
    if batch.shape is not None:
        rows, length = np.array(batch.shape) - inputs.shape
        filled = ((0, rows), (0, length))
        inputs = np.pad(inputs, filled)
        targets = np.pad(targets, filled, constant_values=PADDING)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def token_losses(model: nn.Module, inputs: Tensor, targets: Tensor, *, is_filled: bool) -> Tensor:
    """Loss of each predicted token of a batch, nats."""
    is_target = targets != PADDING
    chosen = targets[is_target]
    if not is_filled:
        return losses.target_nll(target_states(model, inputs, is_target), chosen)
    # As many positions as a multiple, the first of them again.
    states = target_states(model, inputs, torch.ones_like(is_target))
    num, at = len(chosen), is_target.flatten().nonzero()[:, 0]
    at = nn.functional.pad(at, (0, _rounded(num, NUM_TARGETS) - num))
    filled = TargetStates(states.hidden[at], states.weight, states.bias)
    return losses.target_nll(filled, targets.flatten()[at].clamp_min(0))[:num]


@dataclass(frozen=True)
class Epoch:
    """Predicted tokens, processor seconds, share of padding and number of shapes."""

    num_tokens: int
    seconds: float
    padding: float
    num_shapes: int

    @property
    def speed(self) -> float:
        """Tokens a processor second."""
        return self.num_tokens / self.seconds


def train(
    model: nn.Module, texts: TokenizedTexts, windows: Windows, batches: Sequence[Batch], dtype: str
) -> Epoch:
    """Train one epoch with AdamW and count."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    num_tokens, num_places, shapes = 0, 0, set()
    begun = time.process_time()
    for batch in batches:
        inputs, targets = arrays(texts, windows, batch)
        is_half = dtype == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16) if is_half else nullcontext():
            nll = token_losses(model, inputs, targets, is_filled=batch.shape is not None)
        optimizer.zero_grad(set_to_none=True)
        nll.mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        num_tokens += len(nll)
        num_places += inputs.numel()
        shapes.add((*inputs.shape, len(nll) if batch.shape is None else 0))
    seconds = time.process_time() - begun
    return Epoch(num_tokens, seconds, 1 - num_tokens / num_places, len(shapes))


def compare(name: str, dtype: str) -> list[list[str]]:
    """A row for each way."""
    config, size, vocab_size, num_samples = MODELS[name]
    texts = training.texts(num_samples, vocab_size)
    windows = cut_windows(texts, config.block_size)
    turns: list[dict[str, Epoch]] = []
    for turn in range(NUM_TURNS):
        done: dict[str, Epoch] = {}
        variants = [TODAY, FILLED, PLANNED]
        for variant in variants if turn % 2 else reversed(variants):
            model = build_model(config, vocab_size=vocab_size, end_of_text=0, seed=0)
            batches = plan(windows.length, size, variant, turn)
            done[variant] = train(model.train(), texts, windows, batches, dtype)
        turns.append(done)
    rows = []
    for variant in (FILLED, PLANNED):
        ratios = [done[variant].speed / done[TODAY].speed for done in turns]
        ours, today = (
            [median(getattr(done[way], key) for done in turns) for key in
             ("speed", "padding", "num_shapes")]
            for way in (variant, TODAY)
        )  # fmt: skip
        rows.append([
            name, dtype, variant, f"{ours[2]:.0f} for {today[2]:.0f}",
            f"{ours[1]:.1%} for {today[1]:.1%}", f"{ours[0]:,.0f}", f"{today[0]:,.0f}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        ])  # fmt: skip
    return rows


def main() -> None:
    """Compare for each model in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtypes = ["float32", *(["bfloat16"] if training.has_bfloat16() else [])]
    heading = (
        "model", "precision", "batches", "shapes", "padding", "tokens a processor second",
        "today's batches", "ratio (of the turns)",
    )  # fmt: skip
    rows = [row for name in MODELS for dtype in dtypes for row in compare(name, dtype)]
    text = f"{machine()}, one thread, {NUM_TURNS} turns.\n\n{markdown.table(heading, rows)}"
    sys.stdout.write(text)
    if options.write:
        result_pages.put("benchmarks/shapes.py", text)


if __name__ == "__main__":
    main()
