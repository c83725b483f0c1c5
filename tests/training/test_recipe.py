"""Recipes: known learning rates, and steps counted as they are taken."""

from pathlib import Path

import numpy as np
import pytest

from gdc.errors import DataError
from gdc.training.recipe import count_steps, first_steps, learning_rate
from tests.training.builders import TEXTS, built, config_with, recipe_with, trained, training_data


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        pytest.param("constant", 0, 0.25, id="the first step of four warm-up steps"),
        pytest.param("constant", 3, 1.0, id="the last of them"),
        pytest.param("constant", 11, 1.0, id="constant"),
        pytest.param("cosine", 1, 0.5, id="cosine warms up alike"),
        pytest.param("cosine", 4, 1.0, id="cosine begins at the top"),
        pytest.param("cosine", 8, 0.5, id="half way"),
        pytest.param("cosine", 12, 0.0, id="and would end at zero"),
    ],
)
def test_known_learning_rates(schedule: str, step: int, rate: float) -> None:
    config = config_with(learning_rate=1.0, warmup_steps=4, schedule=schedule)
    assert learning_rate(config, step, num_steps=12) == pytest.approx(rate, abs=1e-12)


def test_a_warmup_as_long_as_the_run_is_allowed() -> None:
    config = config_with(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(config, step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_rate_of_a_checkpoint_is_that_of_its_last_step(tmp_path: Path) -> None:
    recipe = recipe_with()
    recording = trained(tmp_path, built(), recipe)
    num_steps = len(recording.curve)
    assert [rate for *_, rate in recording.checkpoints] == [
        learning_rate(recipe.config, step - 1, num_steps) for _, step, *_ in recording.checkpoints
    ]


@pytest.mark.parametrize("num_steps", [2, 9, 50])
def test_num_steps_is_exact_and_only_whole_epochs_are_recorded(
    num_steps: int, tmp_path: Path
) -> None:
    recording = trained(tmp_path, built(), recipe_with(num_steps=num_steps))
    assert [step for step, _ in recording.curve] == list(range(1, num_steps + 1))
    ends = [count_steps(training_data(), recipe_with(epochs=n)) for n in range(1, 20)]
    assert 2 < ends[0] < 9 < ends[1]
    assert [step for _, step, *_ in recording.checkpoints] == [n for n in ends if n <= num_steps]


def test_fewer_steps_are_the_beginning_of_more(tmp_path: Path) -> None:
    long = trained(tmp_path, built(), recipe_with(schedule="constant"))
    short = trained(tmp_path, built(), recipe_with(schedule="constant", num_steps=4))
    assert short.curve == long.curve[:4]


def test_the_first_step_of_a_text_is_the_first_that_gains_on_it(tmp_path: Path) -> None:
    """Gains are recorded for the texts of the steps taken, here of runs of 1, 2, ... steps."""
    data = training_data(copies=[2, 0, 3, 1, 1, 1, 0, 1, 1, 1])
    num_steps = count_steps(data, recipe_with(epochs=1))
    seen = []
    for n in range(1, num_steps + 1):
        gain = trained(tmp_path, built(), recipe_with(num_steps=n, records=True), data).gain
        assert gain is not None
        seen.append(np.isfinite(gain))
        expected = np.where(np.any(seen, axis=0), np.argmax(seen, axis=0) + 1, 0)
        assert first_steps(data, recipe_with(num_steps=n)).tolist() == expected.tolist()
    assert first_steps(data, recipe_with()).tolist() == expected.tolist()
    assert np.flatnonzero(expected == 0).tolist() == [1, 6]


def test_steps_are_counted_as_they_are_taken(tmp_path: Path) -> None:
    data = training_data(copies=[2, 0, 3, 1, 1, 1, 0, 1, 1, 1])
    recording = trained(tmp_path, built(), recipe_with(), data)
    assert count_steps(data, recipe_with()) == len(recording.curve)
    assert [mode for *_, mode, _ in recording.checkpoints] == ["online"] * 3


@pytest.mark.parametrize("absence", ["weights", "copies"])
def test_nothing_left_to_train_on_is_refused(absence: str, tmp_path: Path) -> None:
    data = training_data(**{absence: [0] * len(TEXTS)})  # type: ignore[arg-type]  # one of both
    with pytest.raises(DataError, match="no sample is left to train on"):
        trained(tmp_path, built(), recipe_with(), data)
