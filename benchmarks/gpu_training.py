"""Tokens a second of training on a GPU: our loop with and without records, and Trainer."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from gpu_bench import NO_TEXTS, Bench, device_name, flops_a_token
from numpy.typing import NDArray
from torch import nn
from training import _padded_rows

from gdc.config import Lora, PretrainedModel
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
from gdc.training.models import target_states
from gdc.training.recipe import Recipe, TrainingData

# Dense bfloat16 operations a second, as the vendor says.
PEAKS: Final = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
PRODUCT_SIZE: Final = {"cuda": 8192, "cpu": 512}
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Trainer": {},
    "Trainer, compiled": {"torch_compile": True},
    "Trainer, length groups": {"train_sampling_strategy": "group_by_length"},
    "Trainer, length groups, compiled": {
        "train_sampling_strategy": "group_by_length", "torch_compile": True,
    },
}  # fmt: skip


def train(bench: Bench) -> dict[str, Any]:
    """GPT-2 Small: our loop with and without records, and ``transformers.Trainer``."""
    texts = bench.texts()
    rates = {
        "untracked": bench.rate(_untracked_step(bench, texts)),
        "tracked": bench.rate(tracked_step(bench, bench.model(), texts)),
    }
    if bench.device.type == "cuda":
        model = bench.model()
        model.get_submodule("transformer").compile(dynamic=True)
        rates["tracked, compiled"] = bench.rate(tracked_step(bench, model, texts))
    with_losses = {}
    for name, options in VARIANTS.items():
        if bench.device.type == "cuda" or "torch_compile" not in options:
            rates[name], seconds_of_token = _trainer_rate(bench, texts, options)
            with_losses[name] = 1 / (1 / rates[name] + seconds_of_token)
    flops = flops_a_token(bench.model(), bench.size.gpt2)
    device = device_name(bench.device.type)
    peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    found = {
        "tokens_per_second": rates,
        "with_a_loss_pass_an_epoch": with_losses,
        "product_flops": _product_flops(bench),
        "flops_a_token": flops,
    }
    if peak is not None:
        found["mfu"] = {name: rate * flops / peak for name, rate in rates.items()}
    return found


def llama(bench: Bench) -> dict[str, Any]:
    """A Llama of 1 B parameters with LoRA, with and without records."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - takes seconds

    from gdc.training.transformer_models import for_fine_tuning  # noqa: PLC0415 - as that

    texts, block_size = bench.texts(), bench.size.gpt2.block_size
    settings = LlamaConfig(**bench.size.llama, max_position_embeddings=block_size)
    lora = PretrainedModel(
        kind="pretrained", block_size=block_size, precision=bench.size.gpt2.precision, name="-",
        revision=None, gradient_checkpointing=True,
        lora=Lora(rank=8, alpha=16, dropout=0.0, target_modules=None),
    )  # fmt: skip
    with bench.device:
        model = for_fine_tuning(LlamaForCausalLM(settings), lora).train()
    num_weights = sum(p.numel() for p in model.parameters())
    return {
        "parameters": num_weights,
        "tokens_per_second": {
            "untracked": bench.rate(_untracked_step(bench, texts, model)),
            "tracked": bench.rate(tracked_step(bench, model, texts)),
        },
    }


def tracked_step(bench: Bench, model: nn.Module, texts: TokenizedTexts) -> Callable[[], int]:
    """A step of our loop, which records every loss; returns its tokens."""
    recipe = Recipe(bench.config, bench.size.gpt2.block_size, bench.size.gpt2.precision, seed=0)
    data = TrainingData.unweighted(texts, NO_TEXTS)
    return loop.Trainer(model, data, recipe, None, SINGLE_PROCESS).train_step


def _untracked_step(
    bench: Bench, texts: TokenizedTexts, model: nn.Module | None = None
) -> Callable[[], int]:
    """The same batches and updates, and nothing recorded."""
    model = bench.model() if model is None else model
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    windows, batches = _batches(bench, texts)

    def step() -> int:
        arrays = pad_windows(texts, windows, next(batches))
        inputs, targets = (torch.from_numpy(a).to(bench.device) for a in arrays)
        is_target = targets != PADDING
        with bench.autocast():
            nll = losses.target_nll(target_states(model, inputs, is_target), targets[is_target])
        loss = nll.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        float(loss.detach())
        return len(nll)

    return step


def _batches(bench: Bench, texts: TokenizedTexts) -> tuple[Windows, Iterator[NDArray[np.int64]]]:
    windows = cut_windows(texts, bench.size.gpt2.block_size)

    def endless() -> Iterator[NDArray[np.int64]]:
        rng = np.random.default_rng([0, 0])
        while True:
            yield from plan_batches(windows.length, bench.config.batch_tokens, rng)

    return windows, endless()


def _trainer_rate(
    bench: Bench, texts: TokenizedTexts, options: Mapping[str, Any]
) -> tuple[float, float]:
    """Tokens a second of Trainer's training, and seconds a token of a pass for the losses."""
    import transformers  # noqa: PLC0415 - takes seconds

    windows = cut_windows(texts, bench.size.gpt2.block_size - 1)
    rows = [
        {"input_ids": torch.from_numpy(texts.ids[start : start + length + 1]).long()}
        for start, length in zip(windows.start, windows.length, strict=True)
    ]
    num_tokens: list[int] = []
    ends: list[float] = []

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        num_tokens.append(sum(len(row["input_ids"]) - 1 for row in batch))
        return _padded_rows(batch)

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            bench.synchronize()
            ends.append(time.perf_counter())

    first, last = bench.size.num_steps - 1, 2 * bench.size.num_steps - 1
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=last + 1, max_grad_norm=1.0, learning_rate=1e-4,
            per_device_train_batch_size=bench.size.batch_rows,
            per_device_eval_batch_size=bench.size.batch_rows, lr_scheduler_type="constant",
            bf16=bench.size.gpt2.precision == "bfloat16", use_cpu=bench.device.type == "cpu",
            seed=0, report_to=[], logging_strategy="no", save_strategy="no", disable_tqdm=True,
            prediction_loss_only=True, **options,
        )  # fmt: skip
        part = rows[: bench.size.num_steps * bench.size.batch_rows]
        run = transformers.Trainer(
            model=bench.model(), args=arguments, data_collator=collate, train_dataset=rows,
            eval_dataset=part, callbacks=[Clock()],
        )  # fmt: skip
        run.train()
        rate = sum(num_tokens[first + 1 : last + 1]) / (ends[last] - ends[first])
        run.evaluate()
        seconds = bench.seconds_of(run.evaluate)
    return rate, seconds / sum(len(row["input_ids"]) - 1 for row in part)


def _product_flops(bench: Bench) -> float:
    """Operations a second of large matrix products in the precision of training."""
    n = PRODUCT_SIZE[bench.device.type]
    dtype = torch.bfloat16 if bench.size.gpt2.precision == "bfloat16" else torch.float32
    one, other = (torch.randn(n, n, device=bench.device, dtype=dtype) for _ in range(2))
    _ = one @ other
    return 2 * n**3 * 10 / bench.seconds_of(lambda: [one @ other for _ in range(10)])
