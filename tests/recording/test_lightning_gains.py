"""What the steps of Lightning taught of their samples: as each sample alone gives it."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.compile import from_compiled
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from gdc.errors import ConfigError, DataError
from gdc.recording.lightning import TraceCallback
from tests.recording.test_gains import FILE, gains_of

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data

NUM = 11


class Lines(pl.LightningModule):
    """Fits a line; notes how far each step lowers the loss of each of its samples, one by one."""

    def __init__(self, dropout: float = 0.0, lr: float = 0.05) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.line, self.lr = nn.Dropout(dropout), nn.Linear(3, 1), lr
        self.gains: dict[int, float] = defaultdict(float)
        self._seen: list[tuple[int, Any, Any, float]] = []

    def losses(self, points: Any, targets: Any) -> torch.Tensor:
        losses: torch.Tensor = (self.line(self.drop(points)) - targets).square().sum(1)
        return losses

    def on_train_batch_start(self, batch: Any, _: int) -> None:
        for row, point, target in zip(*batch, strict=True):
            self._seen.append((int(row), point, target, self._alone(point, target)))

    def training_step(self, batch: Any) -> dict[str, Any]:
        rows, points, targets = batch
        losses = self.losses(points, targets)
        self.log("loss", losses.mean())
        return {
            "loss": losses.mean(), "sample_index": rows, "loss_sums": losses.detach(),
            "num_tokens": torch.full((len(rows),), 2),
        }  # fmt: skip

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # As an optimizer may.
        torch.rand(1)
        for row, point, target, before in self._seen:
            self.gains[row] += (before - self._alone(point, target)) / 2
        self._seen.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    @torch.no_grad()
    def _alone(self, point: Any, target: Any) -> float:
        return float((self.line(point[None]) - target).double().square().sum())


def fit(
    folder: Path, module: pl.LightningModule, *, gains: bool | None = True, **changed: Any
) -> Any:
    """Two epochs of three steps, two batches each; ``gains`` None: nothing is recorded."""
    resumed = {"ckpt_path": changed.pop("ckpt_path", None)}
    callbacks = [] if gains is None else [TraceCallback(folder / "t", range(NUM), gains=gains)]
    usual: dict[str, Any] = {
        "max_epochs": 2, "callbacks": callbacks, "accumulate_grad_batches": 2,
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": folder, "enable_checkpointing": False,
    }  # fmt: skip
    torch.manual_seed(7)
    points = TensorDataset(torch.arange(NUM), torch.randn(NUM, 3), torch.randn(NUM, 1))
    order = torch.Generator().manual_seed(0)
    trainer = pl.Trainer(**usual | changed)
    trainer.fit(module, DataLoader(points, batch_size=2, shuffle=True, generator=order), **resumed)
    return trainer


def require_gains(found: list[float | None], expected: dict[int, float]) -> None:
    assert found == pytest.approx([expected[row] for row in range(NUM)], abs=1e-6)
    assert max(expected.values()) > 1e-3


@pytest.mark.parametrize("accumulated", [1, 2, 4])
def test_gains_are_those_of_each_sample_alone(accumulated: int, tmp_path: Path) -> None:
    fit(tmp_path, module := Lines(), accumulate_grad_batches=accumulated)
    require_gains(gains_of(tmp_path / "t"), module.gains)
    assert "training_step" not in vars(module)


def test_with_dropout_neither_the_training_nor_what_it_logs_changes_and_no_step_gains_nothing(
    tmp_path: Path,
) -> None:
    trained = []
    for gains in (None, True):
        module = Lines(dropout=0.5)
        trainer = fit(tmp_path, module, gains=gains)
        trained.append((module.line.weight.tolist(), dict(trainer.callback_metrics)))
    assert trained[0] == trained[1]
    assert set(trained[0][1]) == {"loss"}
    fit(tmp_path / "still", Lines(dropout=0.5, lr=0.0))
    assert gains_of(tmp_path / "still/t") == [0.0] * NUM


def test_a_run_that_resumes_adds_to_its_gains_and_one_without_them_keeps_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "first.ckpt"
    fit(tmp_path, first := Lines(), max_epochs=1).save_checkpoint(path)
    once = gains_of(tmp_path / "t")
    fit(tmp_path, second := Lines(), ckpt_path=path)
    total = {row: first.gains[row] + second.gains[row] for row in range(NUM)}
    require_gains(once, first.gains)
    require_gains(gains_of(tmp_path / "t"), total)
    fit(tmp_path, Lines(), ckpt_path=path, gains=False)
    assert not (tmp_path / "t" / FILE).exists()


def test_a_run_that_began_without_gains_does_not_go_on_with_them(tmp_path: Path) -> None:
    path = tmp_path / "first.ckpt"
    fit(tmp_path, Lines(), max_epochs=1, gains=False).save_checkpoint(path)
    with pytest.raises(DataError, match=r"gains: expected those of the 3 steps before, got none"):
        fit(tmp_path, Lines(), ckpt_path=path)


def test_what_the_user_has_put_on_the_module_stays_on_it(tmp_path: Path) -> None:
    module, logged = Lines(), list[str]()
    step: Any = module.training_step
    own = {"training_step": step, "log": lambda name, _: logged.append(name)}
    vars(module).update(own)
    fit(tmp_path, module, max_epochs=1)
    require_gains(gains_of(tmp_path / "t"), module.gains)
    assert {name: vars(module)[name] for name in own} == own
    assert logged == ["loss"] * 6


# ---- what is refused


class Counting(Lines):
    """Has a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def training_step(self, batch: Any) -> dict[str, Any]:
        found = super().training_step(batch)
        self.mean(found["loss"])
        return found


class ByHand(Lines):
    """Takes its steps itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class SeveralPasses(Lines):
    """Its optimizer asks for the loss as often as it likes."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters())


def compiled() -> Any:
    whole: Any = torch.compile(Lines())
    return from_compiled(whole)


class Sharded(SingleDeviceStrategy):
    """In place of one that no processor alone can have."""


@pytest.mark.parametrize(
    ("module", "changed", "got"),
    [
        (ByHand, {"accumulate_grad_batches": 1}, "optimizes, got automatic_optimization=False"),
        (compiled, {}, "optimizes, got a compiled module"),
        (Lines, {"strategy": Sharded(torch.device("cpu"))}, "optimizes, got Sharded"),
        (SeveralPasses, {}, "one training_step for each batch, got several"),
        (Counting, {}, "a training_step that updates no metric"),
    ],
)
def test_a_module_whose_steps_cannot_be_made_again_is_refused(
    module: Any, changed: dict[str, Any], got: str, tmp_path: Path
) -> None:
    built = module()
    with pytest.raises(ConfigError, match=rf"gains: expected .*{got}"):
        fit(tmp_path, built, **changed)
    assert getattr(built.training_step, "__name__", "") != "seen_step"
