"""What Lightning trains on is recorded as each sample alone would give it."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import polars
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gdc
from gdc.errors import ConfigError
from gdc.recording.lightning import TraceCallback
from gdc.recording.loaders import ROWS, number_samples
from tests.recording.trainer_builders import pad, recorded, tokens_of_words

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data


class Lines(pl.LightningModule):
    """Fits a line through each sample's points; notes each sample's loss, one at a time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 1)
        self.seen: list[dict[int, float]] = [{}]

    def training_step(self, batch: Any, _: int) -> dict[str, Any]:
        rows, points, targets = batch
        for row, point, target in zip(rows.tolist(), points, targets, strict=True):
            self.seen[-1][row] = float((self.line(point) - target).square().sum().detach())
        losses = (self.line(points) - targets).square().sum(1)
        return {"loss": losses.mean(), "sample_index": rows, "loss_sums": losses.detach()}

    def on_train_epoch_end(self) -> None:
        self.seen.append({})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def fit(folder: Path, epochs: int, callback: Any, seed: int, **options: Any) -> Lines:
    torch.manual_seed(7)
    dataset = TensorDataset(torch.arange(11), torch.randn(11, 3), torch.randn(11, 1))
    module = Lines()
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[callback], accumulate_grad_batches=2, accelerator="cpu",
        default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = DataLoader(
        dataset, batch_size=2, shuffle=True, generator=torch.Generator().manual_seed(seed)
    )
    trainer.fit(module, loader, **options)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module


IDS = [f"point-{i}" for i in range(11)]


def test_losses_of_samples_without_tokens_are_those_of_each_alone(tmp_path: Path) -> None:
    module = fit(tmp_path, 2, TraceCallback(tmp_path / "trace", IDS), 0)
    found = recorded(tmp_path / "trace")
    assert len(found) == 2
    for losses, seen in zip(found, module.seen, strict=False):
        assert losses == {IDS[row]: pytest.approx(loss, rel=1e-5) for row, loss in seen.items()}
    checkpoints = gdc.load_trace(tmp_path / "trace").checkpoints
    assert checkpoints.drop("mode").rows() == [(0, 3, 1.0, 0.05), (1, 6, 2.0, 0.05)]


class Taught(Lines):
    """Records by hand what its steps have taught."""

    def on_train_batch_end(self, outputs: Any, batch: Any, _: int) -> None:
        rows, points, targets = batch
        with torch.no_grad():
            after = (self.line(points) - targets).square().sum(1)
        self.trainer.callbacks[0].recorder.record_gain(rows, outputs["loss_sums"], after)  # type: ignore[attr-defined]


def test_a_step_on_all_samples_gains_what_the_next_one_finds(tmp_path: Path) -> None:
    dataset = TensorDataset(torch.arange(4), torch.randn(4, 3), torch.randn(4, 1))
    for epochs in (1, 2):
        trainer = pl.Trainer(
            max_epochs=epochs, callbacks=[TraceCallback(tmp_path / "t", IDS[:4])],
            accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        path = tmp_path / "last.ckpt"
        trainer.fit(
            Taught(), DataLoader(dataset, batch_size=4), ckpt_path=path if epochs > 1 else None
        )
        trainer.save_checkpoint(path)
    first, second = recorded(tmp_path / "t")
    after = Taught()
    after.load_state_dict(torch.load(path)["state_dict"])
    _, points, targets = dataset.tensors
    last = (after.line(points) - targets).square().sum(1).tolist()
    gains = dict(polars.read_parquet(tmp_path / "t/self_influence.parquet").rows())
    for name, loss in zip(IDS, last, strict=False):
        # The second epoch is of a run that goes on.
        assert gains[name] == pytest.approx(first[name] - loss, abs=1e-6)
        assert second[name] != loss


def test_a_run_that_resumes_records_on(tmp_path: Path) -> None:
    first = fit(tmp_path, 1, TraceCallback(tmp_path / "trace", IDS), 0)
    path = str(tmp_path / "last.ckpt")
    second = fit(tmp_path, 2, TraceCallback(tmp_path / "trace", IDS), 1, ckpt_path=path)
    found = recorded(tmp_path / "trace")
    for losses, seen in zip(found, [first.seen[0], second.seen[0]], strict=True):
        assert losses == {IDS[row]: pytest.approx(loss, rel=1e-5) for row, loss in seen.items()}


def test_a_step_that_returns_no_losses_is_told_what_to_return(tmp_path: Path) -> None:
    class Silent(Lines):
        def training_step(self, batch: Any, _: int) -> Any:
            return super().training_step(batch, 0)["loss"]

    trainer = pl.Trainer(
        max_epochs=1, callbacks=[TraceCallback(tmp_path / "t", IDS)], accelerator="cpu",
        logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    dataset = TensorDataset(torch.arange(4), torch.randn(4, 3), torch.randn(4, 1))
    with pytest.raises(ConfigError, match=r"expected loss, sample_index, loss_sums in what traini"):
        trainer.fit(Silent(), DataLoader(dataset))


def test_the_batches_of_a_loader_say_which_samples_they_hold() -> None:
    tokens = tokens_of_words().select_columns(["input_ids", "labels"])
    loader: Any = DataLoader(tokens, batch_size=3, shuffle=True, collate_fn=pad)
    number_samples(loader)
    seen = []
    for batch in loader:
        for row, ids in zip(batch[ROWS].tolist(), batch["input_ids"].tolist(), strict=True):
            assert [word for word in ids if word] == tokens[row]["input_ids"]
            seen.append(row)
    assert sorted(seen) == list(range(11))
