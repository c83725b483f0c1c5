"""Audits on a GPU, and the memory that a training step takes there."""

import sys
from typing import Any

import numpy as np
import torch
from gpu_bench import Bench
from gpu_training import tracked_step

from gdc.training import losses


def audit(bench: Bench) -> dict[str, Any]:
    """The pass that all audits are computed from, and greedy continuations by ``generate``."""
    model, texts, size = bench.model().eval(), bench.texts(), bench.size

    def one_pass() -> None:
        with bench.autocast():
            losses.token_records(
                model, texts, block_size=size.gpt2.block_size,
                batch_tokens=bench.config.batch_tokens,
            )  # fmt: skip

    length = size.gpt2.block_size // 2
    prompts = torch.from_numpy(texts.ids[: size.batch_rows * length].astype(np.int64))
    prompts = prompts.reshape(-1, length).to(bench.device)

    def generate() -> None:
        with torch.no_grad(), bench.autocast():
            model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0,
                min_new_tokens=length, max_new_tokens=length, cache_implementation="static",
            )  # type: ignore[operator]  # a model of transformers  # fmt: skip

    one_pass()
    generate()
    num_tokens = int(texts.num_tokens.sum())
    return {
        "tokens_per_second": {
            "audit pass": num_tokens / bench.seconds_of(one_pass),
            "greedy, static cache": prompts.numel() / bench.seconds_of(generate),
        }
    }


def memory(bench: Bench) -> dict[str, Any]:
    """Peak memory of training steps by vocabulary, ours and with all logits at once."""
    texts, limit, found = bench.texts(), losses.MAX_LOGITS, {}
    for vocab_size in bench.size.vocab_sizes:
        for name, max_logits in (("ours", limit), ("plain logits", sys.maxsize)):
            losses.MAX_LOGITS = max_logits  # type: ignore[misc]  # of the comparison alone
            step = tracked_step(bench, bench.model(vocab_size), texts)
            found[f"{vocab_size:,} ids, {name}"] = bench.peak_gigabytes(step)
    return {"gigabytes": found}
