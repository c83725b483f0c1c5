"""A Trainer of Lightning -> a trace of the losses of its samples.

Run in an empty folder: python examples/record_with_lightning.py. The code is that of
docs/guides/lightning.md.
"""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from gdc.recording.lightning import TraceCallback


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(3, 1)

    def training_step(self, batch, _):
        rows, inputs, targets = batch
        losses = (self.line(inputs) - targets).square().sum(dim=1)
        return {"loss": losses.mean(), "sample_index": rows, "loss_sums": losses.detach()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


ids = [f"point-{i}" for i in range(64)]
dataset = TensorDataset(torch.arange(64), torch.randn(64, 3), torch.randn(64, 1))
trainer = pl.Trainer(
    max_epochs=2,
    callbacks=[TraceCallback("lit-trace", ids)],
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_checkpointing=False,
)
trainer.fit(Module(), DataLoader(dataset, batch_size=16, shuffle=True))
