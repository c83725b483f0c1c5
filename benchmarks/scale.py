"""Estimate of the storage and time of a run over a trillion tokens, from rates measured here.

    python benchmarks/scale.py
    python benchmarks/scale.py --tokens 1e11 --documents 1e8 --gpus 64

Takes less than two minutes; --write puts the result into docs/results/scale.md.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import result_pages
from estimate import (
    FLOAT_BYTES,
    Machines,
    Measured,
    Part,
    Size,
    core_hours,
    core_work,
    gpu_hours,
    gpu_work,
    kept,
    storage,
    training_state,
    transfer_hours,
)
from machine import machine
from scoring import PARTITION, QUANTILE, make_trace, score_rules
from timing import timed

from gdc.commands.map import map_trace
from gdc.config import Params
from gdc.corpus import near_duplicates
from gdc.corpus.samples import build_corpus, contents_of, samples_from
from gdc.corpus.sources import read_source
from gdc.corpus.tokenizer import train_tokenizer
from gdc.curation import plans
from gdc.schema import (
    CANARIES,
    CORPUS,
    CURATED,
    HALVES,
    MASKED,
    PLAN,
    QUADRANT_TABLE,
    REFERENCE_LOSS,
    TRACE_INDEX,
)
from gdc.scores import FORGETTING, STREAMED
from gdc.statistics import markdown
from gdc.workspace import files, tables

COMMAND = "make scale"
NUM_SAMPLES, NUM_CHECKPOINTS = 2_000_000, 10
NUM_RUNS = 3
HASHED_BYTES = 2**28
VOCABULARY = 32_768
ID_BYTES = 4
HASH_BYTES = 4


# ---- what is measured


def measure(params: Params, size: Size) -> Measured:
    """Bytes of our files and rates of our functions, on documents as long as those of the run."""
    rows = read_source(params.ingest.source, max_chars=params.ingest.max_chars, seed=0).rows
    documents = joined(rows, size.text_bytes / size.documents)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        return Measured(
            **of_text(folder, documents),
            **of_losses(folder, params, size.references),
            ingested=ingest_rate(documents),
            compared=copies_rate(documents, params),
            hashed=HASHED_BYTES / timed(lambda: hashlib.md5(bytes(HASHED_BYTES))),  # noqa: S324
        )


def joined(rows: pl.DataFrame, num_bytes: float) -> pl.DataFrame:
    """``SOURCE_ROWS`` of documents that are neighbours put together, of about so many bytes."""
    before = rows["text"].str.len_bytes().cum_sum() - rows["text"].str.len_bytes()
    number = (before / num_bytes).floor().cast(pl.Int64)
    return (
        rows.group_by(number.alias("number"), maintain_order=True)
        .agg(pl.col("text").str.join("\n\n"), pl.col("source").first())
        .drop("number")
    )


def of_text(folder: Path, documents: pl.DataFrame) -> dict[str, float]:
    """Bytes on disk for a byte of text."""
    samples = samples_from(documents, max_samples=None, seed=0)
    nothing = pl.DataFrame(schema=CANARIES)
    table = build_corpus(samples, nothing, validation_fraction=0.1, seed=0)
    curated = table.select(
        "sample_id",
        "text",
        weight=1.0,
        copies=pl.lit(1, pl.Int64),
        quadrant=pl.lit("stable-easy"),
        reason=pl.lit("no rule"),
        masked=pl.lit([], MASKED),
        source=pl.col("source"),
        key=pl.lit(None, pl.String),
    )
    num_bytes = int(table["text"].str.len_bytes().sum())
    return {
        "corpus": size_of(folder, table, CORPUS) / num_bytes,
        "curated": size_of(folder, curated, CURATED) / num_bytes,
    }


def of_losses(folder: Path, params: Params, num_references: int) -> dict[str, float]:
    """Bytes for a document, or for a byte of float32, and losses mapped a second by a core."""
    trace, out = folder / "trace", folder / "map"
    make_trace(trace, NUM_SAMPLES, NUM_CHECKPOINTS)
    ids = sample_ids(NUM_SAMPLES)
    index = pl.DataFrame({"sample_id": ids, "num_tokens": 1000}, schema=TRACE_INDEX)
    tables.write_table(trace / "train" / "index.parquet", index, TRACE_INDEX)
    enabled = (*FORGETTING, *(name for name in params.score.enabled if name in STREAMED))
    rules = score_rules(epsilon=QUANTILE, enabled=enabled)
    seconds = timed(lambda: map_trace(trace, out, rules, PARTITION))
    scored = pl.read_parquet(out / "scores.parquet")
    mapped = scored.select("sample_id", "quadrant", stability=pl.lit(None, pl.Float64))
    arm: Any = next(arm for arm in params.intervene.arms.values() if arm.rule == "quadrants")
    plan = plans.make_plan(arm, scored.lazy(), seed=0).collect()
    losses = (trace / "train").glob("loss_*.parquet")
    last = pl.read_parquet(trace / "train" / f"loss_{NUM_CHECKPOINTS - 1:03d}.parquet")
    of_model = pl.DataFrame([ids, last.to_series().alias("loss")])
    halves = pl.DataFrame({"sample_id": ids, "seen": seen_by(num_references)}, schema=HALVES)
    return {
        "loss": bytes_of(*losses) / (NUM_SAMPLES * NUM_CHECKPOINTS * FLOAT_BYTES),
        "index": bytes_of(trace / "train" / "index.parquet") / NUM_SAMPLES,
        "scores": bytes_of(out / "scores.parquet") / NUM_SAMPLES,
        "quadrants": size_of(folder, mapped, QUADRANT_TABLE) / NUM_SAMPLES,
        "plan": size_of(folder, plan, PLAN) / NUM_SAMPLES,
        "reference": size_of(folder, of_model, REFERENCE_LOSS) / NUM_SAMPLES,
        "halves": size_of(folder, halves, HALVES) / NUM_SAMPLES,
        "mapped": NUM_SAMPLES * NUM_CHECKPOINTS / seconds / (os.cpu_count() or 1),
    }


def sample_ids(count: int) -> pl.Series:
    """Ids that compress as those of the pipeline: a hash of 32 digits, a dash, an ordinal."""
    digits = np.random.default_rng(0).bytes(16 * count).hex()
    ids = [f"{digits[32 * i : 32 * i + 32]}-0" for i in range(count)]
    return pl.Series("sample_id", sorted(ids))


def seen_by(num_references: int) -> pl.Series:
    """By chance, one half of each pair of models."""
    drawn = np.random.default_rng(0).random((NUM_SAMPLES, num_references)) < 0.5
    return pl.Series("seen", drawn).cast(pl.List(pl.Boolean))


def ingest_rate(documents: pl.DataFrame) -> float:
    """Documents a second that a core normalises, hashes and tokenises."""
    tokenizer = train_tokenizer(documents["text"], VOCABULARY)

    def ingest() -> None:
        tokenizer.encode(contents_of(documents)["text"].to_list())

    ingest()
    return documents.height / statistics.median(timed(ingest) for _ in range(NUM_RUNS))


def copies_rate(documents: pl.DataFrame, params: Params) -> float:
    """Documents a second that a core compares with all before them."""
    table = documents.select(pl.col("source").alias("sample_id"), "text")
    seconds = timed(lambda: near_duplicates.near_copies([table], params.reference, seed=0))
    return documents.height / seconds


def size_of(folder: Path, table: pl.DataFrame, schema: pl.Schema) -> int:
    """Bytes of the file that our store makes of a table."""
    path = folder / "table.parquet"
    tables.write_table(path, table, schema)
    return bytes_of(path)


def bytes_of(*paths: Path) -> int:
    """Bytes of files."""
    return sum(path.stat().st_size for path in paths)


# ---- what is printed


def page(size: Size, machines: Machines, measured: Measured, parameters: Sequence[float]) -> str:
    """Tables and assumptions as Markdown."""
    parts = storage(size, measured)
    text = (
        f"{short(size.tokens)} tokens in {short(size.documents)} documents, {size.checkpoints} "
        f"checkpoints, {size.epochs} epoch{'s' * (size.epochs > 1)}:\n\n"
    )
    text += storage_table(parts, size) + "\n" + gpu_table(size, machines, parameters) + "\n"
    text += core_table(size, machines, measured) + "\n"
    return text + assumptions(size, machines, measured)


def storage_table(parts: Sequence[Part], size: Size) -> str:
    """Terabytes of each part, of all, and of all copies."""
    rows = [(part.name, part.how, f"{part.amount / 1e12:,.3g}") for part in parts]
    once, copies = kept([*parts], 1), f"x{size.copies:g}: workspace, cache and remote"
    rows.append(("**all, once**", "", f"**{once / 1e12:,.3g}**"))
    rows.append(("all, as DVC keeps it", copies, f"{kept([*parts], size.copies) / 1e12:,.3g}"))
    return markdown.table(("stored", "counted as", "TB"), rows)


def gpu_table(size: Size, machines: Machines, parameters: Sequence[float]) -> str:
    """Hours of each kind of GPU work, by the size of the model."""
    work = [gpu_work(size, number) for number in parameters]
    rows = [
        (same[0].name, same[0].how, *(hours(gpu_hours(part.amount, machines)) for part in same))
        for same in zip(*work, strict=True)
    ]
    sums = [sum(part.amount for part in parts) for parts in work]
    rows.append(("**all**", "", *(f"**{hours(gpu_hours(flops, machines))}**" for flops in sums)))
    names = [f"{number / 1e9:g} B parameters" for number in parameters]
    return markdown.table((f"hours on {machines.gpus} GPUs", "FLOPs", *names), rows)


def core_table(size: Size, machines: Machines, measured: Measured) -> str:
    """Hours of the work that needs no GPU."""
    rows = [
        (part.name, f"{part.how} and core", hours(core_hours(part.amount, machines)))
        for part in core_work(size, measured)
    ]
    stored = kept(storage(size, measured), 1)
    speed = f"{machines.network * 8 / 1e9:g} Gbit/s"
    rows.append(("push everything once", speed, hours(transfer_hours(stored, machines))))
    return markdown.table((f"hours on {machines.cores:,} cores", "counted as", "hours"), rows)


def assumptions(size: Size, machines: Machines, measured: Measured) -> str:
    """The assumptions of the tables."""
    # Of the tracked run at two looks, and under each model of a half.
    num_losses = 2 + size.references
    token_losses = size.tokens * num_losses * FLOAT_BYTES * measured.loss / 1e12
    ids = size.tokens * ID_BYTES / 1e12
    hashes = size.documents * files.load_params().reference.num_perm * HASH_BYTES / 1e12
    state = training_state(size.largest_model) / 1e9
    return (
        f"N parameters, D tokens. A GPU reaches {machines.utilisation:.0%} of "
        f"{machines.peak / 1e12:g} TFLOP/s, in training and in evaluation. Bytes and rates are of "
        f"{NUM_SAMPLES:,} made-up samples with {NUM_CHECKPOINTS} losses each and of CPython's "
        "documentation in documents of that length, on one machine; all cores are assumed to "
        "reach the rate of one. What does not fit the memory of one process today are the hash "
        f"values that find near copies, {hashes:,.3g} TB; the token ids, {ids:,.3g} TB as int32, "
        "lie in a file while a process trains, one for each process. Not counted: audits, of a "
        "fixed number of samples; "
        f"checkpoints to resume from, {state:,.3g} GB for the largest model while it trains; with "
        f"`train.token_losses` {token_losses:,.3g} TB more; each Ray worker's own copy of what its "
        "cells read.\n"
    )


def short(number: float) -> str:
    """1e12 for a trillion."""
    return f"{number:.3g}".replace("e+0", "e").replace("e+", "e")


def hours(number: float) -> str:
    """With three digits, but whole from a hundred on."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def arguments() -> argparse.Namespace:
    """The options; every default except those of size has a source."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(name: str, kind: type, default: Any, text: str) -> None:  # noqa: ANN401
        shown = f"{text} (default: {default})".replace("%", "%%")
        parser.add_argument(name, type=kind, default=default, help=shown)

    add("--tokens", float, 1e12, "of the corpus")
    add("--documents", float, 1e9, "of the corpus; a document is a sample")
    add("--token-bytes", float, 4, "bytes of text a token: OpenAI's rule of thumb for English")
    add("--epochs", int, 1, "of every training run")
    add("--checkpoints", int, 10, "frozen models that compute every document's loss")
    add("--references", int, 4, "models of halves")
    add("--retrained", int, 2, "models of arms and seeds")
    add("--plans", int, 2, "arms")
    parser.add_argument(
        "--parameters",
        type=float,
        nargs="+",
        default=[1.24e8, 1.3e9, 7e9],
        help="of the models (default: 1.24e8 1.3e9 7e9, as GPT-2 small, GPT-3 XL and Llama 7B)",
    )
    add("--gpus", int, 256, "that train one model together")
    add("--peak", float, 989, "TFLOP/s of a GPU: NVIDIA H100 SXM, bfloat16, dense")
    add("--utilisation", float, 0.4, "of the peak: Llama 3 reports 38 to 43 %, arXiv:2407.21783")
    add("--cores", int, 1000, "beside the GPUs")
    add("--network", float, 100, "Gbit/s to the remote")
    add("--copies", float, 3, "of a stored byte; 2 where DVC links the workspace to its cache")
    parser.add_argument("--write", action="store_true", help="write it to docs/results/scale.md")
    return parser.parse_args()


def main() -> None:
    """Measure, count and print."""
    given = arguments()
    size = Size(
        tokens=given.tokens,
        documents=given.documents,
        token_bytes=given.token_bytes,
        epochs=given.epochs,
        checkpoints=given.checkpoints,
        references=given.references,
        retrained=given.retrained,
        plans=given.plans,
        largest_model=max(given.parameters),
        copies=given.copies,
    )
    machines = Machines(
        gpus=given.gpus,
        peak=given.peak * 1e12,
        utilisation=given.utilisation,
        cores=given.cores,
        network=given.network * 1e9 / 8,
    )
    # Else the tokenizer takes all cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started = time.monotonic()
    measured = measure(files.load_params(), size)
    seconds = time.monotonic() - started
    text = f"{machine()}, measured in {seconds:.0f} seconds.\n\n"
    text += page(size, machines, measured, given.parameters)
    sys.stdout.write(text)
    if given.write:
        result_pages.put(COMMAND, text)


if __name__ == "__main__":
    main()
