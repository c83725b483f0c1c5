"""How much time recording takes: a tracked Trainer against an untracked one, and a probe.

Run: python benchmarks/recording.py [MINUTES]. Both works of a pair are timed directly after each
other, in an order that alternates, until the minutes (3 unless given) are over. Each line is a
ratio, the geometric mean over pairs with a 95 % interval: of time on the clock, and of processor
time, which other work on the machine changes least.
"""

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments

import gdc
from gdc.statistics.bootstrap import mean_interval

VOCABULARY, LENGTH, WIDTH, NUM_LAYERS, BATCH_SIZE = 2048, 128, 256, 4, 8
NUM_STEPS: Final = 16
NUM_PROBED: Final = 4 * NUM_STEPS * BATCH_SIZE
LEAST_PAIRS: Final = 5
Work = Callable[[], object]


class Seconds(NamedTuple):
    """What some work took."""

    clock: float
    processor: float


class Ratios(NamedTuple):
    """Of our time to the other one, a number for each pair."""

    clock: list[float]
    processor: list[float]


def model_of() -> GPT2LMHeadModel:
    """A GPT-2 of 3.7 million weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=NUM_LAYERS, n_head=4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def samples_of(num_samples: int) -> Dataset:
    """Random tokens."""
    ids = torch.randint(VOCABULARY, (num_samples, LENGTH), generator=torch.Generator()).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def trainer_of(dataset: Dataset, folder: Path, *, is_tracked: bool) -> Trainer:
    """A Trainer for one epoch."""
    arguments = TrainingArguments(
        str(folder / "model"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
        save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model_of(), arguments, train_dataset=dataset)
    trainer.remove_callback(PrinterCallback)
    if is_tracked:
        gdc.TraceCallback(folder / "trace").attach(trainer)
    return trainer


def collate(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Samples of one length."""
    ids = torch.tensor([sample["input_ids"] for sample in samples])
    return {"input_ids": ids, "labels": ids}


def probe(model: GPT2LMHeadModel, recorder: gdc.TraceRecorder) -> None:
    """Every sample's loss under the frozen model, recorded."""
    recorder.probe(model, collate, batch_size=BATCH_SIZE)
    recorder.close()


@torch.no_grad()
def pass_forward(model: GPT2LMHeadModel, dataset: Dataset) -> None:
    """The mean loss of each batch under the same model."""
    model.eval()
    for start in range(0, len(dataset), BATCH_SIZE):
        samples = [dataset[i] for i in range(start, min(start + BATCH_SIZE, len(dataset)))]
        model(**collate(samples), use_cache=False)


def seconds_of(work: Work) -> Seconds:
    """Time it once."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


def time_pair(ratios: Ratios, ours: Work, other: Work, *, is_ours_first: bool) -> None:
    """Time both, and add what came out to the ratios."""
    if is_ours_first:
        mine, theirs = seconds_of(ours), seconds_of(other)
    else:
        theirs, mine = seconds_of(other), seconds_of(ours)
    ratios.clock.append(mine.clock / theirs.clock)
    ratios.processor.append(mine.processor / theirs.processor)


def time_turn(trained: Dataset, probed: Dataset, ratios: Sequence[Ratios], turn: int) -> None:
    """A pair of trainings, and a pair of passes over the samples that are probed."""
    with tempfile.TemporaryDirectory() as name:
        folder, is_ours_first = Path(name), turn % 2 == 0
        tracked = trainer_of(trained, folder, is_tracked=True)
        untracked = trainer_of(trained, folder, is_tracked=False)
        time_pair(ratios[0], tracked.train, untracked.train, is_ours_first=is_ours_first)
        model, recorder = model_of(), gdc.TraceRecorder(folder / "probed", probed)
        time_pair(
            ratios[1],
            lambda: probe(model, recorder),
            lambda: pass_forward(model, probed),
            is_ours_first=is_ours_first,
        )


def line_of(name: str, ratios: Sequence[float], bar: float) -> str:
    """A ratio with its interval, and whether the interval lies below the bar."""
    found = mean_interval([np.log(ratios)], seed=0)
    value, low, high = (math.exp(x) for x in (found.value, found.low, found.high))
    held = "reached" if high <= bar else "missed" if low > bar else "not shown"
    return (
        f"{name:<48} {value:.3f} [{low:.3f}, {high:.3f}], median "
        f"{statistics.median(ratios):.3f}, bar {bar}: {held}\n"
    )


def main() -> None:
    """Time both by turns; the first turn, in which libraries load, does not count."""
    torch.set_num_threads(1)
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    started = time.perf_counter()
    trained, probed = samples_of(BATCH_SIZE * NUM_STEPS), samples_of(NUM_PROBED)
    time_turn(samples_of(BATCH_SIZE), samples_of(BATCH_SIZE), [Ratios([], []), Ratios([], [])], 0)
    ratios, longest = [Ratios([], []), Ratios([], [])], 0.0
    while len(ratios[0].clock) < LEAST_PAIRS or (
        time.perf_counter() - started + longest < 60 * minutes
    ):
        began = time.perf_counter()
        time_turn(trained, probed, ratios, len(ratios[0].clock))
        longest = max(longest, time.perf_counter() - began)
    bars = (("tracked Trainer over untracked", 1.05), ("probe over a forward pass", 1.1))
    sys.stdout.write(
        f"{len(ratios[0].clock)} pairs in {(time.perf_counter() - started) / 60:.1f} minutes, "
        "one thread of torch\n"
    )
    for (name, bar), of_pair in zip(bars, ratios, strict=True):
        sys.stdout.write(line_of(f"{name}, clock", of_pair.clock, bar))
        sys.stdout.write(line_of(f"{name}, processor", of_pair.processor, bar))


if __name__ == "__main__":
    main()
