"""Builders of a small model to audit, its texts, and what it is known to say of them."""

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.audit.model_audit import Subject
from gdc.config import LstmModel
from gdc.corpus.tokenizer import TextTokenizer, train_tokenizer
from gdc.training.models import build_model, target_states
from gdc.training.token_records import TokenRecords


def subject_of(block_size: int) -> Subject:
    tokenizer = train_tokenizer([], 257)
    model = build_model(
        LstmModel(
            kind="lstm", block_size=block_size, precision="float32",
            hidden_size=8, num_layers=1, dropout=0.0,
        ),
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
        seed=0,
    )  # fmt: skip
    return Subject(model, tokenizer, block_size)


def samples_of(*texts: str) -> pl.DataFrame:
    ids = [str(i) for i in range(len(texts))]
    return pl.DataFrame(
        {"sample_id": ids, "text": texts, "is_member": [i % 2 == 0 for i in range(len(texts))]}
    )


def nll_after(model: nn.Module, before: list[int], secret: list[int]) -> float:
    """Nats of a secret behind other ids: one call, one sum."""
    ids = torch.tensor([[*before, *secret]])
    is_target = torch.ones_like(ids[:, :-1], dtype=torch.bool)
    with torch.inference_mode():
        states = target_states(model, ids[:, :-1], is_target)
        logits = states.logits()
    nll = F.cross_entropy(logits, ids[0, 1:], reduction="none")
    return float(nll[-len(secret) :].double().sum())


def ids_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0]


def records_of(nll: list[list[float]], is_greedy: list[list[bool]]) -> TokenRecords:
    lengths = [len(text) for text in nll]
    flat = np.concatenate([np.array(text, dtype=np.float32) for text in nll])
    return TokenRecords(
        sequence=np.repeat(np.arange(len(nll)), lengths),
        position=np.concatenate([np.arange(length) for length in lengths]),
        nll=flat,
        is_greedy=np.concatenate([np.array(text, dtype=bool) for text in is_greedy]),
        mean=np.full(len(flat), -2.0, dtype=np.float32),
        std=np.full(len(flat), 0.5, dtype=np.float32),
        greedy_id=np.zeros(len(flat), dtype=np.int32),
    )
