"""A loop of one's own -> a trace of the losses of its samples.

Run in an empty folder: python examples/record_a_loop.py. The code is that of
docs/guides/own-trace.md.
"""

import torch

import gdc

dataset = torch.utils.data.TensorDataset(torch.randn(64, 3), torch.randn(64, 1))
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

recorder = gdc.TraceRecorder("recorded", dataset)
for epoch in range(3):
    for rows in torch.randperm(64).split(16):
        inputs, targets = dataset[rows]
        losses = torch.square(model(inputs) - targets).sum(dim=1)
        recorder.record(rows, losses.detach())
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        after = torch.square(model(inputs) - targets).sum(dim=1)
        recorder.record_gain(rows, losses, after)  # what the step taught; may be left out
    recorder.checkpoint(epoch=epoch + 1)
recorder.close()
