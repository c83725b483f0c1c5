"""Losses that a training loop of your own recorded -> scores and quadrants.

Run: python examples/map_a_trace.py FOLDER. It takes seconds, as the losses are made up.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

NUM_SAMPLES, NUM_CHECKPOINTS = 1000, 20
NUM_FORGOTTEN = 50  # the first samples are learned and forgotten again and again


def made_up_losses() -> np.ndarray:
    """Losses of every sample at every checkpoint: nats per token, samples x checkpoints."""
    random = np.random.default_rng(0)
    start = random.uniform(3, 6, NUM_SAMPLES)
    curve = np.linspace(1, 0.6, NUM_CHECKPOINTS)
    losses = start[:, None] * curve + random.normal(0, 0.02, (NUM_SAMPLES, NUM_CHECKPOINTS))
    losses[:NUM_FORGOTTEN, 1::2] = 0.1
    return losses.astype(np.float32)


def write_trace(folder: Path, losses: np.ndarray) -> None:
    """Write the files that ``gdc map`` reads: an index, one file a checkpoint, and their list."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    index = {
        "sample_id": [f"sample-{i:06d}" for i in range(len(losses))],
        "num_tokens": [100] * len(losses),
    }
    pl.DataFrame(index).write_parquet(folder / "train/index.parquet")
    for t, loss in enumerate(losses.T):
        name = f"loss_{t:03d}"
        pl.DataFrame({name: loss}).write_parquet(folder / f"train/{name}.parquet")
    steps = [100 * (t + 1) for t in range(losses.shape[1])]
    pl.DataFrame(
        {
            "checkpoint": list(range(losses.shape[1])),
            "step": steps,
            "epoch": [step / 200 for step in steps],
            "mode": ["probe"] * losses.shape[1],
            "learning_rate": [1e-3] * losses.shape[1],
        }
    ).write_parquet(folder / "checkpoints.parquet")


def main() -> None:
    """Write a trace and map it."""
    folder = Path(sys.argv[1])
    write_trace(folder / "trace", made_up_losses())
    command = [sys.executable, "-m", "gdc", "map"]
    options = ["--mode", "probe", "--score", "memorization", "--score", "std"]
    folders = [str(folder / "trace"), "--out", str(folder / "map")]
    subprocess.run([*command, *folders, *options], check=True)
    scores = pl.read_parquet(folder / "map/scores.parquet")
    worst = scores.sort("memorization", "sample_id", descending=[True, False]).head(5)
    sys.stdout.write(f"most often forgotten: {', '.join(worst['sample_id'])}\n")


if __name__ == "__main__":
    main()
