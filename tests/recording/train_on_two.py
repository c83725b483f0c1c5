"""Train and record as one of several processes, by every adapter, with a witness in each.

``python -m tests.recording.train_on_two FOLDER NUM_PROCESSES`` forks them, so that what takes
seconds to import is imported once. Real launchers are tested in ``tests/training`` and
``tests/flows``.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

import gdc
from gdc.recording.transformers import TraceCallback
from gdc.training import distributed
from tests.builders import free_port
from tests.recording.gain_witness import GainWitness
from tests.recording.loops import (
    EPOCHS,
    LOOPS,
    ROWS,
    Batches,
    Condition,
    new_sums,
    sums_of,
    witness,
)
from tests.recording.sft_builders import sft_of
from tests.recording.trainer_builders import (
    NUM_SAMPLES,
    Witness,
    model_of,
    pad,
    tokens_of_words,
    trainer_of,
)

SAVED: Final = {"save_strategy": "steps", "save_steps": 1, "ddp_find_unused_parameters": False}
BATCHES: Final = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}


def main(folder: Path) -> None:
    """Train by each adapter, one after the other, in folders of their names."""
    torch.set_num_threads(1)
    train_and_resume(folder / "trainer")
    train_packed(folder / "sft")
    train_sharded(folder / "sharded")
    # That of Lightning ends the group of processes.
    for name, loop in LOOPS.items():
        keep(folder / name, loop(folder / name, Condition()))


def train_and_resume(folder: Path) -> None:
    """The first epoch whole; the second from its middle, where a checkpoint was saved."""
    trainer, heldout = trainer_of(folder, **SAVED, **BATCHES), tokens_of_words().select(range(3))
    TraceCallback(folder / "trace", heldout=heldout, gains=True).attach(trainer)
    witness, of_gains = Witness(trainer), GainWitness(trainer)
    trainer.train()
    again = trainer_of(folder, **SAVED, **BATCHES)
    TraceCallback(folder / "trace", heldout=heldout, probe_every=6, gains=True).attach(again)
    again.train(resume_from_checkpoint=str(folder / "model/checkpoint-4"))
    keep(folder, witness.sums)
    torch.save(dict(of_gains.gains), folder / f"gains-{os.environ['RANK']}.pt")


def train_packed(folder: Path) -> None:
    """TRL with packing."""
    trainer, dataset = sft_of(folder, packing=True, ddp_find_unused_parameters=False, **BATCHES)
    TraceCallback(folder / "trace", dataset).attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    keep(folder, witness.sums)


def train_sharded(folder: Path) -> None:
    """A loop of one's own whose processes each hold a shard of the weights, probed at its end."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    whole = model_of()
    sharded = distributed.shard(whole)
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
    recorder = gdc.TraceRecorder(folder / "trace", ROWS, heldout=ROWS[:3])
    sums = new_sums()
    for epoch in range(EPOCHS):
        for rows in list(Batches(Condition(), epoch))[rank::world_size]:
            witness(sums, epoch, whole, rows)
            losses, counts = sums_of(sharded, rows, is_packed=False)
            recorder.record(rows, losses, counts)
            torch.autograd.backward(losses.sum())
            optimizer.step()
            optimizer.zero_grad()
            distributed.gather_weights(sharded, whole)
        recorder.checkpoint(epoch=epoch + 1)
    recorder.probe(sharded, pad, batch_size=2, epoch=EPOCHS, token_losses=True)
    recorder.close()
    witness(sums, EPOCHS, whole, range(rank, NUM_SAMPLES, world_size))
    keep(folder, sums)


def keep(folder: Path, sums: Mapping[int, Mapping[Any, list[float]]]) -> None:
    """Write what the witness of this process has seen."""
    plain = {epoch: {k: tuple(v) for k, v in of.items()} for epoch, of in sums.items()}
    torch.save(plain, folder / f"witness-{os.environ['RANK']}.pt")


def fork(folder: Path, num_processes: int) -> int:
    """Run ``main`` in forks of this process, which has run no torch; the largest exit code."""
    port = str(free_port())
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_processes)}
    children = []
    for rank in range(num_processes):
        child = os.fork()
        if child == 0:
            os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank))
            main(folder)
            # Without destructors, which would wait for the other process.
            os._exit(0)
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


if __name__ == "__main__":
    sys.exit(fork(Path(sys.argv[1]), int(sys.argv[2])))
