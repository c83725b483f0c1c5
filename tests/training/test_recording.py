"""What a run records: losses at checkpoints and of single tokens, which change no training."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from gdc.schema import CHECKPOINTS
from gdc.training import loop
from gdc.training.batches import TokenizedTexts
from gdc.training.losses import sample_losses, sample_losses_from_tokens, token_losses
from tests.training.builders import (
    BLOCK_SIZE,
    built,
    outcome_of,
    recipe_with,
    trained,
    training_data,
    weights_of,
)

Values = NDArray[Any]


class Losses(Protocol):
    """``sample_losses`` or ``token_losses``."""

    __name__: str

    def __call__(self, *_: object, block_size: int, batch_tokens: int) -> Values: ...


def test_online_losses_are_those_before_the_update(tmp_path: Path) -> None:
    data, model = training_data(), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=10_000, epochs=2), data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    assert recording.losses[0].dtype == np.float32
    assert (recording.losses[1] < recording.losses[0]).all()


def test_the_first_batch_has_the_losses_of_the_untrained_model(tmp_path: Path) -> None:
    data, model = training_data(texts=[[1], [2], [3], [4]]), built()
    recipe = recipe_with(batch_tokens=4, epochs=1, learning_rate=0.1, warmup_steps=0)
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe, data)
    unchanged = np.isclose(recording.losses[0], untrained, atol=1e-5)
    assert len(recording.curve) == 2
    assert unchanged.sum() == 2
    assert recording.curve[0][1] == pytest.approx(untrained[unchanged].mean(), abs=1e-5)


def test_probes_and_heldout_losses_are_those_of_the_frozen_model(tmp_path: Path) -> None:
    data, model = training_data(), built(dropout=0.3)
    recording = trained(tmp_path, model, recipe_with(probes_per_epoch=1), data)
    assert model.training
    frozen = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=14)
    heldout = sample_losses(model, data.heldout, block_size=BLOCK_SIZE, batch_tokens=14)
    assert recording.losses[-2].tolist() == frozen.astype(np.float32).tolist()
    assert [loss.tolist() for loss in recording.heldout[-2:]] == [
        heldout.astype(np.float32).tolist()
    ] * 2


def test_two_probes_per_epoch_and_the_online_losses_are_in_order(tmp_path: Path) -> None:
    recording = trained(tmp_path, built(), recipe_with(probes_per_epoch=2))
    table = recording.checkpoint_table()
    assert table.schema == CHECKPOINTS
    assert table["checkpoint"].to_list() == list(range(9))
    assert table["mode"].to_list() == ["probe", "probe", "online"] * 3
    assert table["step"].is_sorted()
    probes = table.filter(mode="probe")
    assert probes["step"].is_unique().all()
    assert table.filter(mode="online")["epoch"].to_list() == [1.0, 2.0, 3.0]
    assert probes["epoch"].to_list() == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3], abs=0.1)
    assert len(recording.losses) == len(recording.heldout) == 9
    assert table["step"].to_list()[-1] == len(recording.curve)


def test_probing_changes_nothing_in_the_training(tmp_path: Path) -> None:
    plain, probed = built(dropout=0.2), built(dropout=0.2)
    recording = trained(tmp_path, plain, recipe_with())
    with_probes = trained(tmp_path, probed, recipe_with(probes_per_epoch=3))
    assert weights_of(plain) == weights_of(probed)
    assert recording.curve == with_probes.curve


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
@pytest.mark.parametrize("probes_per_epoch", [0, 2])
def test_recording_tokens_and_gains_changes_nothing_else(
    kind: str, probes_per_epoch: int, tmp_path: Path
) -> None:
    plain, recorded = built(kind, dropout=0.2), built(kind, dropout=0.2)
    one = trained(tmp_path, plain, recipe_with(probes_per_epoch=probes_per_epoch))
    recipe = recipe_with(probes_per_epoch=probes_per_epoch, records=True)
    other = trained(tmp_path, recorded, recipe)
    assert outcome_of(plain, one)[:4] == outcome_of(recorded, other)[:4]
    assert (one.gain, one.snapshots) == (None, [])


# ---- losses of single tokens


@pytest.mark.parametrize(
    ("probes_per_epoch", "epochs", "expected"),
    [
        pytest.param(2, 3, ["probe", "last"], id="the first probe"),
        pytest.param(0, 3, ["online", "last"], id="without probes the first epoch"),
        pytest.param(0, 1, ["last"], id="one epoch: both are one snapshot"),
        pytest.param(1, 1, ["last"], id="one probe: both are one snapshot"),
    ],
)
def test_snapshots_are_the_first_frozen_one_and_the_last(
    probes_per_epoch: int, epochs: int, expected: list[str], tmp_path: Path
) -> None:
    recipe = recipe_with(probes_per_epoch=probes_per_epoch, epochs=epochs, records=True)
    recording = trained(tmp_path, built(), recipe)
    first = {mode: step for _, step, _, mode, _ in reversed(recording.checkpoints)}
    steps = {**first, "last": len(recording.curve)}
    assert [snapshot.step for snapshot in recording.snapshots] == [steps[name] for name in expected]


def test_a_run_that_ends_within_its_first_epoch_has_one_snapshot(tmp_path: Path) -> None:
    recording = trained(tmp_path, built(), recipe_with(num_steps=2, records=True))
    assert [snapshot.step for snapshot in recording.snapshots] == [2]
    assert recording.checkpoints == []


def test_the_last_snapshot_is_of_the_trained_model_and_the_first_a_probe(
    tmp_path: Path,
) -> None:
    data, model = training_data(), built(dropout=0.3)
    recording = trained(tmp_path, model, recipe_with(probes_per_epoch=1, records=True), data)
    early, late = recording.snapshots
    assert model.training
    for found, texts in ((late.train, data.texts), (late.heldout, data.heldout)):
        frozen = token_losses(model, texts, block_size=BLOCK_SIZE, batch_tokens=14)
        assert found.tobytes() == frozen.tobytes()
    means = sample_losses_from_tokens(early.train, data.texts, block_size=BLOCK_SIZE)
    assert recording.losses[0].tobytes() == means.astype(np.float32).tobytes()


def test_no_text_is_evaluated_twice_at_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, evaluated = loop.Trainer._evaluate_frozen, []

    def evaluate_and_note(
        trainer: loop.Trainer, losses_of: Losses, texts: TokenizedTexts
    ) -> Values:
        evaluated.append(losses_of.__name__)
        return evaluate(trainer, losses_of, texts)

    monkeypatch.setattr(loop.Trainer, "_evaluate_frozen", evaluate_and_note)
    trained(tmp_path, built(), recipe_with(probes_per_epoch=1, epochs=3, records=True))
    assert evaluated == ["token_losses"] * 2 + ["sample_losses"] * 2 + ["token_losses"] * 2
