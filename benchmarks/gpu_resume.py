"""What a kill changes in the weights of a run on a GPU."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from gpu_bench import NO_TEXTS, TINY, Bench

from gdc.training import loop
from gdc.training.recipe import Recipe, TrainingData

SCRIPT: Final = Path(__file__).with_name("gpu.py")


def resume(bench: Bench) -> dict[str, Any]:
    """Weights of a run that was killed and resumed against those of one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        for name, kills in (("whole", ()), ("again", ()), ("killed", (True, False))):
            for is_killed in kills or (False,):
                _train_once(bench, Path(folder, name), is_killed=is_killed)
        whole, again, killed = (
            torch.load(Path(folder, name, "weights.pt")) for name in ("whole", "again", "killed")
        )
    return {
        "largest_difference_after_a_kill": float((whole - killed).abs().max()),
        "largest_difference_of_two_whole_runs": float((whole - again).abs().max()),
        "largest_weight": float(whole.abs().max()),
    }


def _train_once(bench: Bench, folder: Path, *, is_killed: bool) -> None:
    """Train a few steps in a process of its own, which may kill itself on the way."""
    variables = {**os.environ, "GDC_CHECKPOINT_SECONDS": "0", "GPU_FOLDER": str(folder)}
    variables["GPU_DIES"] = "1" if is_killed else ""
    command = [sys.executable, str(SCRIPT), "--part", "resumed", "--device", bench.device.type]
    command += ["--tiny"] if bench.size is TINY else []
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    expected = -signal.SIGKILL if is_killed else 0
    if done.returncode != expected:
        raise SystemExit(f"expected exit code {expected}, got {done.returncode}: {done.stderr}")


def resumed(bench: Bench) -> dict[str, Any]:
    """One of the runs of ``resume``."""
    folder, num_steps = Path(os.environ["GPU_FOLDER"]), 2 * bench.size.num_steps
    size, model = bench.size.gpt2, bench.model()
    recipe = Recipe(bench.config, size.block_size, size.precision, seed=0, num_steps=num_steps)

    def die(recording: Any) -> None:  # noqa: ANN401 - Recording
        if os.environ["GPU_DIES"] and recording.curve[-1][0] > num_steps // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    data = TrainingData.unweighted(bench.texts(), NO_TEXTS)
    loop.train(model, data, recipe, checkpoints=folder / "checkpoints", name="gpu", watch=die)
    weights = torch.cat([p.detach().flatten().cpu() for p in model.parameters()])
    folder.mkdir(exist_ok=True)
    torch.save(weights, folder / "weights.pt")
    return {}
