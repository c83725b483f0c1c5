"""Trains a small model, alone or as one of several processes, and saves what came of it.

torchrun --standalone --nproc-per-node 2 -m tests.train_together lstm out.npz -1 0
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from gdc.training import distributed
from gdc.training.loop import train
from gdc.training.losses import sample_losses
from gdc.workspace.trace_writer import TraceWriter
from tests.training.test_loop import BLOCK_SIZE, TEXTS, built, recipe_with, training_data

WEIGHTS = [1.0, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 1.0, 1.0]
COPIES = [1, 1, 1, 2, 1, 1, 1, 0, 1, 1]


def main(kind: str, out: Path, die_at: int, dropout: float) -> None:
    torch.set_num_threads(1)
    among = distributed.join()
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
    trace = Mortal(0, index, heldout_index, among)
    trace.die_at = die_at
    recipe = recipe_with(probes_per_epoch=2, epochs=4)
    recording = train(
        model, data, recipe, checkpoints=Path("checkpoints"), name=kind, trace=trace, among=among
    )
    trace.finish(recording.checkpoint_table(), None, None)
    asked = sample_losses(
        model, data.texts, block_size=BLOCK_SIZE, batch_tokens=14, processes=among
    )
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    # One name for each process: all of them have everything.
    place = out.with_name(f"{out.stem}-{among.rank}.npz")
    np.savez(
        place,
        weights=weights,
        curve=recording.curve,
        asked=asked,
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


if __name__ == "__main__":
    assert len(TEXTS) == len(WEIGHTS)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
