"""What the steps of a loop taught of their samples, by hand, and as our own loop records it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import gdc
from gdc.errors import DataError
from gdc.schema import SELF_INFLUENCE
from gdc.training.batches import cut_windows, pad_windows
from gdc.training.losses import TargetLosses
from gdc.training.recipe import Recipe, TrainingData, count_steps, epoch_batches, learning_rate
from gdc.workspace import traces
from tests.training.builders import BLOCK_SIZE, TEXTS, built, recipe_with, trained, training_data

FILE = "self_influence.parquet"


def gains_of(folder: Path) -> list[float | None]:
    """The gains of a trace, in the order of its samples."""
    table = pl.read_parquet(folder / FILE)
    assert table.schema == SELF_INFLUENCE
    index = pl.concat(map(pl.read_parquet, sorted((folder / "train").rglob("index.parquet"))))
    assert table["sample_id"].to_list() == index["sample_id"].to_list()
    return table["gain"].to_list()


def take(recorder: gdc.TraceRecorder, before: float, after: float, sample: int = 0) -> None:
    """A step on one sample of two tokens."""
    recorder.record([sample], [before], [2])
    recorder.record_gain([sample], [before], [after], [2])


# ---- by hand


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_model_of_one_number_gains_what_is_reckoned_by_hand(
    kind: Callable[[Any], Any], tmp_path: Path
) -> None:
    """The loss of a sample is the squared distance of the model from it: from 1 and from 3."""
    model, targets = nn.Parameter(torch.tensor(0.0)), torch.tensor([1.0, 3.0])
    optimizer = torch.optim.SGD([model], lr=0.25)
    recorder = gdc.TraceRecorder(tmp_path / "t", ["a", "b", "c"])
    # One sample a step, then both, each in a batch of its own: 0 -> 0.5 -> 1.75 -> 2.
    for batches in ([[0]], [[1]], [[0], [1]]):
        before = [torch.square(model - targets[rows]) for rows in batches]
        for rows, losses in zip(batches, before, strict=True):
            # The second sample has two tokens.
            recorder.record(kind(rows), losses, kind([1 + row for row in rows]))
            torch.autograd.backward(losses.sum())
        optimizer.step()
        optimizer.zero_grad()
        for rows, losses in zip(batches, before, strict=True):
            after = torch.square(model - targets[rows])
            recorder.record_gain(kind(rows), losses, after, kind([1 + row for row in rows]))
    recorder.checkpoint(step=3)
    recorder.close()
    a = (1 - 0.25) + (0.5625 - 1)
    b = (6.25 - 1.5625) / 2 + (1.5625 - 1) / 2
    assert gains_of(tmp_path / "t") == [a, b, None]
    assert traces.verify(tmp_path / "t") == 5


def test_parts_of_a_sample_add_up_to_its_mean_and_what_has_no_token_has_no_gain(
    tmp_path: Path,
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    recorder.record([0, 0, 1], [3.0, 5.0, 0.0], [2, 2, 0])
    recorder.record_gain([0, 0, 1], [3.0, 5.0, 0.0], [1.0, 4.0, 0.0], [4, 4, 0])
    recorder.checkpoint()
    recorder.close()
    assert gains_of(tmp_path / "t") == [(2.0 + 1.0) / 4, None]


def test_a_run_without_gains_leaves_no_file(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1))
    recorder.record([0], [1.0])
    recorder.checkpoint()
    assert recorder.state_dict()["gains"] is None
    recorder.close()
    assert not (tmp_path / "t" / FILE).exists()


# ---- as our own loop


def record_own_run(folder: Path, model: nn.Module, data: TrainingData, recipe: Recipe) -> None:
    """The run of ``gdc.training.loop`` again, as a plain loop that records each window."""
    windows, lengths = cut_windows(data.texts, BLOCK_SIZE), data.texts.num_tokens
    loss_model = TargetLosses(model.train())
    optimizer = torch.optim.AdamW(
        loss_model.parameters(), lr=0.0, weight_decay=recipe.config.weight_decay
    )
    recorder = gdc.TraceRecorder(folder, range(len(data.texts)))
    num_steps, step = count_steps(data, recipe), 0
    torch.manual_seed(recipe.seed)

    def losses_of(batch: Any) -> list[torch.Tensor]:
        inputs, targets = map(torch.from_numpy, pad_windows(data.texts, windows, batch))
        parts = loss_model(inputs, targets).split(windows.num_targets[batch].tolist())
        return [part.sum() for part in parts]

    for epoch in range(recipe.config.epochs):
        for batch in epoch_batches(windows, recipe, epoch):
            random, rows = torch.get_rng_state(), windows.sequence[batch]
            before = losses_of(batch)
            optimizer.zero_grad()
            num_tokens = windows.num_targets[batch]
            torch.autograd.backward(torch.stack(before).sum() / int(num_tokens.sum()))
            nn.utils.clip_grad_norm_(model.parameters(), recipe.config.clip_norm)
            optimizer.param_groups[0]["lr"] = learning_rate(recipe.config, step, num_steps)
            optimizer.step()
            step += 1
            torch.set_rng_state(random)
            after = losses_of(batch)
            recorder.record(rows, torch.stack(before), num_tokens)
            recorder.record_gain(rows, torch.stack(before), torch.stack(after), lengths[rows])
        recorder.checkpoint(step=step)
    recorder.close()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equal_training_gives_equal_gains_here_and_in_our_own_loop(
    dropout: float, tmp_path: Path
) -> None:
    data, recipe = training_data(), recipe_with(epochs=2, records=True)
    own = trained(tmp_path, built(dropout=dropout), recipe, data).gain
    record_own_run(tmp_path / "t", built(dropout=dropout), data, recipe)
    assert own is not None
    found = gains_of(tmp_path / "t")
    assert len(found) == len(TEXTS)
    assert found == pytest.approx(own.tolist(), abs=1e-5)
    assert max(own) > 0.02


# ---- a run that was killed


def test_a_run_that_goes_on_neither_loses_nor_doubles_a_gain(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    take(recorder, 4.0, 2.0)
    recorder.checkpoint(step=1)
    take(recorder, 3.0, 2.5)
    state = recorder.state_dict()
    # It goes on after the state was saved, as a killed run does.
    take(recorder, 9.0, 1.0)
    recorder.checkpoint(step=3)
    recorder.flush()
    assert gains_of(tmp_path / "t") == [1.0 + 0.25 + 4.0, None]
    again = gdc.TraceRecorder(tmp_path / "t", range(2), resume=True)
    again.load_state_dict(state)
    again.flush()
    assert gains_of(tmp_path / "t") == [1.25, None]
    take(again, 2.0, 1.5, sample=1)
    again.checkpoint(step=3)
    again.close()
    assert gains_of(tmp_path / "t") == [1.25, 0.25]


def test_gains_that_are_read_while_they_grow_are_those_of_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1))
    take(recorder, 4.0, 2.0)
    recorder.checkpoint(step=1)
    take(recorder, 4.0, 2.0)
    recorder.flush()
    assert gains_of(tmp_path / "t") == [1.0]
    recorder.checkpoint(step=2)
    recorder.close()
    assert gains_of(tmp_path / "t") == [2.0]


def recorded_once(folder: Path) -> dict[str, Any]:
    """A trace with gains; returns the state of a recorder that knows none."""
    recorder = gdc.TraceRecorder(folder, range(1))
    take(recorder, 4.0, 2.0)
    recorder.checkpoint(step=1)
    state = recorder.state_dict()
    recorder.close()
    return {**state, "gains": None}


def test_gains_that_would_lack_the_first_steps_are_refused(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "late", range(1))
    recorder.record([0], [1.0])
    recorder.checkpoint(step=1)
    without = recorded_once(tmp_path / "t")
    resumed = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    loaded = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    loaded.load_state_dict(without)
    for one in (recorder, resumed, loaded):
        with pytest.raises(DataError, match=r"expected the gains of all steps, got none of those"):
            one.record_gain([0], [1.0], [0.5])
    # Nothing is missed where no step was taken.
    fresh = gdc.TraceRecorder(tmp_path / "fresh", range(1))
    state = fresh.state_dict()
    fresh.load_state_dict(state)
    take(fresh, 4.0, 2.0)


def test_a_run_that_goes_on_without_gains_leaves_none_and_a_look_at_it_leaves_them(
    tmp_path: Path,
) -> None:
    recorded_once(tmp_path / "t")
    looked = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    looked.record([0], [1.0])
    looked.checkpoint(step=1, mode="probe")
    looked.close()
    assert gains_of(tmp_path / "t") == [1.0]
    further = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    further.record([0], [1.0])
    further.checkpoint(step=2)
    further.close()
    assert not (tmp_path / "t" / FILE).exists()
    assert traces.verify(tmp_path / "t") == 6


def test_training_that_stops_to_record_gains_leaves_none(tmp_path: Path) -> None:
    """Those of a part of the steps would be taken for all."""
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1))
    take(recorder, 4.0, 2.0)
    recorder.checkpoint(step=1)
    recorder.record([0], [1.0])
    # Nothing was trained, so nothing is missed.
    recorder.checkpoint(step=1, mode="probe")
    recorder.flush()
    assert gains_of(tmp_path / "t") == [1.0]
    recorder.record([0], [1.0])
    recorder.checkpoint(step=2)
    recorder.flush()
    assert not (tmp_path / "t" / FILE).exists()
    with pytest.raises(DataError, match="expected the gains of all steps"):
        recorder.record_gain([0], [1.0], [0.5])
    assert recorder.state_dict()["gains"] is None
    recorder.close()


def test_a_checkpoint_right_after_going_on_keeps_the_gains_from_before(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1))
    take(recorder, 4.0, 2.0)
    state = recorder.state_dict()
    again = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    again.load_state_dict(state)
    again.checkpoint(step=1)
    again.close()
    assert gains_of(tmp_path / "t") == [1.0]


def test_a_run_that_goes_on_after_steps_in_no_checkpoint_has_missed_them(tmp_path: Path) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1))
    recorder.record([0], [1.0])
    recorder.checkpoint(step=0, mode="probe")
    recorder.keep_until(3)
    with pytest.raises(DataError, match="expected the gains of all steps"):
        recorder.record_gain([0], [1.0], [0.5])
    recorder.close()


def test_what_is_left_out_takes_the_gains_with_it(tmp_path: Path) -> None:
    recorded_once(tmp_path / "t")
    recorder = gdc.TraceRecorder(tmp_path / "t", range(1), resume=True)
    recorder.keep_until(1)
    assert not (tmp_path / "t" / FILE).exists()
    with pytest.raises(DataError, match="expected the gains of all steps"):
        recorder.record_gain([0], [1.0], [0.5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([2], [1.0], [1.0]), r"record_gain: expected row numbers from 0 to 1, got 2"),
        (([0], [1.0], [float("inf")]), r"expected finite loss sums of at least 0, got inf"),
        (([0], [-1.0], [1.0]), r"expected finite loss sums of at least 0, got -1\.0"),
        (([0, 1], [1.0, 1.0], [1.0]), r"expected one value for each sample of a batch"),
        (([0], [1.0], [0.5], [0]), r"expected whole numbers of tokens, above 0 where there is"),
    ],
)
def test_impossible_losses_are_refused(
    values: tuple[Any, ...], message: str, tmp_path: Path
) -> None:
    recorder = gdc.TraceRecorder(tmp_path / "t", range(2))
    with pytest.raises(DataError, match=message):
        recorder.record_gain(*values)
