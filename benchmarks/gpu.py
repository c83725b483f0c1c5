"""One command for one CUDA GPU: speed, memory, resume and the paper's experiment at its model size.

    python benchmarks/gpu.py --write                # eight minutes at most; docs/results/gpu.md
    python benchmarks/gpu.py --tiny --device cpu    # every line of it with small models, for tests

Without a CUDA GPU it says so and ends with 0. Each part runs in a process of its own, so that one
that fails or runs out of memory is a line of the table and not the end. ``gpu.json`` (``--out``)
has all numbers. Models have random weights: speed and memory do not depend on them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import result_pages
import torch
from gpu_bench import FULL, TINY, Bench, device_name
from gpu_inference import audit, memory
from gpu_pipeline import pipeline
from gpu_resume import resume, resumed
from gpu_training import llama, train

from gdc.statistics import markdown

COMMAND: Final = "benchmarks/gpu.py"
MINUTES: Final = 8.0
# Seconds that a part may take; the pipeline has all that is left.
LIMITS: Final = {"train": 150.0, "llama": 70.0, "audit": 60.0, "memory": 60.0, "resume": 60.0}
PUBLIC: Final = ("train", "llama", "audit", "memory", "resume", "pipeline")
PARTS: Final[dict[str, Callable[[Bench], dict[str, Any]]]] = {
    "train": train, "llama": llama, "audit": audit, "memory": memory, "resume": resume,
    "pipeline": pipeline, "resumed": resumed,
}  # fmt: skip


def main() -> int:
    """Run all parts, or the one that is named, on the device."""
    options = _options()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stdout.write("benchmarks/gpu.py: no CUDA GPU on this machine, so nothing was run.\n")
        return 0
    if options.part is not None:
        bench = Bench(TINY if options.tiny else FULL, torch.device(options.device))
        if options.device == "cpu":
            torch.set_num_threads(1)
        sys.stdout.write("\n" + json.dumps(PARTS[options.part](bench)) + "\n")
        return 0
    found = run_parts(options)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = page(found)
    sys.stdout.write(text)
    if options.write:
        result_pages.put(COMMAND, text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models, to test this script")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="all numbers")
    parser.add_argument("--part", help="only this part, as JSON on the last line")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts at most")
    return parser.parse_args()


def run_parts(options: argparse.Namespace) -> dict[str, Any]:
    """What each part gives, or why it gave nothing."""
    deadline = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"device": device_name(options.device), "torch": torch.__version__}
    for part in PUBLIC:
        left = deadline - time.monotonic()
        begun = time.monotonic()
        found[part] = run_part(part, options, min(left, LIMITS.get(part, left)))
        seconds = time.monotonic() - begun
        sys.stderr.write(f"{part}: {seconds:.0f} s: {json.dumps(found[part])}\n")
    return found


def run_part(part: str, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part in a process of its own; what it started ends with it."""
    command = [sys.executable, __file__, "--part", part, "--device", options.device]
    process = subprocess.Popen(
        [*command, *(["--tiny"] if options.tiny else [])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=max(limit, 1.0))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"failed": f"not done in {limit:.0f} seconds"}
    if process.returncode != 0:
        lines = errors.strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended with {process.returncode}"}
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def page(found: Mapping[str, Any]) -> str:
    """All numbers as Markdown."""
    rows: list[list[str]] = []
    for part in PUBLIC:
        result = found[part]
        if "failed" in result:
            rows.append([part, "failed", result["failed"]])
            continue
        rows += [[part, *row] for row in _flat(result)]
    text = markdown.table(("part", "what", "measured"), rows)
    return f"{found['device']}, torch {found['torch']}.\n\n{text}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        else:
            is_number = isinstance(value, float | int)
            yield label, f"{value:,.4g}" if is_number else value or "not measured"


if __name__ == "__main__":
    sys.exit(main())
