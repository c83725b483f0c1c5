"""Checkpoints: a killed run resumes to the same bytes, and no file stays that nobody needs."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from gdc.errors import ConfigError
from gdc.training import checkpoints, loop
from gdc.training.batches import TokenizedTexts
from gdc.training.loop import train
from gdc.training.models import LstmLanguageModel
from gdc.training.recipe import Recipe, TrainingData
from tests.builders import params_with
from tests.training.builders import (
    TEXTS,
    Killed,
    MemoryTrace,
    built,
    kill_after,
    masked_at,
    outcome_of,
    recipe_with,
    trained,
    training_data,
)

pytestmark = pytest.mark.slow

DAY = 24 * 3600


def train_once(folder: Path, name: str = "test") -> None:
    texts = TokenizedTexts.from_ids([[1, 2, 3], [3, 2, 1]], 0)
    params = params_with()
    config = params.training.model_copy(update={"epochs": 1})
    recipe = Recipe(config, 4, "float32", 0)
    torch.manual_seed(0)  # the first weights are part of a checkpoint's name
    model = LstmLanguageModel(5, 4, 1, 0.0)
    train(model, TrainingData.unweighted(texts, texts), recipe, checkpoints=folder, name=name)


def test_a_finished_run_removes_what_was_abandoned_a_week_ago(tmp_path: Path) -> None:
    for name, days in (("young.pt", 6), ("old.pt", 8), ("old.12.tmp", 8)):
        (tmp_path / name).touch()
        changed = time.time() - days * DAY
        os.utime(tmp_path / name, (changed, changed))
    train_once(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young.pt"]


@pytest.fixture
def _kept_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step, which stays as after a kill."""
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(checkpoints.CheckpointFile, "remove", lambda _self: None)


@pytest.mark.usefixtures("_kept_checkpoints")
def test_two_arms_that_are_the_same_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    for name in ("retrain@none-1", "retrain@paper-1", "retrain@none-1"):
        train_once(tmp_path, name)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("_kept_checkpoints")
def test_a_checkpoint_belongs_to_all_the_code_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [path.name for path in checkpoints._CODE.glob("*.py")]
    assert {"loop.py", "losses.py", "transformer_models.py"} <= set(modules)
    for name in modules:
        (tmp_path / name).touch()
    monkeypatch.setattr(checkpoints, "_CODE", tmp_path)
    train_once(tmp_path / "checkpoints")
    for name in modules:
        (tmp_path / name).write_text("edited = 1")
        # As in a new process: in one process the code of a run is that of all its runs.
        checkpoints._code_digest.cache_clear()
        train_once(tmp_path / "checkpoints")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1 + len(modules)


# ---- resuming


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the steps that runs take from now on."""
    train_step, steps = loop.Trainer.train_step, []

    def step_and_note(trainer: loop.Trainer) -> int:
        steps.append(trainer.step)
        return train_step(trainer)

    monkeypatch.setattr(loop.Trainer, "train_step", step_and_note)
    return steps


RECORDS = recipe_with(probes_per_epoch=2, records=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[object, int]]:
    """What runs that nobody killed leave behind, and the number of their steps."""

    def run(kind: str) -> tuple[object, int]:
        torch.set_num_threads(1)
        model = built(kind, dropout=0.2)
        recording = trained(tmp_path_factory.mktemp(kind), model, RECORDS)
        return outcome_of(model, recording), len(recording.curve)

    return {kind: run(kind) for kind in ("lstm", "gpt2")}


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
@pytest.mark.parametrize("num_steps", [1, 7, 12])
def test_a_killed_run_resumes_to_the_same_bytes(
    whole: Mapping[str, tuple[object, int]],
    kind: str,
    num_steps: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, trace = RECORDS, MemoryTrace()
    expected, num_whole = whole[kind]
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(num_steps, tmp_path, built(kind, dropout=0.2), recipe, trace)
    assert [file.suffix for file in tmp_path.iterdir()] == [".pt"]
    steps, resumed = steps_taken(monkeypatch), built(kind, dropout=0.2)
    rest = trained(tmp_path, resumed, recipe, trace=trace)
    assert outcome_of(resumed, rest) == expected
    assert steps == list(range(num_steps, num_whole))
    assert list(tmp_path.iterdir()) == []


def flipped(content: bytes) -> bytes:
    """One bit of a weight is another: torch would load it without an error."""
    return content[:2000] + bytes([content[2000] ^ 1]) + content[2001:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="cut off"),
        pytest.param(lambda content: b"", id="empty"),  # noqa: ARG005
        pytest.param(lambda content: bytes(len(content)), id="zeros, as after a power cut"),
        pytest.param(flipped, id="one bit"),
    ],
)
def test_a_damaged_checkpoint_is_renamed_and_the_run_starts_again(
    whole: Mapping[str, tuple[object, int]],
    damage: Callable[[bytes], bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, trace = RECORDS, MemoryTrace()
    expected, num_whole = whole["gpt2"]
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(7, tmp_path, built(dropout=0.2), recipe, trace)
    (checkpoint,) = tmp_path.iterdir()
    damaged = damage(checkpoint.read_bytes())
    checkpoint.write_bytes(damaged)
    kill_after(3, tmp_path, built(dropout=0.2), recipe, trace)
    said = capsys.readouterr().err
    assert f"{checkpoint}: expected a training checkpoint as it was written, got" in said
    assert checkpoint.with_suffix(".damaged").read_bytes() == damaged
    steps, resumed = steps_taken(monkeypatch), built(dropout=0.2)
    rest = trained(tmp_path, resumed, recipe, trace=trace)
    assert outcome_of(resumed, rest) == expected
    assert steps == list(range(3, num_whole))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", ["abc", "nan", "-1", ""])
def test_seconds_between_checkpoints_that_are_no_number_are_refused(
    seconds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", seconds)
    expected = f"GDC_CHECKPOINT_SECONDS: expected seconds, at least 0, got {seconds!r}"
    with pytest.raises(ConfigError, match=expected):
        trained(tmp_path, built(), recipe_with())


def test_a_run_killed_twice_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, trace = recipe_with(), MemoryTrace()
    model, resumed = built(dropout=0.2), built(dropout=0.2)
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(5, tmp_path, built(dropout=0.2), recipe, trace)
    kill_after(11, tmp_path, built(dropout=0.2), recipe, trace)
    assert outcome_of(resumed, trained(tmp_path, resumed, recipe, trace=trace)) == outcome_of(
        model, whole
    )


def test_a_run_killed_between_two_saves_repeats_only_the_steps_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, trace = recipe_with(), MemoryTrace()
    model, resumed = built(), built()
    whole = trained(tmp_path, model, recipe)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "5")
    clock = SimpleNamespace(monotonic=iter(range(10_000)).__next__)  # a second per call
    monkeypatch.setattr(loop, "time", clock)
    kill_after(7, tmp_path, built(), recipe, trace)
    steps = steps_taken(monkeypatch)
    assert outcome_of(resumed, trained(tmp_path, resumed, recipe, trace=trace)) == outcome_of(
        model, whole
    )
    assert 0 < steps[0] < 7


def test_a_kill_in_the_middle_of_a_save_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_half(state: object, path: Path) -> None:
        path.write_bytes(repr(state).encode()[:100])
        raise Killed

    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    with patch("torch.save", save_half), pytest.raises(Killed):
        trained(tmp_path, built(), recipe_with())
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    steps = steps_taken(monkeypatch)
    trained(tmp_path, built(), recipe_with())
    assert steps[0] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "data", "recipe"),
    [
        pytest.param({}, {"texts": [*TEXTS[:-1], [1] * len(TEXTS[-1])]}, {}, id="texts"),
        pytest.param({}, {"heldout": [[1]]}, {}, id="held-out texts"),
        pytest.param({}, {"weights": [*[1.0] * 9, 2.0]}, {}, id="weights"),
        pytest.param({}, {"copies": [*[1] * 9, 2]}, {}, id="copies"),
        pytest.param({}, {"masked": masked_at(2)}, {}, id="masked tokens"),
        pytest.param({}, {"early": np.arange(10) == 2}, {}, id="what comes early"),
        pytest.param({}, {"revision": lambda *_: np.ones(10)}, {}, id="revised weights"),
        pytest.param({}, {}, {"seed": 1}, id="the seed of the batches"),
        pytest.param({}, {}, {"learning_rate": 0.02}, id="the learning rate"),
        pytest.param({}, {}, {"num_steps": 30}, id="the number of steps"),
        pytest.param({"seed": 1}, {}, {}, id="the first weights"),
        pytest.param({"dropout": 0.3}, {}, {}, id="dropout"),
        pytest.param({"num_heads": 4}, {}, {}, id="heads, whose weights have the same shapes"),
    ],
)
def test_a_run_that_differs_in_anything_does_not_resume_from_the_checkpoint(
    model: dict[str, Any],
    data: dict[str, Any],
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(7, tmp_path, built(dropout=0.2), recipe_with(), MemoryTrace())
    (checkpoint,) = tmp_path.iterdir()
    steps, other = steps_taken(monkeypatch), built(**{"dropout": 0.2} | model)
    trained(tmp_path, other, recipe_with(**recipe), training_data(**data))
    assert steps[0] == 0
    assert list(tmp_path.iterdir()) == [checkpoint]
