"""Time of all audits, compared with the one pass of the model that they are computed from.

    python benchmarks/audits.py

The pass reads texts of CPython's documentation and the canaries of the default preset twice, as
stage `evaluate` does; the audits add similarity, exposure with its fit, and membership. It is timed
inside them, so both numbers are of the same moment.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from table import Row, render
from timing import timed

from gdc.audit import membership_table
from gdc.audit.model_audit import AuditedTexts, Subject, audit_model
from gdc.config import parse_params
from gdc.corpus.canaries import make_canaries
from gdc.corpus.samples import build_corpus, samples_from
from gdc.corpus.sources import read_source
from gdc.corpus.tokenizer import train_tokenizer
from gdc.training import losses, models
from gdc.training.batches import TokenizedTexts
from gdc.training.token_records import TokenRecords
from gdc.workspace.files import load_params

NUM_SAMPLES = 1000
NUM_RUNS = 3
LIMIT = 1.3


def main() -> None:
    """Print the shortest run, the pass inside it and their ratio."""
    torch.set_num_threads(1)
    all_audits, token_records = prepared(), losses.token_records
    passes: list[tuple[float, int]] = []

    def timed_pass(
        model: torch.nn.Module, texts: TokenizedTexts, *, block_size: int, batch_tokens: int
    ) -> TokenRecords:
        started = time.perf_counter()
        records = token_records(model, texts, block_size=block_size, batch_tokens=batch_tokens)
        passes.append((time.perf_counter() - started, int(texts.num_tokens.sum())))
        return records

    with patch.object(losses, "token_records", timed_pass):
        runs = [(timed(all_audits), *passes[-1]) for _ in range(NUM_RUNS)]
    everything, alone, num_tokens = min(runs)
    claim = f"all audits of a GPT-2 of 4 x 256 on {num_tokens:,} tokens, the one pass in them, s"
    sys.stdout.write(render([Row(claim, everything, alone, "<=", LIMIT)]))


def prepared() -> Callable[[], object]:
    """All audits of a model with fresh weights."""
    params = load_params()
    params = parse_params(
        params.model_dump(mode="json")
        | {
            "model": {
                "kind": "gpt2", "block_size": 128, "precision": "float32", "hidden_size": 256,
                "num_layers": 4, "num_heads": 4, "dropout": 0.0,
            }
        },
        name="benchmark",
    )  # fmt: skip
    rows = read_source(params.ingest.source, max_chars=2000, seed=0).rows
    texts = samples_from(rows, max_samples=NUM_SAMPLES, seed=0)
    canaries = make_canaries(params.ingest.canaries, [texts], seed=0)
    corpus = build_corpus(texts, canaries, validation_fraction=0.1, seed=0)
    tokenizer = train_tokenizer(corpus["text"], 4096)
    model = models.build_model(
        params.model, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=0
    )
    samples = membership_table.choose_samples(corpus, NUM_SAMPLES, seed=0)
    subject = Subject(model, tokenizer, params.model.block_size)
    return partial(audit_model, subject, AuditedTexts(canaries, samples), params.evaluate)


if __name__ == "__main__":
    main()
