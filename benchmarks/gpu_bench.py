"""Sizes, models, texts and clocks of benchmarks/gpu.py."""

import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from gdc.config import Gpt2Model, TrainingConfig
from gdc.corpus.tokenizer import train_tokenizer
from gdc.training.batches import TokenizedTexts
from gdc.training.models import build_model

NO_TEXTS: Final = TokenizedTexts.from_ids([], 0)


@dataclass(frozen=True)
class Size:
    """Sizes of everything, for a GPU or for a test of this script."""

    gpt2: Gpt2Model
    llama: Mapping[str, Any]
    batch_rows: int
    vocab_sizes: tuple[int, int]
    num_steps: int  # measured, after as many that warm up
    num_files: int  # of CPython's library
    max_chars: int  # of each
    max_samples: int  # of the pipeline
    pipeline_epochs: int


FULL: Final = Size(
    gpt2=Gpt2Model(
        kind="gpt2", block_size=1024, precision="bfloat16", hidden_size=768, num_layers=12,
        num_heads=12, dropout=0.0,
    ),
    llama={
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32_000,
    },
    batch_rows=32, vocab_sizes=(50_257, 128_256), num_steps=10, num_files=400, max_chars=10**6,
    max_samples=20_000, pipeline_epochs=3,
)  # fmt: skip
TINY: Final = Size(
    gpt2=Gpt2Model(
        kind="gpt2", block_size=64, precision="float32", hidden_size=32, num_layers=2,
        num_heads=2, dropout=0.0,
    ),
    llama={
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 512,
    },
    batch_rows=4, vocab_sizes=(512, 1024), num_steps=2, num_files=20, max_chars=500,
    max_samples=80, pipeline_epochs=2,
)  # fmt: skip


def device_name(device: str) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


@dataclass(frozen=True)
class Bench:
    """Sizes and the device."""

    size: Size
    device: torch.device

    @property
    def config(self) -> TrainingConfig:
        """The loop's parameters."""
        return TrainingConfig(
            epochs=1, batch_tokens=self.size.batch_rows * self.size.gpt2.block_size,
            learning_rate=1e-4, schedule="constant", warmup_steps=0, weight_decay=0.01,
            clip_norm=1.0, num_threads=1,
        )  # fmt: skip

    def model(self, vocab_size: int | None = None) -> nn.Module:
        """A GPT-2 with random weights."""
        size = vocab_size or self.size.vocab_sizes[0]
        return build_model(self.size.gpt2, vocab_size=size, end_of_text=0, seed=0).to(self.device)

    def texts(self) -> TokenizedTexts:
        """Files of CPython's library; a small vocabulary, as their ids only stand for any."""
        folder = Path(sysconfig.get_paths()["stdlib"])
        files = [f for f in sorted(folder.rglob("*.py")) if "site-packages" not in f.parts]
        step = max(1, len(files) // self.size.num_files)
        read = (f.read_text(encoding="utf-8", errors="replace") for f in files[::step])
        texts = [text[: self.size.max_chars] for text in read if text.strip()]
        tokenizer = train_tokenizer(texts[:50], 400)
        return TokenizedTexts.from_ids(tokenizer.encode(texts), tokenizer.end_of_text)

    def synchronize(self) -> None:
        """Wait for what runs on a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """As the loop computes."""
        is_half = self.size.gpt2.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half):
            yield

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Seconds that some work takes, on the device too."""
        self.synchronize()
        begun = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begun

    def rate(self, step: Callable[[], int]) -> float:
        """Tokens a second of a step that returns its tokens: median of steps after warm-up."""
        for _ in range(self.size.num_steps):
            step()
        rates = []
        for _ in range(self.size.num_steps):
            self.synchronize()
            begun = time.perf_counter()
            num_tokens = step()
            self.synchronize()
            rates.append(num_tokens / (time.perf_counter() - begun))
        return statistics.median(rates)

    def peak_gigabytes(self, step: Callable[[], int]) -> float | str | None:
        """Memory of the device at the peak of a few steps; None: it has none of its own.

        A string where it did not suffice.
        """
        is_gpu = self.device.type == "cuda"
        if is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            for _ in range(self.size.num_steps):
                step()
        except torch.OutOfMemoryError:
            return "out of memory"
        if not is_gpu:
            return None
        return torch.cuda.max_memory_allocated() / 1e9


def flops_a_token(model: nn.Module, config: Gpt2Model) -> float:
    """Operations of training on one token of a full window.

    Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B.
    """
    num_weights = sum(p.numel() for p in model.parameters())
    num_weights -= config.block_size * config.hidden_size
    return 6 * num_weights + 12 * config.num_layers * config.hidden_size * config.block_size
