"""A transformers.Trainer on texts with repeated secrets -> a trace of its samples, mapped.

Run: python examples/record_a_trainer.py FOLDER. Takes less than a minute on a processor.
"""

import random
import sys
from pathlib import Path

import polars as pl
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gdc

WORDS = ("red", "blue", "grey", "white", "box", "chair", "door", "lamp", "near", "under")
NUM_TEXTS, NUM_COPIES, MAX_LENGTH = 96, 8, 8


def samples() -> Dataset:
    """Sentences of random words, and one of them many times, as tokens and labels."""
    draw = random.Random(0)  # noqa: S311  # texts at random, no secret
    texts = [[draw.randrange(len(WORDS)) for _ in range(MAX_LENGTH)] for _ in range(NUM_TEXTS)]
    secret = [draw.randrange(len(WORDS)) for _ in range(MAX_LENGTH)]
    rows = [{"id": f"text-{i}", "input_ids": text, "labels": text} for i, text in enumerate(texts)]
    copies = [
        {"id": f"secret-{i}", "input_ids": secret, "labels": secret} for i in range(NUM_COPIES)
    ]
    return Dataset.from_list(rows + copies)


def main() -> None:
    """Train, record and map."""
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=MAX_LENGTH, n_embd=32, n_layer=1, n_head=2,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    arguments = TrainingArguments(
        str(folder / "model"), per_device_train_batch_size=8, num_train_epochs=8,
        learning_rate=3e-3, save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=samples())
    # Gains take another forward pass of each batch; `gdc map --corpus --heldout` can use them.
    gdc.TraceCallback(folder / "trace", gains=True).attach(trainer)
    trainer.train()
    gdc.map_trace(folder / "trace", folder / "map", mode="online", scores=["total_drop"])
    scores = pl.read_parquet(folder / "map/scores.parquet")
    steepest = scores.sort("total_drop", descending=True).head(NUM_COPIES)["sample_id"]
    sys.stdout.write(f"lost most of their loss: {', '.join(sorted(steepest))}\n")


if __name__ == "__main__":
    main()
