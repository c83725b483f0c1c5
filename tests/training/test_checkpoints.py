"""Files of runs that were killed: kept while they may go on, gone once nobody will."""

import os
import time
from pathlib import Path

import pytest
import torch

from gdc.training import loop
from gdc.training.batches import TokenizedTexts
from gdc.training.loop import TrainingData, train
from gdc.training.models import LstmLanguageModel
from tests.builders import params_with

DAY = 24 * 3600


def train_anew(folder: Path, name: str = "test") -> None:
    texts = TokenizedTexts.from_ids([[1, 2, 3], [3, 2, 1]], 0)
    params = params_with()
    config = params.training.model_copy(update={"epochs": 1})
    recipe = loop.Recipe(config, 4, "float32", 0)
    torch.manual_seed(0)  # the first weights are part of a checkpoint's name
    model = LstmLanguageModel(5, 4, 1, 0.0)
    train(model, TrainingData.unweighted(texts, texts), recipe, checkpoints=folder, name=name)


def test_a_finished_run_removes_what_was_abandoned_a_week_ago(tmp_path: Path) -> None:
    for name, days in (("young.pt", 6), ("old.pt", 8), ("old.12.tmp", 8)):
        (tmp_path / name).touch()
        changed = time.time() - days * DAY
        os.utime(tmp_path / name, (changed, changed))
    train_anew(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young.pt"]


@pytest.fixture
def _kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, which stays as after a kill."""
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(loop._CheckpointStore, "remove", lambda _self: None)


@pytest.mark.usefixtures("_kept")
def test_two_arms_that_are_the_same_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    for name in ("retrain@none-1", "retrain@paper-1", "retrain@none-1"):
        train_anew(tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("_kept")
def test_a_checkpoint_belongs_to_all_the_code_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [path.name for path in loop._CODE.glob("*.py")]
    assert {"loop.py", "losses.py", "transformer_models.py"} <= set(modules)
    for name in modules:
        (tmp_path / name).touch()
    monkeypatch.setattr(loop, "_CODE", tmp_path)
    train_anew(tmp_path / "checkpoints")
    for name in modules:
        (tmp_path / name).write_text("edited")
        train_anew(tmp_path / "checkpoints")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1 + len(modules)
