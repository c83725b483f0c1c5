"""Train and record as one of several processes, killed once and resumed, with a witness in each.

torchrun --standalone --nproc-per-node 2 -m tests.recording.train_on_two FOLDER
"""

import os
import sys
from pathlib import Path

import torch

from gdc.recording.transformers import TraceCallback
from tests.recording.trainer_builders import Witness, trainer_of


def main(folder: Path) -> None:
    """The first epoch whole; the second from its middle, where a checkpoint was saved."""
    torch.set_num_threads(1)
    saving = {"save_strategy": "steps", "save_steps": 1, "ddp_find_unused_parameters": False}
    batches = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    trainer = trainer_of(folder, **saving, **batches)
    TraceCallback(folder / "trace").attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    again = trainer_of(folder, **saving, **batches)
    TraceCallback(folder / "trace", probe_every=6).attach(again)
    again.train(resume_from_checkpoint=str(folder / "model/checkpoint-4"))
    sums = {epoch: {k: tuple(v) for k, v in of.items()} for epoch, of in witness.sums.items()}
    torch.save(sums, folder / f"witness-{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
