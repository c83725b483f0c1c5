"""Tiny models and data for the Trainers, and a witness who recomputes what they train on."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import gdc

NUM_WORDS, NUM_SAMPLES = 30, 11


def model_of(**config: Any) -> GPT2LMHeadModel:
    """A GPT-2 of 4,000 weights without dropout, always the same."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=NUM_WORDS + 2, n_positions=32, n_embd=16, n_layer=1, n_head=2,
            bos_token_id=1, eos_token_id=1, pad_token_id=0,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **config,
        )
    )  # fmt: skip


def words() -> list[list[str]]:
    """Samples of 4 to 11 words, no two alike."""
    random = np.random.default_rng(0)
    lengths = random.integers(4, 12, NUM_SAMPLES)
    return [[f"w{word}" for word in random.integers(0, NUM_WORDS, n)] for n in lengths]


def tokenizer_of() -> PreTrainedTokenizerFast:
    """A token for each word."""
    vocabulary = {"[pad]": 0, "[end]": 1} | {f"w{i}": i + 2 for i in range(NUM_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[pad]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="[end]",
        pad_token="[pad]",
    )


def tokens_of_words() -> Dataset:
    """The samples as token ids and labels; the first two words of each have no loss."""
    rows = [
        {
            "id": f"doc-{i}",
            "note": "a column that no model knows",
            "input_ids": [int(word[1:]) + 2 for word in sample],
            "labels": [-100, -100, *(int(word[1:]) + 2 for word in sample[2:])],
        }
        for i, sample in enumerate(words())
    ]
    return Dataset.from_list(rows)


def pad(samples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A collator that knows token ids and labels and nothing else."""
    assert set(samples[0]) == {"input_ids", "labels"}
    longest = max(len(sample["input_ids"]) for sample in samples)

    def padded(name: str, value: int) -> torch.Tensor:
        rows = [sample[name] for sample in samples]
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    ids = padded("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": padded("labels", -100)}


def arguments(folder: Path, **changed: Any) -> dict[str, Any]:
    """Arguments of a Trainer that takes a second: two epochs of three steps."""
    usual = {
        "output_dir": str(folder / "model"), "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "num_train_epochs": 2, "learning_rate": 1e-2,
        "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "logging_strategy": "no", "seed": 3, "bf16": False,
    }  # fmt: skip
    return {**usual, **changed}


def trainer_of(folder: Path, model: Any = None, **changed: Any) -> Trainer:
    """A plain Trainer on the tokens."""
    return Trainer(
        model=model or model_of(),
        args=TrainingArguments(**arguments(folder, **changed)),
        train_dataset=tokens_of_words(),
        data_collator=pad,
    )


class Witness:
    """Recomputes each sample of each batch alone, under the weights of that moment.

    Attributes:
        sums: By epoch, then by the token ids of the sample: its loss in nats and its tokens.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.train = trainer, trainer.training_step
        self.sums: dict[int, dict[tuple[int, ...], list[float]]] = defaultdict(
            lambda: defaultdict(lambda: [0.0, 0])
        )
        trainer.training_step = self.training_step

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        epoch = int(self.trainer.state.epoch or 0)
        for ids, labels in samples_in(inputs):
            with torch.no_grad():
                logits = self.trainer.model(input_ids=torch.tensor([ids])).logits[0, :-1]
            targets = torch.tensor(labels[1:])
            nll = F.cross_entropy(logits.double(), targets, reduction="sum", ignore_index=-100)
            entry = self.sums[epoch][tuple(ids)]
            entry[0] += float(nll)
            entry[1] += int((targets != -100).sum())
        return self.train(model, inputs, *rest, **named)

    def losses(self) -> list[dict[tuple[int, ...], float]]:
        """By epoch, mean loss of each sample, nats per token."""
        return [
            {ids: total / count for ids, (total, count) in epoch.items()}
            for _, epoch in sorted(self.sums.items())
        ]


def samples_in(batch: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids and labels of each sample of a batch, without padding."""
    rows = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)
    for place, (ids, labels) in enumerate(rows):
        if "position_ids" in batch:
            positions = batch["position_ids"][place].tolist()
            begins = [i for i, position in enumerate(positions) if position == 0]
        else:
            begins = [0]
        is_padded = "attention_mask" in batch
        length = int(batch["attention_mask"][place].sum()) if is_padded else len(ids)
        for start, end in zip(begins, [*begins[1:], length], strict=True):
            yield ids[start:end], labels[start:end]


def recorded(folder: Path, mode: str = "online") -> list[dict[str, float | None]]:
    """Losses by checkpoint, then by sample."""
    trace = gdc.load_trace(folder, mode)
    samples = trace.samples.collect()
    ids = samples["sample_id"].to_list()
    return [dict(zip(ids, samples[name].to_list(), strict=True)) for name in trace.columns(mode)]
