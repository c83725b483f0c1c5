"""A loop with Accelerate -> a trace of the losses of its samples.

Run in an empty folder: python examples/record_with_accelerate.py. The code is that of
docs/guides/accelerate.md.
"""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

import gdc

accelerator = Accelerator()
dataset = TensorDataset(torch.arange(64), torch.randn(64, 3), torch.randn(64, 1))
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(dataset, batch_size=16, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

recorder = gdc.TraceRecorder("accelerated", range(64))
for epoch in range(2):
    for rows, inputs, targets in loader:
        with accelerator.accumulate(model):
            losses = torch.square(model(inputs) - targets).sum(dim=1)
            recorder.record(rows, losses.detach())
            accelerator.backward(losses.mean())
            optimizer.step()
            optimizer.zero_grad()
    recorder.checkpoint(epoch=epoch + 1)
recorder.close()
