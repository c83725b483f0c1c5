"""Peak memory of every stage for two corpora, one four times as large, with a tiny model.

    python benchmarks/memory.py --write
    python benchmarks/memory.py --megabytes 100 400

`ingest` holds 32 MB of text at a time, so smaller corpora say nothing of how memory grows. Both
consist of random words, are made in work/memory and removed afterwards; their stages run at the
same time. While it trains and is probed, the model's losses are replaced by a function of the
predicted token, so that hours become minutes; evaluation asks the model itself, about ``MEMBERS``
members and the share ``HELDOUT`` of the corpus. Every arm of the parameters is planned, one is
trained. Every stage is a process of its own, forked from one that has imported all.
*Resident* is what the kernel counts as the process's own at its peak, pages of files included;
*held* is the part that no file backs: the largest of samples taken 50 times a second.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import corpus
import result_pages
from machine import machine
from torch import Tensor

from gdc.scores import REGISTRY
from gdc.statistics import markdown
from gdc.training import losses
from gdc.training.batches import PADDING
from gdc.workspace import dvc

COMMAND = "benchmarks/memory.py"
FOLDER = corpus.ROOT / "work" / "memory"
MEGABYTES = (40, 160)
MEMBERS = 100
HELDOUT = 0.05
BAR = 1.25
SECONDS = 0.02
MODEL = {"kind": "lstm", "block_size": 256, "precision": "float32"}
MODEL |= {"hidden_size": 8, "num_layers": 1, "dropout": 0.0}
# A name for the table, the module and its arguments.
STAGES = (
    ("manifest", "manifest", ()),
    ("ingest", "ingest", ()),
    ("train", "train", ("--seed", "0")),
    ("halves", "halves", ()),
    ("reference", "reference", ("--model", "0")),
    ("", "reference", ("--model", "1")),
    ("score", "score", ()),
    ("calibrate", "calibrate", ()),
    ("partition", "partition", ()),
    ("spans", "spans", ()),
    ("intervene", "intervene", ()),
    ("retrain", "retrain", ("--arm", "none", "--seed", "1")),
    ("evaluate", "evaluate", ("--arm", "none", "--seed", "1")),
    ("report", "report", ()),
    ("curate", "curate", ()),
)


class Peak(NamedTuple):
    """Of one process, in MB."""

    resident: float
    held: float


def main() -> None:
    """Run every stage in both folders and print what they held."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, nargs=2, default=MEGABYTES)
    parser.add_argument("--token-losses", action="store_true", help="record every token's loss")
    parser.add_argument("--write", action="store_true", help="write it to docs/results/scale.md")
    given = parser.parse_args()
    os.environ.update(dvc.environment())
    for _, module, _ in STAGES:
        importlib.import_module(f"gdc.stages.{module}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    started = time.monotonic()
    try:
        with ProcessPoolExecutor(2, get_context("fork")) as pool:
            of_size = partial(peaks, token_losses=given.token_losses)
            small, large = pool.map(of_size, given.megabytes)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    minutes = (time.monotonic() - started) / 60
    tokens = ", with the losses of all tokens" if given.token_losses else ""
    text = f"{machine()}, {minutes:.0f} minutes{tokens}.\n\n"
    text += table(small, large, given.megabytes)
    sys.stdout.write(text)
    if given.write:
        result_pages.put(COMMAND, text)


def peaks(megabytes: float, *, token_losses: bool) -> dict[str, Peak]:
    """The peak of each stage, in a folder made for it."""
    folder = FOLDER / f"{megabytes:g}"
    folder.mkdir(parents=True)
    os.chdir(folder)
    with Path("corpus.jsonl").open("w", encoding="utf-8") as file:
        texts = corpus.texts(round(megabytes * 1e6))
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    Path("params.yaml").write_text(json.dumps(params(token_losses=token_losses)), encoding="utf-8")
    return {name: peak for name, peak in map(run_stage, STAGES) if name}


def params(*, token_losses: bool) -> dict[str, Any]:
    """Those of this repository for one epoch of a tiny model, two halves and one trained arm."""
    values = corpus.params()
    values["model"] = MODEL
    values["training"] |= {"epochs": 1, "batch_tokens": 16384}
    values["train"] |= {"token_losses": token_losses}
    # Others take a second epoch.
    values["score"]["enabled"] = [
        name for name in values["score"]["enabled"] if "both_modes" not in REGISTRY[name].needs
    ]
    values["ingest"]["validation_fraction"] = HELDOUT
    values["evaluate"]["num_members"] = MEMBERS
    values["intervene"]["curated_arm"] = "none"
    values["retrain"] |= {"arms": ["none"], "seeds": [1]}
    return values


def run_stage(stage: tuple[str, str, Sequence[str]]) -> tuple[str, Peak]:
    """The name of a stage and the peak of its process."""
    name, module, arguments = stage
    # Forked, so that each does not import for seconds what all of them need.
    pid = os.fork()
    if pid == 0:
        become_stage(module, arguments)
    held = max(held_bytes(pid))
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(Path("log").read_text(encoding="utf-8"))
    peak = Peak(usage.ru_maxrss * 1024 / 1e6, held / 1e6)
    sys.stderr.write(
        f"{Path.cwd().name} MB, {module}: {peak.resident:.0f} MB resident, {peak.held:.0f} MB "
        f"held, {usage.ru_utime + usage.ru_stime:.0f} processor seconds\n"
    )
    return name, peak


def become_stage(module: str, arguments: Sequence[str]) -> NoReturn:
    """Run a stage in this process, which ends with it."""
    with Path("log").open("w", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    sys.argv = [module, *arguments]
    try:
        setattr(losses.TargetLosses, "forward", losses_of_tokens)  # noqa: B010 - mypy refuses it
        sys.modules[f"gdc.stages.{module}"].main()
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def losses_of_tokens(self: losses.TargetLosses, _: Tensor, targets: Tensor) -> Tensor:
    """Up to 2 nats, by the number of the token, with a gradient of 0 for every weight."""
    nothing = sum(weight.sum() for weight in self.parameters()) * 0
    predicted = targets[targets != PADDING]
    return (predicted % 97).float() / 48 + nothing


def held_bytes(pid: int) -> Iterator[int]:
    """What a process holds that no file backs, again and again until it ends."""
    yield 0
    while True:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        lines = dict(line.split(":", 1) for line in status.splitlines())
        if "RssAnon" not in lines:  # it has ended, and waits for us to ask for its status
            return
        yield sum(1024 * int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
        time.sleep(SECONDS)


def table(small: dict[str, Peak], large: dict[str, Peak], megabytes: Sequence[float]) -> str:
    """Both peaks of each stage, and how they grow."""
    sizes = [f"{size:g} MB" for size in megabytes]
    heading = ("stage", *(f"{kind}, {size}" for kind in Peak._fields for size in sizes))
    rows = []
    for name, before in small.items():
        pairs = list(zip(before, large[name], strict=True))
        numbers = [f"{peak:,.0f}" for pair in pairs for peak in pair]
        ratios = [after / first for first, after in pairs]
        verdict = "reached" if ratios[0] <= BAR else "**missed**"
        rows.append((name, *numbers, *(f"{ratio:.2f}" for ratio in ratios), verdict))
    return markdown.table((*heading, "ratio, resident", "ratio, held", f"<= {BAR}"), rows)


if __name__ == "__main__":
    main()
