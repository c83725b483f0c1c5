"""What comes early in a pass, and weights that are revised after each: laws, and a kill."""

from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc.training.loop import Trainer
from gdc.training.recipe import TrainingData, count_steps, epoch_batches
from tests.training.builders import (
    BLOCK_SIZE,
    TEXTS,
    Killed,
    MemoryTrace,
    built,
    kill_after,
    outcome_of,
    recipe_with,
    trained,
    training_data,
)

pytestmark = pytest.mark.slow

marks = st.lists(st.booleans(), min_size=len(TEXTS), max_size=len(TEXTS))


@given(early=marks, seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_early_texts_come_before_all_others_and_each_window_once(
    early: list[bool], seed: int, epoch: int
) -> None:
    windows = training_data().windows(BLOCK_SIZE)
    is_early = np.array(early)
    batches = epoch_batches(windows, recipe_with(seed=seed), epoch, is_early)
    in_order = np.concatenate(batches)
    assert sorted(in_order) == list(range(len(windows)))
    first = int(is_early[windows.sequence].sum())
    assert is_early[windows.sequence[in_order[:first]]].all()
    assert all(len(set(is_early[windows.sequence[batch]])) == 1 for batch in batches)
    assert all(windows.length[batch].max() * len(batch) <= 14 for batch in batches)


def test_no_early_text_is_no_order(tmp_path: Path) -> None:
    models = [built(), built()]
    data = training_data(), replace(training_data(), early=np.zeros(len(TEXTS), dtype=bool))
    outcomes = [
        outcome_of(model, trained(tmp_path, model, recipe_with(), of))
        for model, of in zip(models, data, strict=True)
    ]
    assert outcomes[0] == outcomes[1]


def test_an_order_is_trained_in_and_counted(tmp_path: Path) -> None:
    early = replace(training_data(), early=np.arange(len(TEXTS)) < 3)
    run = trained(tmp_path, built(), recipe_with(), early)
    assert len(run.curve) == count_steps(early, recipe_with())
    assert run.curve != trained(tmp_path, built(), recipe_with()).curve


@dataclass(frozen=True)
class Revised:
    """All weights times ``factor`` after each pass, those of sample 4 times ``of_4`` too."""

    factor: float = 1.0
    of_4: float = 1.0

    def __call__(
        self, online: NDArray[np.float32], frozen: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        assert online.shape == frozen.shape
        weights = np.full(len(TEXTS), self.factor ** len(online))
        weights[4] *= self.of_4
        return weights


def data_with(revision: Revised) -> TrainingData:
    return replace(training_data(), revision=revision)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_weights_that_are_all_revised_alike_change_nothing(factor: float, tmp_path: Path) -> None:
    models = [built(dropout=0.2), built(dropout=0.2)]
    plain = trained(tmp_path, models[0], recipe_with())
    revised = trained(tmp_path, models[1], recipe_with(), data_with(Revised(factor)))
    assert plain.weights is None
    assert revised.weights is not None
    as_plain = replace(revised, weights=None, first_changed=None)
    assert outcome_of(models[1], as_plain) == outcome_of(models[0], plain)


def test_a_sample_of_weight_0_is_not_learned_after_its_pass_and_its_loss_is_known(
    tmp_path: Path,
) -> None:
    recipe = recipe_with(epochs=12, schedule="constant")
    plain = trained(tmp_path, built(), recipe)
    revised = trained(tmp_path, built(), recipe, data_with(Revised(of_4=0)))
    # The order of the batches is the same, so until the first revision all is.
    assert revised.losses[0].tobytes() == plain.losses[0].tobytes()
    assert revised.losses[-1][4] > plain.losses[-1][4] + 1
    others = np.delete(np.arange(len(TEXTS)), 4)
    assert np.isfinite(revised.losses[-1][others]).all()


def test_a_revision_reads_the_losses_of_the_passes_so_far(tmp_path: Path) -> None:
    seen = []

    def note(online: NDArray[np.float32], frozen: NDArray[np.float32]) -> NDArray[np.float64]:
        seen.append((online, frozen))
        return np.ones(len(TEXTS))

    data = replace(training_data(), revision=note)
    run = trained(tmp_path, built(), recipe_with(probes_per_epoch=1), data)
    # A probe at the end of a pass, then the online losses of the pass.
    for num_passes, (online, frozen) in enumerate(seen, start=1):
        assert online.tobytes() == np.stack(run.losses[1 : 2 * num_passes : 2]).tobytes()
        assert frozen.tobytes() == np.stack(run.losses[0 : 2 * num_passes : 2]).tobytes()
    assert len(seen) == 3


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_weights_of_the_last_pass_are_recorded(beyond: int, tmp_path: Path) -> None:
    """A pass that has one step more is the last one; after a whole one nothing was trained."""
    data, recipe = data_with(Revised(0.5, of_4=0)), recipe_with(epochs=3)
    recipe = replace(recipe, num_steps=count_steps(data, recipe) + beyond)
    last = 0.5 ** (2 + beyond)
    weights = trained(tmp_path, built(), recipe, data).weights
    assert weights is not None
    assert weights.tolist() == [0.0 if text == 4 else last for text in range(len(TEXTS))]


def picked_in_turn(online: NDArray[np.float32], frozen: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sample 1 after the first pass, then 2 in its place, then 1 again and 3 with it; then all."""
    assert online.shape == frozen.shape
    weights = np.ones(len(TEXTS))
    weights[([1], [2], [1, 3], slice(None))[len(online) - 1]] = 0.5
    return weights


def test_the_first_pass_in_which_a_sample_was_picked_is_recorded(tmp_path: Path) -> None:
    data = replace(training_data(), revision=picked_in_turn)
    run = trained(tmp_path, built(), recipe_with(epochs=4), data)
    assert run.first_changed is not None
    assert run.weights is not None
    assert run.first_changed.tolist() == [0, 2, 3, 4] + [0] * (len(TEXTS) - 4)
    assert run.weights[:4].tolist() == [1, 0.5, 1, 0.5]


@pytest.mark.parametrize("num_steps", [7, 12])
def test_a_killed_run_resumes_with_the_order_and_the_weights_it_had(
    num_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(data_with(Revised(0.5, of_4=0)), early=np.arange(len(TEXTS)) % 3 == 0)
    recipe, trace, model, resumed = recipe_with(), MemoryTrace(), built(), built()
    whole = trained(tmp_path, model, recipe, data)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(num_steps, tmp_path, built(), recipe, trace, data)
    assert outcome_of(resumed, trained(tmp_path, resumed, recipe, data, trace)) == outcome_of(
        model, whole
    )


def test_a_run_that_is_killed_after_its_last_step_still_knows_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, trace = data_with(Revised(0.5)), MemoryTrace()
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    with patch.object(Trainer, "finish", side_effect=Killed), pytest.raises(Killed):
        trained(tmp_path, built(), recipe_with(), data, trace)
    resumed = trained(tmp_path, built(), recipe_with(), data, trace)
    assert resumed.weights is not None
    assert resumed.weights.tolist() == [0.25] * len(TEXTS)


def test_a_resumed_run_asks_for_its_weights_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(online: NDArray[np.float32], frozen: NDArray[np.float32]) -> NDArray[np.float64]:
        assert online.shape == frozen.shape
        seen.append(len(online))
        return np.ones(len(TEXTS))

    data = replace(training_data(), revision=note)
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    kill_after(12, tmp_path, built(), recipe_with(), MemoryTrace(), data)
    trained(tmp_path, built(), recipe_with(), data)
    assert seen == [1, 2, 2, 3]
