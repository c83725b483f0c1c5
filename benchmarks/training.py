"""Training: tokens per second, cost of tracking, and memory with a large vocabulary.

    python benchmarks/training.py

Variants that differ by a few per cent take each step directly after each other, in changing order,
and each step counts with the median ratio of its turns. All others run in a process of
their own and are shown by their shortest run, as other work on the machine only lengthens it; runs
that measure memory alone are made once.
The model is a GPT-2 of 4 layers x 256.
transformers.Trainer trains the same model on the same windows of CPython's documentation, with the
same batch size, optimizer and number of threads.
"""

import contextlib
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from table import Row, render
from timing import timed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.config import Gpt2Model, LstmModel, PythonDocsSource, TrainingConfig
from gdc.corpus.samples import samples_from
from gdc.corpus.sources import read_source
from gdc.corpus.tokenizer import train_tokenizer
from gdc.training import loop, losses
from gdc.training.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    cut_windows,
    pad_windows,
    plan_batches,
)
from gdc.training.distributed import SINGLE_PROCESS
from gdc.training.models import build_model, target_states
from gdc.training.recipe import Recipe, TrainingData
from gdc.workspace.trace_writer import TraceWriter

NUM_RUNS: Final = 2
NUM_THREADS: Final = 2
NUM_SAMPLES: Final = 600
# Few samples leave batches that no text of like length fills.
NUM_TURNS, NUM_TURN_SAMPLES = 6, 1000
VOCAB_SIZE: Final = 4096
BLOCK_SIZE: Final = 128
LARGE_VOCABULARY: Final = 50_000
LARGE_NUM_STEPS: Final = 3
GPT2: Final = Gpt2Model(
    kind="gpt2", block_size=BLOCK_SIZE, precision="float32", hidden_size=256, num_layers=4,
    num_heads=4, dropout=0.0,
)  # fmt: skip
LSTM: Final = LstmModel(
    kind="lstm", block_size=BLOCK_SIZE, precision="float32", hidden_size=256, num_layers=1,
    dropout=0.0,
)  # fmt: skip
CONFIG: Final = TrainingConfig(
    epochs=1, batch_tokens=2048, learning_rate=1e-3, schedule="constant", warmup_steps=0,
    weight_decay=0.01, clip_norm=1.0, num_threads=NUM_THREADS,
)  # fmt: skip
TRAINER_BARS: Final = {
    "trainer": ("tokens/s of tracked training, `transformers.Trainer`", 2),
    "trainer_by_length": ("the same, Trainer with its length groups", 1.25),
    "trainer_with_losses": ("the same, Trainer with a pass for the losses after every epoch", 3),
    "trainer_by_length_with_losses": ("the same, both", 1.8),
}
BY_LENGTH: Final = {"train_sampling_strategy": "group_by_length"}
LOSSES: Final = {"eval_strategy": "epoch"}
TURNS: Final = "turns"
# Of the limit: float32 products of matrices of so many rows and columns.
PRODUCT_SIZE, NUM_PRODUCTS = 2048, 15
PRODUCTS: Final = 2 * PRODUCT_SIZE**3 * NUM_PRODUCTS  # floating-point operations
NO_TEXTS: Final = TokenizedTexts.from_ids([], 0)


def main() -> None:
    """Run all parts and print the table; with the name of a part, only that part."""
    torch.set_num_threads(NUM_THREADS)
    if len(sys.argv) > 1:
        measured = turns() if sys.argv[1] == TURNS else _measured(sys.argv[1])
        sys.stdout.write(json.dumps(measured))
        return
    names = [name for name in PARTS if has_bfloat16() or name != "tracked_bfloat16"]
    # For its peak of memory a part need not run again.
    timed_names = [name for name in names if not name.startswith("large")]
    turns_of = [names, *[timed_names] * (NUM_RUNS - 1)]
    runs = [{name: _in_a_process(name) for name in turn} for turn in turns_of]
    seconds, gigabytes = (
        {name: min(run[name][i] for run in runs if name in run) for name in names} for i in (0, 1)
    )
    ours, untracked, again, products = _in_a_process(TURNS)
    limits = [
        Row("seconds of tracked training, untracked", ours, untracked, "<=", 1.02),
        Row("for noise: of untracked training, once more", again, untracked),
        Row("its operations/s, in 1e9, matrix products alone", operations() / ours / 1e9,
            PRODUCTS / products / 1e9, ">=", 0.65),
    ]  # fmt: skip
    sys.stdout.write(render([*limits, *rows(seconds, gigabytes)]))


def _measured(name: str) -> tuple[float, float]:
    """Seconds that a part takes, and the peak of this process's resident memory in GB."""
    seconds = PARTS[name]()
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _in_a_process(name: str) -> list[float]:
    """What this script measures when it is given the name."""
    done = subprocess.run([sys.executable, __file__, name], check=True, stdout=subprocess.PIPE)
    measured: list[float] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{name:32} {' '.join(f'{value:8.2f}' for value in measured)}\n")
    return measured


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself: emulated it is far slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


# ---- what trains on the documentation


@cache
def texts(num_samples: int = NUM_SAMPLES, vocab_size: int = VOCAB_SIZE) -> TokenizedTexts:
    """Sections of CPython's documentation."""
    rows = read_source(PythonDocsSource(kind="python-docs"), max_chars=2000, seed=0).rows
    samples = samples_from(rows, max_samples=num_samples, seed=0)["text"].to_list()
    tokenizer = train_tokenizer(samples, vocab_size)
    return TokenizedTexts.from_ids(tokenizer.encode(samples), tokenizer.end_of_text)


def gpt2(block_size: int = BLOCK_SIZE) -> nn.Module:
    """The model with fresh weights."""
    config = GPT2.model_copy(update={"block_size": block_size})
    return build_model(config, vocab_size=VOCAB_SIZE, end_of_text=0, seed=0).train()


def turns() -> list[float]:
    """Seconds of a tracked run, of an untracked one, of this once more, and of ``PRODUCTS``.

    Each step of the three runs is taken directly after the same one of the others, in changing
    order. A run has the seconds of the untracked steps, each at its shortest, times the median
    ratio of its turns, and those outside of steps.
    """
    data = texts(NUM_TURN_SAMPLES)
    measured = [laps_by_turns(data, turn) for turn in range(NUM_TURNS)]
    steps = np.array([laps for laps, _ in measured])  # turns x steps x runs
    shortest = steps[:, :, 1].min(axis=0)
    ratios = np.median(steps / steps[:, :, [1]], axis=0)
    outside = np.array([rest for _, rest in measured]).min(axis=0)
    products = min(matrix_products() for _ in range(NUM_TURNS))
    seconds: list[float] = (shortest @ ratios + outside).tolist()
    return [*seconds, products]


def laps_by_turns(data: TokenizedTexts, turn: int) -> tuple[list[list[float]], list[float]]:
    """Seconds of each step of a tracked run and of two untracked, and of each run's rest."""
    laps: list[list[float]] = []
    train_step = loop.Trainer.train_step
    others: list[Iterator[None]] = []
    rest = [0.0]
    for model in (gpt2(), gpt2()):
        started = time.perf_counter()
        others.append(untracked_steps(model, data))
        rest.append(time.perf_counter() - started)

    def timed_step(trainer: loop.Trainer) -> int:
        num_tokens: list[int] = []
        works: list[Callable[[], object]] = [lambda: num_tokens.append(train_step(trainer))]
        works += [partial(next, other) for other in others]
        lap = [0.0] * len(works)
        for place in range(len(works)):
            run = (turn + len(laps) + place) % len(works)
            lap[run] = timed(works[run])
        laps.append(lap)
        return num_tokens[0]

    with patch.object(loop.Trainer, "train_step", timed_step):
        rest[0] = tracked(data) - sum(map(sum, laps))
    return laps, rest


def tracked(data: TokenizedTexts, precision: str = "float32") -> float:
    """Our training, which records every sample's loss in every pass."""
    recipe = Recipe(CONFIG, BLOCK_SIZE, precision, seed=0)
    return _seconds_to_train(gpt2(), data, recipe, is_tracked=True)


def untracked_steps(model: nn.Module, data: TokenizedTexts) -> Iterator[None]:
    """Ready to take the same steps, one for each ``next``, and to record nothing."""
    windows = cut_windows(data, BLOCK_SIZE)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay, fused=True
    )

    def step(chosen: NDArray[np.int64]) -> None:
        inputs, targets = (torch.from_numpy(a) for a in pad_windows(data, windows, chosen))
        is_target = targets != PADDING
        nll = losses.target_nll(target_states(model, inputs, is_target), targets[is_target])
        ones = torch.ones_like(nll)
        loss = losses.weighted_loss(nll, ones, ones)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)
        optimizer.step()

    return map(step, itertools.chain.from_iterable(_plans(windows)))


def _seconds_to_train(
    model: nn.Module, data: TokenizedTexts, recipe: Recipe, *, is_tracked: bool = False
) -> float:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        ids = [str(i) for i in range(len(data))]
        index = pl.DataFrame({"sample_id": ids, "num_tokens": data.num_tokens})
        trace = TraceWriter(0, index, index.head(0), SINGLE_PROCESS) if is_tracked else None

        def work() -> None:
            recording = loop.train(
                model,
                TrainingData.unweighted(data, NO_TEXTS),
                recipe,
                checkpoints=Path("checkpoints"),
                name="benchmark",
                trace=trace,
            )
            if trace is not None:
                trace.finish(recording.checkpoint_table(), None, None)

        return timed(work)


def _plans(windows: Windows) -> list[list[NDArray[np.int64]]]:
    generators = [np.random.default_rng([0, epoch]) for epoch in range(CONFIG.epochs)]
    return [plan_batches(windows.length, CONFIG.batch_tokens, rng) for rng in generators]


# ---- transformers.Trainer


def trainer(**options: Any) -> float:  # noqa: ANN401 - options of Trainer
    """Its training; with ``LOSSES`` a pass after every epoch for the loss of every window."""
    import transformers  # noqa: PLC0415 - takes seconds

    windows = cut_windows(texts(), BLOCK_SIZE)
    plans = _plans(windows)
    num_windows = round(len(windows) * len(plans) / sum(map(len, plans)))
    # Trainer's model shifts the targets itself, so a window has one id more than it predicts.
    rows = [
        {"input_ids": torch.from_numpy(texts().ids[start : start + length + 1]).long()}
        for start, length in zip(windows.start, windows.length, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=CONFIG.epochs, max_grad_norm=CONFIG.clip_norm,
            per_device_train_batch_size=num_windows, per_device_eval_batch_size=num_windows,
            learning_rate=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay,
            lr_scheduler_type="constant", seed=0, use_cpu=True, report_to=[],
            logging_strategy="no", save_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        run = transformers.Trainer(
            model=gpt2(BLOCK_SIZE + 1), args=arguments, data_collator=_padded_rows,
            train_dataset=rows, eval_dataset=rows, preprocess_logits_for_metrics=_row_losses,
            compute_metrics=lambda _: {},
        )  # fmt: skip
        return timed(run.train)


def _padded_rows(batch: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    rows = [row["input_ids"] for row in batch]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(rows, batch_first=True),
        "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": pad(rows, batch_first=True, padding_value=PADDING),
    }


def _row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return nll.sum(dim=1)


# ---- a large vocabulary


def large(config: Gpt2Model | LstmModel) -> float:
    """Our training on random ids of a large vocabulary."""
    model = build_model(config, vocab_size=LARGE_VOCABULARY, end_of_text=0, seed=0)
    ids = np.random.default_rng(0).integers(LARGE_VOCABULARY, size=(32, 2 * BLOCK_SIZE - 1))
    recipe = Recipe(CONFIG, BLOCK_SIZE, "float32", seed=0, num_steps=LARGE_NUM_STEPS)
    return _seconds_to_train(model, TokenizedTexts.from_ids(ids.tolist(), 0), recipe)


def large_plain(config: Gpt2Model | LstmModel) -> float:
    """The same with all logits of a batch at once, and torch's cross entropy of them."""
    losses.MAX_LOGITS = sys.maxsize  # type: ignore[misc]  # of the comparison alone
    with patch.object(losses, "_nll_of_own", losses.token_nll):
        return large(config)


# ---- the limit, and the table


def matrix_products() -> float:
    """Seconds of ``PRODUCTS`` operations in float32 products of large matrices."""
    one, other = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE), torch.randn(PRODUCT_SIZE, PRODUCT_SIZE)
    _ = one @ other
    return timed(lambda: [one @ other for _ in range(NUM_PRODUCTS)])


def operations() -> float:
    """Of training in a turn: 6 N a token, and 12 x layers x width x length a token for attention.

    N counts the output head, and no embeddings that are only looked up. Padding does not count.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """
    model = gpt2()
    num_weights = sum(p.numel() for p in model.parameters()) - BLOCK_SIZE * GPT2.hidden_size
    length = cut_windows(texts(NUM_TURN_SAMPLES), BLOCK_SIZE).length.astype(np.float64)
    attention = 12 * GPT2.num_layers * GPT2.hidden_size * length
    return CONFIG.epochs * float((length * (6 * num_weights + attention)).sum())


def rows(seconds: dict[str, float], gigabytes: dict[str, float]) -> list[Row]:
    """What the shortest runs say."""
    num_tokens = CONFIG.epochs * int(texts().num_tokens.sum())
    rate = {name: num_tokens / taken for name, taken in seconds.items()}
    found = [
        Row(claim, rate["tracked"], rate[other], ">=", bar)
        for other, (claim, bar) in TRAINER_BARS.items()
    ]
    if has_bfloat16():
        bfloat16 = rate["tracked_bfloat16"]
        found += [
            Row("tokens/s in bfloat16, in float32", bfloat16, rate["tracked"], ">=", 1.8),
            Row("the same, Trainer's default", bfloat16, rate["trainer"], ">=", 4),
        ]
    else:
        sys.stderr.write("no bfloat16 in this processor: not compared\n")
    for kind in ("gpt2", "lstm"):
        ours, plain = f"large_{kind}", f"large_{kind}_plain"
        claim = f"GB at the peak with {LARGE_VOCABULARY:,} ids, {kind}, plain logits"
        found.append(Row(claim, gigabytes[ours], gigabytes[plain], "<=", 0.5))
        slower = seconds[ours] / seconds[plain]
        sys.stderr.write(f"{claim}: takes x{slower:.2f} as long\n")
    return found


PARTS: Final[dict[str, Callable[[], float]]] = {
    "tracked": lambda: tracked(texts()),
    "tracked_bfloat16": lambda: tracked(texts(), "bfloat16"),
    "trainer": trainer,
    "trainer_by_length": lambda: trainer(**BY_LENGTH),
    "trainer_with_losses": lambda: trainer(**LOSSES),
    "trainer_by_length_with_losses": lambda: trainer(**BY_LENGTH, **LOSSES),
    "large_gpt2": lambda: large(GPT2),
    "large_gpt2_plain": lambda: large_plain(GPT2),
    "large_lstm": lambda: large(LSTM),
    "large_lstm_plain": lambda: large_plain(LSTM),
}


if __name__ == "__main__":
    main()
