"""Self-influence: what each step gains on its own samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gdc.training.batches import cut_windows, pad_windows
from gdc.training.losses import sample_losses_from_tokens
from gdc.training.models import target_states
from gdc.training.recipe import (
    Recipe,
    TrainingData,
    count_steps,
    epoch_batches,
    learning_rate,
)
from tests.training.builders import BLOCK_SIZE, TEXTS, built, recipe_with, trained, training_data


def gains_by_replay(model: nn.Module, data: TrainingData, recipe: Recipe) -> list[float]:
    """The whole run again in a plain loop over batches, windows and tokens, without dropout."""
    windows, size = cut_windows(data.texts, BLOCK_SIZE), len(data.texts)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, weight_decay=recipe.config.weight_decay
    )
    num_steps, step, gains = count_steps(data, recipe), 0, [0.0] * size

    def nll_of(window: int) -> torch.Tensor:
        inputs, targets = pad_windows(data.texts, windows, np.array([window]))
        ids, wanted = torch.from_numpy(inputs), torch.from_numpy(targets[0])
        states = target_states(model, ids, torch.ones_like(ids, dtype=torch.bool))
        logits = states.logits()
        return nn.functional.cross_entropy(logits, wanted, reduction="sum")

    for epoch in range(recipe.config.epochs):
        for batch in epoch_batches(windows, recipe, epoch):
            before = [nll_of(window) for window in batch]
            optimizer.zero_grad()
            loss = torch.stack(before).sum() / int(windows.length[batch].sum())
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(model.parameters(), recipe.config.clip_norm)
            optimizer.param_groups[0]["lr"] = learning_rate(recipe.config, step, num_steps)
            optimizer.step()
            step += 1
            for window, nll in zip(batch, before, strict=True):
                gains[windows.sequence[window]] += float((nll - nll_of(window)).detach())
    return [gain / n for gain, n in zip(gains, data.texts.num_tokens, strict=True)]


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_gains_match_a_plain_replay_of_the_run(kind: str, tmp_path: Path) -> None:
    data, recipe = training_data(), recipe_with(epochs=2, records=True)
    recording = trained(tmp_path, built(kind), recipe, data)
    expected = gains_by_replay(built(kind).train(), data, recipe)
    assert recording.gain is not None
    assert recording.gain.tolist() == pytest.approx(expected, abs=2e-5)
    assert max(expected) > 0.02


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_a_step_of_length_zero_gains_nothing_with_any_dropout(kind: str, tmp_path: Path) -> None:
    recipe = recipe_with(records=True, learning_rate=1e-30, weight_decay=0.0)
    gain = trained(tmp_path, built(kind, dropout=0.5), recipe).gain
    assert gain is not None
    assert gain.tolist() == [0.0] * len(TEXTS)


def test_a_step_on_all_texts_gains_the_drop_of_the_next_online_loss(tmp_path: Path) -> None:
    """With one batch an epoch the next epoch finds what a step gained, copies or not."""
    data = training_data(copies=[2, 1, 3, 1, 2, 1, 1, 1, 1, 1])
    recipe = recipe_with(batch_tokens=10_000, epochs=3, records=True)
    recording = trained(tmp_path, built(), recipe, data)
    first, *_ = recording.losses
    last = sample_losses_from_tokens(
        recording.snapshots[-1].train, data.texts, block_size=BLOCK_SIZE
    )
    assert recording.gain is not None
    assert recording.gain.tolist() == pytest.approx((first - last).tolist(), abs=1e-5)


def test_a_sample_that_was_in_no_step_has_no_gain(tmp_path: Path) -> None:
    weights, copies = [*[1.0] * 9, 0.0], [0, *[1] * 9]
    gain = trained(
        tmp_path, built(), recipe_with(records=True), training_data(weights, copies)
    ).gain
    assert gain is not None
    assert np.isnan(gain).tolist() == [True, *[False] * 8, True]


def test_a_sample_not_reached_yet_has_no_gain_and_one_reached_in_part_has(tmp_path: Path) -> None:
    recipe = recipe_with(num_steps=1, records=True)
    data = training_data()
    gain = trained(tmp_path, built(), recipe, data).gain
    windows = cut_windows(data.texts, BLOCK_SIZE)
    reached = set(windows.sequence[epoch_batches(windows, recipe, 0)[0]].tolist())
    assert gain is not None
    assert np.flatnonzero(np.isfinite(gain)).tolist() == sorted(reached)
    assert 0 < len(reached) < len(TEXTS)
