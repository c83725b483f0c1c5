"""Secrets in the training file of a real ``transformers.Trainer``: found, planned away, gone."""

import json
import random
from pathlib import Path

import datasets
import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from typer.testing import CliRunner

import gdc
from gdc.audit.model_audit import Subject, record_secrets
from gdc.cli import app
from gdc.config import SyntheticSource
from gdc.corpus.sources import synthetic
from gdc.corpus.tokenizer import TextTokenizer, train_tokenizer
from gdc.schema import CANARIES

NUM_ORDINARY = 160
# Three secrets eight times and two once: 26 rows of 186.
NUM_REPEATS = (8, 8, 8, 1, 1)
EPOCHS = 25


class Probes(TrainerCallback):
    """Records the loss of every sample before training and at each epoch's end."""

    def __init__(self, folder: Path, rows: datasets.Dataset) -> None:
        self.recorder = gdc.TraceRecorder(folder, rows)
        self.collate = gdc.WeightedCollator(pad_token_id=0)

    def on_train_begin(self, args, state, control, model=None, **_):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201, ARG002
        self.recorder.probe(model, self.collate, batch_size=64, step=0)

    def on_epoch_end(self, args, state, control, model=None, **_):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN201, ARG002
        self.recorder.probe(model, self.collate, batch_size=64, step=state.global_step)

    def on_train_end(self, *_, **__):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN201
        self.recorder.close()


def secrets() -> pl.DataFrame:
    rng = random.Random(0)  # noqa: S311 - reproducible
    rows = []
    for number, num_repeats in enumerate(NUM_REPEATS):
        prefix, secret = f"The code of door {number} is", f" {rng.randrange(10**8, 10**9)}"
        rows.append((f"s-{number}", "door", prefix, secret, prefix + secret, num_repeats))
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


def write_corpus() -> list[str]:
    """A training file in random order, each row with an id that says what it is; its texts."""
    source = SyntheticSource(
        kind="synthetic", num_samples=NUM_ORDINARY, num_words=200, words_per_sample=10, branching=8
    )
    ordinary = [str(row.text) for row in synthetic.read_rows(source, seed=0)]
    rng = random.Random(0)  # noqa: S311 - reproducible
    rows = [(f"doc-{i}", text) for i, text in enumerate(ordinary)]
    for name, text, num_repeats in secrets().select("canary_id", "text", "num_repeats").rows():
        rows += [(f"{name}-copy-{copy}", text) for copy in range(num_repeats)]
    rng.shuffle(rows)
    lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in rows]
    Path("my.jsonl").write_text("".join(lines))
    return [text for _, text in rows]


def tokenized(path: str, tokenizer: TextTokenizer) -> datasets.Dataset:
    end = tokenizer.end_of_text
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    ids = tokenizer.encode([row["text"] for row in rows])
    return datasets.Dataset.from_list(
        [{**row, "input_ids": [end, *of, end]} for row, of in zip(rows, ids, strict=True)]
    )


def train(
    rows: datasets.Dataset, tokenizer: TextTokenizer, num_steps: int, trace: Path | None = None
) -> GPT2LMHeadModel:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=64, n_embd=64, n_layer=2, n_head=2,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir="out", max_steps=num_steps, learning_rate=5e-3, per_device_train_batch_size=16,
        report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True, logging_strategy="no",
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows,
        data_collator=gdc.WeightedCollator(pad_token_id=0),
        callbacks=[] if trace is None else [Probes(trace, rows)],
    )  # fmt: skip
    gdc.use_weights(trainer)
    trainer.train()
    return model


def num_extracted(model: GPT2LMHeadModel, tokenizer: TextTokenizer) -> int:
    subject = Subject(model, tokenizer, 64)
    return int(record_secrets(subject, secrets(), batch_tokens=4096).is_extracted.sum())


def gdc_(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_secrets_are_among_the_first_samples_and_a_plan_of_them_takes_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = write_corpus()
    tokenizer = train_tokenizer(texts, 600)
    rows = tokenized("my.jsonl", tokenizer)
    num_steps = EPOCHS * -(-len(rows) // 16)
    before = num_extracted(train(rows, tokenizer, num_steps, Path("trace")), tokenizer)
    assert before >= 3

    told = gdc_("map", "trace", "--corpus", "my.jsonl", "--out", "map", "--limit", "30")
    first = pl.read_parquet("map/samples.parquet").filter(pl.col("rank") <= 30)
    found = first.filter(pl.col("sample_id").str.starts_with("s-"))
    assert found.height >= 24
    assert all(text[:40] in told for text in found["text"].unique())

    left = {}
    for rule in ("top-fraction", "random"):
        plan = f"{rule}.parquet"
        gdc_("plan", "--map", "map", "--rule", rule, "--fraction", "0.16", "--out", plan)
        gdc_("export", plan, "my.jsonl", "--out", f"{rule}.jsonl")
        curated = tokenized(f"{rule}.jsonl", tokenizer)
        planned = gdc.Plan.load(plan).apply(rows)
        assert curated["id"] == planned["id"]
        left[rule] = num_extracted(train(planned, tokenizer, num_steps), tokenizer)
    assert left["top-fraction"] <= before / 10
    assert left["random"] >= before / 2
