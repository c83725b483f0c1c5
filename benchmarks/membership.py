"""Membership attacks on a fine-tuned small model, on known members.

python benchmarks/membership.py

A GPT-2 is trained on source code of CPython's library, then fine-tuned on help topics and
docstrings; as many others of these, drawn at random, are no members. Writes
docs/results/membership.md. It takes minutes.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import polars as pl
import torch
from machine import machine
from result_pages import put
from text_corpora import code, docs
from torch import nn

from gdc.audit import membership_table
from gdc.audit.attack_inputs import References
from gdc.comparison import leakage
from gdc.comparison.results import AttackMeasures
from gdc.config import Gpt2Model, TrainingConfig
from gdc.corpus.tokenizer import TextTokenizer, train_tokenizer
from gdc.statistics import wording
from gdc.statistics.markdown import table
from gdc.training import loop
from gdc.training.batches import TokenizedTexts
from gdc.training.losses import token_records
from gdc.training.models import build_model
from gdc.training.recipe import Recipe, TrainingData
from gdc.training.token_records import TokenRecords

COMMAND: Final = "benchmarks/membership.py"
BLOCK_SIZE, VOCAB_SIZE, BATCH_TOKENS = 128, 1024, 1024
NUM_BASE, NUM_TEXTS = 1000, 400
"""Texts of the base model, and of each of the three groups: members, non-members, others."""
MIN_CHARS, MAX_CHARS = 100, 300
BASE_EPOCHS, EPOCHS = 3, (1, 3)
SEEDS: Final = (0, 1, 2)
MIN_K_SHARE: Final = 0.2
MODEL: Final = Gpt2Model(
    kind="gpt2", hidden_size=64, num_layers=2, num_heads=4, block_size=BLOCK_SIZE,
    precision="float32", dropout=0.0,
)  # fmt: skip


def main() -> None:
    """Train, attack, and write the page."""
    torch.set_num_threads(1)
    base_texts = passages(code(None), NUM_BASE)
    groups = passages(docs(None), 3 * NUM_TEXTS)
    tokenizer = train_tokenizer([*base_texts, *groups], VOCAB_SIZE)
    base = build_model(
        MODEL, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=0
    )
    trained(base, tokenizer, base_texts, BASE_EPOCHS, seed=0)
    found: dict[tuple[int, str], list[pl.DataFrame]] = {}
    for seed in SEEDS:
        members, strangers, others = drawn(groups, seed)
        asked = samples_of(members, strangers)
        of_base = recorded(base, tokenizer, asked)
        for epochs in EPOCHS:
            target, reference = (
                recorded(
                    trained(deepcopy(base), tokenizer, texts, epochs, seed=s), tokenizer, asked
                )
                for texts, s in ((members, seed), (others, 1000 + seed))
            )
            for name, records in (("base", of_base), ("other texts", reference)):
                found.setdefault((epochs, name), []).append(attacked(asked, target, records))
            sys.stderr.write(f"seed {seed}, {epochs} epochs: done\n")
    put(COMMAND, page(found))


def passages(texts: Iterable[str], num_texts: int) -> list[str]:
    """Distinct paragraphs, cut to ``MAX_CHARS``, chosen by their hash."""
    found = {
        paragraph.strip()[:MAX_CHARS]
        for text in texts
        for paragraph in text.split("\n\n")
        if len(paragraph.strip()) >= MIN_CHARS
    }
    chosen = sorted(found, key=lambda text: blake2b(text.encode()).digest())[:num_texts]
    if len(chosen) < num_texts:
        sys.exit(f"corpus: expected {num_texts} passages, got {len(chosen)}.")
    return chosen


def drawn(texts: Sequence[str], seed: int) -> list[list[str]]:
    """Members, non-members and other texts, at random."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [[texts[i] for i in part] for part in np.split(order, 3)]


def samples_of(members: Sequence[str], strangers: Sequence[str]) -> pl.DataFrame:
    """What the attacks are asked about."""
    texts = [*members, *strangers]
    is_member = [True] * len(members) + [False] * len(strangers)
    ids = [str(i) for i in range(len(texts))]
    return pl.DataFrame({"sample_id": ids, "text": texts, "is_member": is_member})


def trained(
    model: nn.Module, tokenizer: TextTokenizer, texts: Sequence[str], epochs: int, *, seed: int
) -> nn.Module:
    """The model after so many passes over the texts."""
    training = TrainingConfig(
        epochs=epochs, batch_tokens=BATCH_TOKENS, learning_rate=1e-3, schedule="constant",
        warmup_steps=20, weight_decay=0.01, clip_norm=1.0, num_threads=1,
    )  # fmt: skip
    data = TrainingData.unweighted(tokenized(tokenizer, texts), tokenized(tokenizer, []))
    recipe = Recipe(training, BLOCK_SIZE, MODEL.precision, seed)
    with TemporaryDirectory() as folder:
        loop.train(model, data, recipe, checkpoints=Path(folder), name="membership")
    return model


def tokenized(tokenizer: TextTokenizer, texts: Sequence[str]) -> TokenizedTexts:
    """Token sequences of the texts."""
    return TokenizedTexts.from_ids(tokenizer.encode(texts), tokenizer.end_of_text)


def recorded(model: nn.Module, tokenizer: TextTokenizer, samples: pl.DataFrame) -> TokenRecords:
    """What the model says of every token of the samples."""
    texts = tokenized(tokenizer, samples["text"].to_list())
    return token_records(model, texts, block_size=BLOCK_SIZE, batch_tokens=BATCH_TOKENS)


def attacked(samples: pl.DataFrame, target: TokenRecords, reference: TokenRecords) -> pl.DataFrame:
    """``MEMBERSHIP`` table of the target, with the attacks that a reference allows."""
    counts = np.bincount(reference.sequence)
    means = np.bincount(reference.sequence, weights=reference.nll) / counts
    never = np.zeros((len(means), 1), dtype=np.bool_)
    return membership_table.audit_samples(
        samples,
        target,
        block_size=BLOCK_SIZE,
        min_k_share=MIN_K_SHARE,
        references=References(means[:, None], never, reference.nll),
    )


def page(found: Mapping[tuple[int, str], list[pl.DataFrame]]) -> str:
    """The tables, a section for each number of passes."""
    parts = [f"Measured on: {machine()}.\n"]
    for epochs in EPOCHS:
        by_reference = {
            name: leakage.all_attacks(tables, seed=0)
            for (of, name), tables in found.items()
            if of == epochs
        }
        of_base = by_reference["base"]
        rows = [
            [
                f"`{name}`",
                *(cell for of in by_reference.values() for cell in cells(of.attacks[name])),
            ]
            for name in of_base.attacks
        ]
        rows += [
            [
                f"`{name}` (blind)",
                *(c for of in by_reference.values() for c in cells(of.blind[name])),
            ]
            for name in of_base.blind
        ]
        tail = leakage.sample_leakage(found[epochs, "base"], leakage.Attack("loss"), seed=0)
        heading = ["attack"]
        heading += [
            f"{what}, {name}" for name in by_reference for what in ("AUC", "TPR at 1 % FPR")
        ]
        parts.append(f"## {epochs} pass{'es' if epochs > 1 else ''} over the members\n")
        parts.append(table(heading, rows))
        parts.append(f"Tail rate: {wording.interval(tail.tail_rate, wording.percent)}\n")
    return "\n".join(parts)


def cells(measures: AttackMeasures) -> list[str]:
    """AUC and true positive rate with their intervals."""
    return [
        wording.interval(measures.auc, wording.number),
        wording.interval(measures.tpr_at_1_percent_fpr, wording.percent),
    ]


if __name__ == "__main__":
    main()
