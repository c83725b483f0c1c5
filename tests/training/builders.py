"""Builders of small models, texts and runs, shared by the tests of training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from gdc.config import Gpt2Model, LstmModel, TrainingConfig
from gdc.training.batches import TokenizedTexts
from gdc.training.loop import Trainer, train
from gdc.training.models import build_model
from gdc.training.recipe import Recipe, TrainingData
from gdc.training.recording import Recording

VOCAB_SIZE, END_OF_TEXT, BLOCK_SIZE = 30, 29, 6
RANDOM = np.random.default_rng(0)
TEXTS = [RANDOM.integers(0, 28, size=size).tolist() for size in (3, 5, 9, 0, 14, 3, 4, 7, 2, 6)]
HELDOUT = [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]


class Killed(BaseException):
    """Stands for the operating system's SIGKILL."""


class MemoryTrace:
    """A trace in memory, which outlives a killed run."""

    def __init__(self) -> None:
        self.losses: list[NDArray[np.float32]] = []
        self.heldout: list[NDArray[np.float32]] = []

    def resume(self, run: str, num_checkpoints: int) -> None:  # noqa: ARG002
        del self.losses[num_checkpoints:], self.heldout[num_checkpoints:]

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        self.losses.append(losses)
        self.heldout.append(heldout)

    def flush(self) -> None:
        """Everything is kept already."""


@dataclass
class Recorded(Recording):
    """A recording, and the trace beside it."""

    losses: list[NDArray[np.float32]] = field(default_factory=list)
    heldout: list[NDArray[np.float32]] = field(default_factory=list)


def config_with(**changes: object) -> TrainingConfig:
    values = {
        "epochs": 3,
        "batch_tokens": 14,
        "learning_rate": 0.01,
        "schedule": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "num_threads": 1,
    }
    return TrainingConfig.model_validate({**values, **changes})


def recipe_with(
    *,
    seed: int = 0,
    probes_per_epoch: int = 0,
    num_steps: int | None = None,
    precision: str = "float32",
    records: bool = False,
    **config: object,
) -> Recipe:
    return Recipe(
        config_with(**config),
        BLOCK_SIZE,
        precision,
        seed,
        probes_per_epoch,
        num_steps,
        token_losses=records,
        self_influence=records,
    )


def built(
    kind: str = "gpt2", *, dropout: float = 0.0, seed: int = 0, num_heads: int = 2
) -> nn.Module:
    common = {"block_size": BLOCK_SIZE, "precision": "float32", "dropout": dropout, "kind": kind}
    size = {"hidden_size": 8, "num_layers": 2}
    config = (
        LstmModel.model_validate({**common, **size})
        if kind == "lstm"
        else Gpt2Model.model_validate({**common, **size, "num_heads": num_heads})
    )
    return build_model(config, vocab_size=VOCAB_SIZE, end_of_text=END_OF_TEXT, seed=seed)


def tokenized(texts: Sequence[Sequence[int]]) -> TokenizedTexts:
    return TokenizedTexts.from_ids(texts, END_OF_TEXT)


def training_data(
    weights: Sequence[float] | None = None,
    copies: Sequence[int] | None = None,
    texts: Sequence[Sequence[int]] = TEXTS,
    heldout: Sequence[Sequence[int]] = HELDOUT,
    masked: NDArray[np.bool_] | None = None,
    **more: Any,  # noqa: ANN401  # fields of TrainingData
) -> TrainingData:
    return TrainingData(
        tokenized(texts),
        np.array(weights if weights else [1.0] * len(texts)),
        np.array(copies if copies else [1] * len(texts)),
        tokenized(heldout),
        masked,
        **more,
    )


def masked_at(*indices: int) -> NDArray[np.bool_]:
    """A mask of these of the ids of ``TEXTS``."""
    masked = np.zeros(len(tokenized(TEXTS).ids), dtype=bool)
    masked[list(indices)] = True
    return masked


def trained(
    folder: Path,
    model: nn.Module,
    recipe: Recipe,
    data: TrainingData | None = None,
    trace: MemoryTrace | None = None,
) -> Recorded:
    """Train with checkpoints in this folder; a resumed run is given the trace of the killed one."""
    trace = trace or MemoryTrace()
    recording = train(
        model, data or training_data(), recipe, checkpoints=folder, name="test", trace=trace
    )
    return Recorded(**vars(recording), losses=list(trace.losses), heldout=list(trace.heldout))


def weights_of(model: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def outcome_of(model: nn.Module, recording: Recorded) -> tuple[object, ...]:
    """Everything a run leaves behind, bit by bit."""
    losses = [loss.tobytes() for loss in (*recording.losses, *recording.heldout)]
    gain = None if recording.gain is None else recording.gain.tobytes()
    snapshots = [(step, one.tobytes(), other.tobytes()) for step, one, other in recording.snapshots]
    weights = None if recording.weights is None else recording.weights.tobytes()
    changed = None if recording.first_changed is None else recording.first_changed.tolist()
    run = (recording.checkpoints, recording.curve, gain, snapshots, weights, changed)
    return weights_of(model), losses, *run


def kill_after(  # noqa: PLR0913, PLR0917  # as trained
    num_steps: int,
    folder: Path,
    model: nn.Module,
    recipe: Recipe,
    trace: MemoryTrace,
    data: TrainingData | None = None,
) -> None:
    """Train, and die before this step, from 0.

    It must come to that step.
    """
    train_step = Trainer.train_step

    def step_or_die(trainer: Trainer) -> int:
        if trainer.step == num_steps:
            raise Killed
        return train_step(trainer)

    with patch.object(Trainer, "train_step", step_or_die), pytest.raises(Killed):
        trained(folder, model, recipe, data, trace)
