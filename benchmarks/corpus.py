"""Memory of the stages that read and write all texts, for two corpora, one three times as large.

    python benchmarks/corpus.py

Both consist of random words, are made in work/corpus and removed afterwards. Every stage is a
process of its own; the table shows its peak resident memory.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from table import Row, render

from gdc.comparison.results import CuratedChoice
from gdc.config import Params
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.schema import QUADRANTS, SCORES
from gdc.workspace import dvc, files, paths, tables

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "work" / "corpus"
MEGABYTES = (40, 120)
WORDS_PER_SAMPLE = 1500
STAGES = ("ingest", "intervene", "curate")


def main() -> None:
    """Run the stages in both folders and print their memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, nargs=2, default=MEGABYTES)
    sizes = parser.parse_args().megabytes
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        small, large = (peaks(FOLDER / f"{size:g}", size) for size in sizes)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    rows = [
        Row(f"GB of stage `{stage}` for {sizes[1]:g} MB of text, for {sizes[0]:g} MB",
            large[stage], small[stage], "<=", 1.25)
        for stage in STAGES
    ]  # fmt: skip
    sys.stdout.write(render(rows))


def peaks(folder: Path, megabytes: float) -> dict[str, float]:
    """Peak resident memory of each stage in GB, in a folder made for it."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    with Path("corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(round(megabytes * 1e6)))
    Path("params.yaml").write_text(json.dumps(params()), encoding="utf-8")
    found = {}
    for stage in ("manifest", *STAGES):
        if stage == "intervene":
            make_scores(files.load_params())
        found[stage] = run(stage)
    return found


def run(stage: str) -> float:
    """Peak resident memory of a stage in GB, in a process of its own."""
    command = [sys.executable, "-m", f"gdc.stages.{stage}"]
    process = subprocess.Popen(command, env={**dvc.environment(), "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"stage {stage} failed")
    gigabytes = usage.ru_maxrss * 1024 / 1e9
    sys.stderr.write(f"{Path.cwd().name} MB, {stage}: {gigabytes:.2f} GB\n")
    return gigabytes


def texts(num_chars: int) -> Iterator[str]:
    """Samples of random words, one in ten of them a copy of the last."""
    rng = random.Random(0)  # noqa: S311 - guards no secret
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 10))) for _ in range(2000)]
    text = ""
    while num_chars > 0:
        if not text or rng.random() > 0.1:
            text = " ".join(rng.choices(words, k=WORDS_PER_SAMPLE))
        num_chars -= len(text)
        yield text


def params() -> dict[str, Any]:
    """The params of this repository, with the corpus as source and without natural canaries."""
    values: dict[str, Any] = json.loads(
        json.dumps(files.parse_yaml(files.read_text(ROOT / paths.PARAMS), ROOT))
    )
    values["ingest"] |= {
        "source": {
            "kind": "jsonl",
            "path": "corpus.jsonl",
            "text_field": "text",
            "key_field": None,
        },
        "max_samples": None,
    }
    values["ingest"]["canaries"]["natural"] = None  # need short texts
    return values


def make_scores(config: Params) -> None:
    """Write random scores and quadrants for every training sample."""
    rng = np.random.default_rng(0)
    is_trained = pl.col("split") == "train"
    samples = tables.scan("corpus").filter(is_trained).select("sample_id").collect()
    names = ("difficulty", "memorization", "first_learned", *config.score.enabled)
    drawn = {name: pl.Series(rng.random(samples.height)) for name in names}
    scores = samples.with_columns(**drawn, never_learned=pl.lit(value=False))
    tables.write("scores", scores.select(*SCORES.names(), *config.score.enabled))
    quadrant = pl.Series(rng.choice(QUADRANTS, samples.height))
    stability = pl.lit(None, pl.Float64)
    tables.write("quadrants", samples.with_columns(quadrant=quadrant, stability=stability))
    summary = QuadrantsSummary("memorization", 0.5, 0.5, dict.fromkeys(QUADRANTS, 0), None, ())
    files.write_json(paths.QUADRANTS_SUMMARY, summary.to_json())
    choice = CuratedChoice("paper", "params", is_shown=False, sentence="", remedies=())
    files.write_json(paths.CHOICE, asdict(choice))


if __name__ == "__main__":
    main()
