"""The ranks of a training run, forked from a process that has imported torch.

With a launcher each rank would import torch itself, which takes seconds. Real launchers are tested
in ``test_distributed.py`` and ``tests/flows/test_pipeline.py``.
"""

import multiprocessing
import os
import shutil
import signal
import tempfile
from pathlib import Path

import torch.distributed as dist

from tests.builders import free_port

# A server process that forks: it runs no torch, as forks of a process that does may hang.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "tests.training.train_together",
        # Each of these is otherwise imported at its first use, by every rank.
        "torch.distributed.fsdp",
        "torch._dynamo",
        "torch._inductor.config",
        "torch.onnx",
        "transformers.models.gpt2.modeling_gpt2",
    ]
)


def run(  # noqa: PLR0913 - how a test trains
    folder: Path,
    kind: str,
    count: int,
    *,
    parallel: str = "ddp",
    die_at: int = -1,
    dropout: float = 0.0,
) -> int:
    """Train in the folder, as ``count`` ranks or, for 0, as one process that has none.

    Once, in some hundred runs, the C library aborted a rank of FSDP over gloo ("malloc(): unaligned
    tcache chunk detected") while torch gathered its state. Neither valgrind nor 135 repeats showed
    why. Such a run is made once more, from what the folder held before it.

    Returns:
        The largest exit code, 0 if all ended well.
    """
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        options = (kind, folder / "out.npz", die_at, dropout)
        codes = _codes(folder, count, parallel, options)
        if -signal.SIGABRT in codes and parallel == "fsdp":
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            codes = _codes(folder, count, parallel, options)
    return max(map(abs, codes))


def _codes(
    folder: Path, count: int, parallel: str, options: tuple[str, Path, int, float]
) -> list[int]:
    """The exit code of each rank, negative for one that a signal ended."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    launched = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    ranks = [
        SERVER.Process(
            target=_train, args=(folder, {**variables, "GDC_PARALLEL": parallel}, options)
        )
        for variables in launched or [{}]
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return [rank.exitcode or 0 for rank in ranks]


def _train(
    folder: Path, environment: dict[str, str], options: tuple[str, Path, int, float]
) -> None:
    from tests.training import train_together  # noqa: PLC0415 - in the child, whose parent has it

    os.chdir(folder)
    os.environ.update(environment, GDC_CHECKPOINT_SECONDS="0")
    train_together.main(*options)
    if dist.is_initialized():
        # A forked process runs nothing at its exit.
        dist.destroy_process_group()
