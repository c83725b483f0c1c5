"""Train a small model, as a single process or as one of several, and save the results."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from gdc.training import distributed
from gdc.training.loop import train
from gdc.training.losses import sample_losses
from gdc.workspace.trace_writer import TraceWriter
from tests.training.builders import BLOCK_SIZE, built, recipe_with, training_data

WEIGHTS = [1.0, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 1.0]
COPIES = [1, 1, 1, 2, 1, 1, 1, 0, 1, 1]


def main(kind: str, out: Path, die_at: int, dropout: float) -> None:
    torch.set_num_threads(1)
    group = distributed.init_group()
    data, model = training_data(WEIGHTS, COPIES), built(kind, dropout=dropout)
    index, heldout_index = (
        pl.DataFrame(
            {
                "sample_id": [f"{name}-{i}" for i in range(len(texts))],
                "num_tokens": texts.num_tokens,
            }
        )
        for name, texts in (("t", data.texts), ("v", data.heldout))
    )
    trace = Mortal(0, index, heldout_index, group)
    trace.die_at = die_at
    recipe = recipe_with(probes_per_epoch=2, epochs=4)
    recipe = replace(recipe, self_influence=not group.is_sharded)
    recording = train(
        model, data, recipe, checkpoints=Path("checkpoints"), name=kind, trace=trace, group=group
    )
    trace.finish(recording.checkpoint_table(), None, None)
    losses = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=14, group=group)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    # One file for each rank, as each of them has all results.
    path = out.with_name(f"{out.stem}-{group.rank}.npz")
    np.savez(
        path,
        weights=weights,
        curve=recording.curve,
        losses=losses,
        gain=np.zeros(0) if recording.gain is None else recording.gain,
        num_written=trace.num_written,
    )


class Mortal(TraceWriter):
    """Ends its process at a checkpoint."""

    die_at, num_written = -1, 0

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        if self._num_checkpoints == self.die_at:
            sys.exit(9)
        self.num_written += 1
        super().append(losses, heldout)
