"""What all audits cost beside the one pass of the model that they are computed from.

    python benchmarks/audits.py

The pass reads texts of CPython's documentation and the canaries of the default preset twice, as
stage `evaluate` does; the audits add similarity, exposure with its fit, and membership.
"""

import sys

import torch
from table import Row, render
from timing import timed

from gdc import audits, losses, models, tokens
from gdc.batches import TokenizedTexts
from gdc.canaries import make_canaries
from gdc.config import parse_params
from gdc.corpus import build_corpus, samples_from
from gdc.model_audit import Subject, audit_model
from gdc.sources import read_source
from gdc.store import load_params

NUM_SAMPLES = 1000
NUM_RUNS = 3
LIMIT = 1.3


def main() -> None:
    """Time both by turns and print the shortest runs and their ratio."""
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
    torch.set_num_threads(1)
    rows = read_source(params.ingest.source, max_chars=2000, seed=0).rows
    texts = samples_from(rows, max_samples=NUM_SAMPLES, seed=0)
    canaries = make_canaries(params.ingest.canaries, [texts], seed=0)
    corpus = build_corpus(texts, canaries, validation_fraction=0.1, seed=0)
    tokenizer = tokens.train_tokenizer(corpus["text"], 4096)
    model = models.build_model(
        params.model, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=0
    )
    samples = audits.choose_samples(corpus, NUM_SAMPLES, seed=0)
    subject = Subject(model, tokenizer, params.model.block_size)
    ids = tokenizer.encode([*canaries["text"], *canaries["text"], *samples["text"]])
    sequences = TokenizedTexts.from_ids(ids, tokenizer.end_of_text)

    def one_pass() -> None:
        losses.token_records(
            model, sequences, block_size=128, batch_tokens=params.evaluate.batch_tokens
        )

    def all_audits() -> None:
        audit_model(subject, canaries, samples, params.evaluate)

    seconds = [(timed(one_pass), timed(all_audits)) for _ in range(NUM_RUNS)]
    alone, everything = (min(column) for column in zip(*seconds, strict=True))
    num_tokens = f"{int(sequences.num_tokens.sum()):,} tokens"
    claim = f"all audits of a GPT-2 of 4 x 256 on {num_tokens}, the one pass they are made from, s"
    sys.stdout.write(render([Row(claim, everything, alone, "<=", LIMIT)]))


if __name__ == "__main__":
    main()
