"""Loops of one's own, of Accelerate and of Lightning on the same words, each with a witness.

All train the tiny GPT-2 of ``trainer_builders`` and record what each batch gives them; the witness
computes every sample of it alone, under the same weights.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import gdc
from gdc.recording.lightning import TraceCallback
from tests.recording.trainer_builders import NUM_SAMPLES, model_of, pad, tokens_of_words

ROWS = [{name: row[name] for name in ("input_ids", "labels")} for row in tokens_of_words()]
IDS = [f"doc-{i}" for i in range(NUM_SAMPLES)]
EPOCHS = 2
# By epoch, then by row: sum of the losses, and their number.
Sums = dict[int, dict[int, list[float]]]


@dataclass(frozen=True)
class Condition:
    """How a loop runs.

    Attributes:
        seed: Of the order of the samples.
        is_packed: Whether a batch is one row, in which its samples follow each other.
        is_by_length: Whether samples of about one length share a batch.
        stop: Epoch after which the run is saved, and goes on in another; 0: never.
    """

    seed: int = 0
    is_packed: bool = False
    is_by_length: bool = False
    stop: int = 0


class Batches:
    """Batches of two row numbers, in another order each epoch."""

    def __init__(self, condition: Condition, first_epoch: int = 0) -> None:
        self.condition, self.epoch = condition, first_epoch
        self.batch_size, self.drop_last = 2, False

    def __len__(self) -> int:
        return (NUM_SAMPLES + 1) // 2

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.condition.seed, self.epoch))
        order = random.permutation(NUM_SAMPLES)
        if self.condition.is_by_length:
            lengths = np.array([len(ROWS[row]["input_ids"]) for row in order])
            order = order[np.argsort(lengths, kind="stable")]
        batches = [order[i : i + 2].tolist() for i in range(0, NUM_SAMPLES, 2)]
        self.epoch += 1
        # Accelerate takes a short batch for the last.
        return iter([*(batches[i] for i in random.permutation(len(batches) - 1)), batches[-1]])


def sums_of(
    model: Any, rows: Sequence[int], *, is_packed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses and number of predicted tokens of each sample of a batch."""
    samples = [ROWS[row] for row in rows]
    if is_packed:
        ids = [i for sample in samples for i in sample["input_ids"]]
        places = [i for sample in samples for i in range(len(sample["input_ids"]))]
        # Positions tell the samples apart, unless there is a cache.
        packed = {"input_ids": torch.tensor([ids]), "position_ids": torch.tensor([places])}
        logits = model(**packed, use_cache=False).logits[0]
        parts = logits.split([len(sample["input_ids"]) for sample in samples])
    else:
        batch = pad(samples)
        padded = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        parts = [of[: len(s["labels"])] for of, s in zip(padded, samples, strict=True)]
    labels = [torch.tensor(sample["labels"][1:]) for sample in samples]
    losses = [
        F.cross_entropy(of[:-1], targets, ignore_index=-100, reduction="sum")
        for of, targets in zip(parts, labels, strict=True)
    ]
    return torch.stack(losses), torch.stack([(targets != -100).sum() for targets in labels])


def new_sums() -> Sums:
    return defaultdict(lambda: defaultdict(lambda: [0.0, 0]))


@torch.no_grad()
def witness(sums: Sums, epoch: int, model: Any, rows: Sequence[int]) -> None:
    for row in rows:
        loss, count = sums_of(model, [row], is_packed=False)
        entry = sums[epoch][row]
        entry[0] += float(loss)
        entry[1] += int(count)


def recorder_of(folder: Path, state: Any) -> gdc.TraceRecorder:
    """A recorder that begins, or goes on from the state of another."""
    recorder = gdc.TraceRecorder(folder / "trace", IDS, resume=state is not None)
    if state is not None:
        recorder.load_state_dict(state)
    return recorder


def state_at_end(recorder: gdc.TraceRecorder) -> Any:
    """What the next recorder goes on from."""
    state = recorder.state_dict()
    recorder.close()
    return state


def own_loop(folder: Path, condition: Condition) -> Sums:
    """Two batches a step; under several processes they deal the batches out."""
    group = torch.distributed if torch.distributed.is_initialized() else None
    rank, world_size = (group.get_rank(), group.get_world_size()) if group else (0, 1)
    sums = new_sums()

    def run(first: int, last: int, model: Any, state: Any) -> Any:
        wrapped = DistributedDataParallel(model) if group else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = recorder_of(folder, state)
        batches = Batches(condition, first)
        for epoch in range(first, last):
            mine = list(batches)[rank::world_size]
            for number, rows in enumerate(mine):
                witness(sums, epoch, model, rows)
                losses, counts = sums_of(wrapped, rows, is_packed=condition.is_packed)
                recorder.record(rows, losses, counts)
                torch.autograd.backward(losses.sum())
                if number % 2:
                    optimizer.step()
                    optimizer.zero_grad()
            recorder.checkpoint(epoch=epoch + 1)
        return state_at_end(recorder)

    _in_parts(condition, run)
    return sums


def accelerate_loop(folder: Path, condition: Condition) -> Sums:
    """As the recipe of the guide."""
    from accelerate import Accelerator  # noqa: PLC0415 - takes seconds

    sums = new_sums()

    def run(first: int, last: int, model: Any, state: Any) -> Any:
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
        rows: Any = range(NUM_SAMPLES)
        loader: Any = DataLoader(rows, batch_sampler=Batches(condition, first), collate_fn=list)
        own = model
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        recorder = recorder_of(folder, state)
        for epoch in range(first, last):
            for batch in loader:
                with accelerator.accumulate(model):
                    witness(sums, epoch, own, batch)
                    losses, counts = sums_of(model, batch, is_packed=condition.is_packed)
                    recorder.record(batch, losses, counts)
                    accelerator.backward(losses.sum())
                    optimizer.step()
                    optimizer.zero_grad()
            recorder.checkpoint(epoch=epoch + 1)
        return state_at_end(recorder)

    _in_parts(condition, run)
    return sums


class Words(pl.LightningModule):
    """The same step in Lightning, with a witness of what it teaches too."""

    def __init__(self, condition: Condition, sums: Sums, gains: dict[int, float]) -> None:
        super().__init__()
        self.model, self.condition, self.sums, self.gains = model_of(), condition, sums, gains
        self.batches: list[list[int]] = []

    def on_train_batch_start(self, rows: list[int], _: int) -> None:
        witness(self.sums, self.current_epoch, self.model, rows)
        self._add(rows, 1)
        self.batches.append(rows)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        for rows in self.batches:
            self._add(rows, -1)
        self.batches.clear()

    def _add(self, rows: Sequence[int], sign: int) -> None:
        sums = new_sums()
        for row in rows:
            witness(sums, 0, self.model, [row])
            total, count = sums[0].pop(row)
            self.gains[row] += sign * total / count

    def training_step(self, rows: list[int], _: int) -> dict[str, Any]:
        losses, counts = sums_of(self.model, rows, is_packed=self.condition.is_packed)
        return {
            "loss": losses.sum(), "sample_index": rows, "loss_sums": losses.detach(),
            "num_tokens": counts,
        }  # fmt: skip

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning_loop(folder: Path, condition: Condition) -> Sums:
    """As the recipe of the guide; a run that goes on does so from Lightning's own checkpoint."""
    sums, path, gains = new_sums(), folder / "last.ckpt", defaultdict[int, float](float)
    strategy: Any = "auto"
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        strategy = DDPStrategy(
            cluster_environment=TorchElasticEnvironment(), process_group_backend="gloo"
        )
    for first, last in _parts(condition):
        trainer = pl.Trainer(
            max_epochs=last, callbacks=[TraceCallback(folder / "trace", IDS, gains=True)],
            accumulate_grad_batches=2, accelerator="cpu", devices=world_size, strategy=strategy,
            default_root_dir=folder, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        batches = Batches(condition, first)
        usual: Any = {"batch_sampler": batches} if world_size == 1 else {"batch_size": 2}
        loader: Any = DataLoader(range(NUM_SAMPLES), collate_fn=list, **usual)  # type: ignore[arg-type]
        trainer.fit(Words(condition, sums, gains), loader, ckpt_path=str(path) if first else None)
        trainer.save_checkpoint(path)
    torch.save(dict(gains), folder / f"gains-{os.environ.get('RANK', '0')}.pt")
    return sums


def _parts(condition: Condition) -> list[tuple[int, int]]:
    if not condition.stop:
        return [(0, EPOCHS)]
    return [(0, condition.stop), (condition.stop, EPOCHS)]


def _in_parts(condition: Condition, run: Callable[[int, int, Any, Any], Any]) -> None:
    model, state = model_of(), None
    for first, last in _parts(condition):
        state = run(first, last, model, state)


LOOPS = {"own": own_loop, "accelerate": accelerate_loop, "lightning": lightning_loop}
