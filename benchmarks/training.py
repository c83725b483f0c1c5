"""Training throughput, the cost of tracking, and memory with a large vocabulary.

    python benchmarks/training.py

Every part runs in a process of its own, by turns; the table shows medians. The model is a GPT-2 of
4 layers x 256 on CPython's documentation; both sides see the same windows of at most 128 tokens, as
many in a batch, at the same precision and number of threads.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import machine
from torch import nn

from gdc import models, training
from gdc.batches import PADDING, TokenizedTexts, padded, plan_batches, windows_of
from gdc.config import Gpt2Model, PythonDocsSource, TrainingConfig
from gdc.corpus import samples_from
from gdc.losses import token_nll
from gdc.models import target_logits
from gdc.sources import read_source
from gdc.tokens import train_tokenizer
from gdc.training import Recipe, TrainingData, weighted_loss

NUM_RUNS: Final = 3
NUM_SAMPLES: Final = 1200
VOCAB_SIZE: Final = 4096
EPOCHS: Final = 2
BLOCK_SIZE: Final = 128
BATCH_WINDOWS: Final = 32
NUM_THREADS: Final = 2
LARGE_VOCABULARY: Final = 50_000
LARGE_BATCH_TOKENS: Final = 2048
GPT2: Final = Gpt2Model(
    kind="gpt2", block_size=BLOCK_SIZE, precision="float32", hidden_size=256, num_layers=4,
    num_heads=4, dropout=0.0,
)  # fmt: skip
CONFIG: Final = TrainingConfig(
    epochs=EPOCHS, batch_tokens=BATCH_WINDOWS * BLOCK_SIZE, learning_rate=1e-3,
    schedule="constant", warmup_steps=0, weight_decay=0.01, clip_norm=1.0, num_threads=NUM_THREADS,
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A model with fresh weights and the texts that it trains on."""

    @cached_property
    def _rows(self) -> list[str]:
        rows = read_source(PythonDocsSource(kind="python-docs"), max_chars=2000, seed=0).rows
        return samples_from(rows, max_samples=NUM_SAMPLES, seed=0)["text"].to_list()

    @cached_property
    def texts(self) -> TokenizedTexts:
        tokenizer = train_tokenizer(self._rows, VOCAB_SIZE)
        return TokenizedTexts.from_ids(tokenizer.encode(self._rows), tokenizer.end_of_text)

    @cached_property
    def num_tokens(self) -> int:
        """Real tokens of all passes: padding is not counted."""
        return EPOCHS * int(self.texts.num_tokens.sum())

    def model(self) -> nn.Module:
        return models.build_model(GPT2, vocab_size=VOCAB_SIZE, end_of_text=0, seed=0)


def tracked(setting: Setting) -> float:
    """Our training, which records every sample's loss in every pass."""
    data = TrainingData.unweighted(setting.texts, TokenizedTexts.from_ids([], 0))
    recipe = Recipe(CONFIG, BLOCK_SIZE, "float32", seed=0)
    model = setting.model()
    with tempfile.TemporaryDirectory() as folder:
        return _seconds(
            lambda: training.train(model, data, recipe, checkpoints=Path(folder), name="bench")
        )


def untracked(setting: Setting) -> float:
    """The same batches and updates, and nothing recorded."""
    model = setting.model().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay, fused=True
    )
    windows = windows_of(setting.texts, BLOCK_SIZE)

    def step(chosen: Any) -> None:  # noqa: ANN401 - an array of window numbers
        inputs, targets = padded(setting.texts, windows, chosen)
        targets_BT = torch.from_numpy(targets)
        is_target_BT = targets_BT != PADDING
        logits_NV = target_logits(model, torch.from_numpy(inputs), is_target_BT)
        nll_N = token_nll(logits_NV, targets_BT[is_target_BT])
        loss = weighted_loss(nll_N, torch.ones_like(nll_N))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)
        optimizer.step()

    def run() -> None:
        for epoch in range(EPOCHS):
            rng = np.random.default_rng([0, epoch])
            for chosen in plan_batches(windows.length, CONFIG.batch_tokens, rng):
                step(chosen)

    return _seconds(run)


def trainer(setting: Setting) -> float:
    """transformers.Trainer, no evaluation."""
    return _trainer(setting)


def trainer_by_length(setting: Setting) -> float:
    """transformers.Trainer that puts windows of like length into a batch."""
    return _trainer(setting, train_sampling_strategy="group_by_length")


def trainer_with_losses(setting: Setting) -> float:
    """transformers.Trainer with an evaluation pass over the training set after every epoch."""
    return _trainer(setting, eval_strategy="epoch", per_device_eval_batch_size=BATCH_WINDOWS)


def _trainer(setting: Setting, **options: Any) -> float:  # noqa: ANN401 - options of Trainer
    import transformers
    from torch.nn import functional as F  # noqa: N812

    windows = windows_of(setting.texts, BLOCK_SIZE)
    # A window of n predicted tokens has n + 1 ids, and Trainer's model shifts them itself.
    rows = [
        {"input_ids": setting.texts.ids[start : start + length + 1].astype(np.int64)}
        for start, length in zip(windows.start, windows.length, strict=True)
    ]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.from_numpy(row["input_ids"]) for row in batch]
        pad = nn.utils.rnn.pad_sequence
        mask = pad([torch.ones_like(one) for one in ids], batch_first=True)
        return {
            "input_ids": pad(ids, batch_first=True),
            "attention_mask": mask,
            "labels": pad(ids, batch_first=True, padding_value=PADDING),
        }

    def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nll = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none"
        )
        return nll.view(len(labels), -1).sum(dim=1)

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH_WINDOWS,
            learning_rate=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay,
            lr_scheduler_type="constant", max_grad_norm=CONFIG.clip_norm, seed=0, use_cpu=True,
            report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        run = transformers.Trainer(
            model=_longer(setting), args=arguments, data_collator=collate, train_dataset=rows,
            eval_dataset=rows, preprocess_logits_for_metrics=losses,
        )  # fmt: skip
        return _seconds(run.train)


def _longer(setting: Setting) -> nn.Module:
    """The same model with one position more: Trainer's windows hold their last target too."""
    config = replace_block(GPT2)
    return models.build_model(config, vocab_size=VOCAB_SIZE, end_of_text=0, seed=0)


def replace_block(config: Gpt2Model) -> Gpt2Model:
    return config.model_copy(update={"block_size": BLOCK_SIZE + 1})


def matrix_products(_setting: Setting) -> float:
    """Seconds of 1e12 floating-point operations in float32 matrix products: the limit."""
    size, num = 2048, 60
    a, b = torch.randn(size, size), torch.randn(size, size)
    _ = a @ b
    seconds = _seconds(lambda: [a @ b for _ in range(num)])
    return seconds / (2 * size**3 * num) * 1e12


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
