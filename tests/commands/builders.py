"""A small model that knows its training texts by heart, for audits without the pipeline."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from gdc.config import JsonlSource, LstmModel, TrainingConfig
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.training import models
from gdc.training.batches import TokenizedTexts
from gdc.training.loop import train
from gdc.training.recipe import Recipe, TrainingData

MODEL = LstmModel(
    kind="lstm", block_size=64, precision="float32", hidden_size=64, num_layers=1, dropout=0.0
)
TRAINING = TrainingConfig(
    epochs=150, batch_tokens=256, learning_rate=1e-2, schedule="constant", warmup_steps=5,
    weight_decay=0.0, clip_norm=1.0, num_threads=1,
)  # fmt: skip
COLOURS = ("red", "blue", "grey", "white")


def text_of(i: int) -> str:
    """Five colours that follow from nothing but the number before them."""
    one, two, three, four, five = (COLOURS[i * 7919 // 4**k % 4] for k in range(5))
    return f"note {i}: a {one} box, a {two} chair, a {three} door, a {four} lamp, a {five} rug"


TEXTS = [text_of(i) for i in range(32)]
# Every other one, so that nothing but a model tells them apart.
MEMBERS, HELDOUT = TEXTS[::2], TEXTS[1::2]


def jsonl(path: Path, texts: Sequence[str]) -> JsonlSource:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return JsonlSource(kind="jsonl", path=str(path), text_field="text", key_field=None)


def save_lstm(folder: Path, texts: Sequence[str], *, is_trained: bool = True) -> None:
    """A small model trained on the texts until it knows them, and its tokenizer."""
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(texts, 300)
    model = models.build_model(
        MODEL, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=0
    )
    ids = TokenizedTexts.from_ids(tokenizer.encode(texts), tokenizer.end_of_text)
    data = TrainingData.unweighted(ids, ids)
    recipe = Recipe(TRAINING, MODEL.block_size, MODEL.precision, 0)
    if is_trained:
        train(model, data, recipe, checkpoints=folder / "checkpoints", name="test")
    models.save_model(model, folder)
    save_tokenizer(tokenizer, folder / "tokenizer")
