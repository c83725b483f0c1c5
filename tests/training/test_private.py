"""Private gradients and their epsilon: known answers, an oracle one text at a time, and a kill."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from gdc.errors import ConfigError
from gdc.training.distributed import Group
from gdc.training.loop import train
from gdc.training.private import Accountant, Privacy, poisson_batches, set_private_gradients
from gdc.training.recipe import Recipe
from tests.training.builders import (
    BLOCK_SIZE,
    MemoryTrace,
    built,
    config_with,
    kill_after,
    outcome_of,
    recipe_with,
    trained,
    training_data,
)

UNBOUNDED = Privacy(clip_norm=1e9, noise_multiplier=0.0)
PRIVATE = Privacy(clip_norm=0.5, noise_multiplier=0.7)
SAME_LENGTH = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]]
POINTS = [[3.0, 4.0], [0.3, 0.4], [0.0, -2.0]]


def private(privacy: Privacy = PRIVATE, **more: object) -> Recipe:
    return replace(recipe_with(**more), privacy=privacy)  # type: ignore[arg-type]  # of the config


def losses_of(weights: nn.Parameter, points: Sequence[Sequence[float]]) -> Iterator[Tensor]:
    """One linear loss for each point, whose gradient the point is."""
    return ((weights * torch.tensor(point)).sum() for point in points)


def gradient_of(
    points: Sequence[Sequence[float]], privacy: Privacy, expected: float
) -> list[float]:
    weights = nn.Parameter(torch.zeros(2))
    set_private_gradients([weights], losses_of(weights, points), privacy, expected)
    assert weights.grad is not None
    found: list[float] = weights.grad.tolist()
    return found


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_without_a_bound_and_noise_a_run_is_the_plain_one(kind: str, tmp_path: Path) -> None:
    data = training_data(texts=SAME_LENGTH)
    # One batch of all texts is a pass.
    plain, other = recipe_with(batch_tokens=100), private(UNBOUNDED, batch_tokens=100)
    runs = [trained(tmp_path, built(kind), recipe, data) for recipe in (plain, other)]
    assert len(runs[0].curve) == len(runs[1].curve) == 3
    np.testing.assert_allclose(runs[1].curve, runs[0].curve, rtol=1e-4)
    np.testing.assert_allclose(runs[1].losses, runs[0].losses, rtol=1e-4)


def test_texts_are_clipped_one_by_one() -> None:
    # Norms of 5, 0.5 and 2 become 1, 0.5 and 1.
    found = gradient_of(POINTS, Privacy(clip_norm=1.0, noise_multiplier=0.0), expected=2.0)
    np.testing.assert_allclose(found, [(0.6 + 0.3) / 2, (0.8 + 0.4 - 1) / 2], rtol=1e-5)


@given(points=st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 2), min_size=1, max_size=5))
def test_no_text_moves_the_sum_by_more_than_the_norm(points: list[tuple[float, float]]) -> None:
    privacy = Privacy(clip_norm=0.5, noise_multiplier=0.0)
    with_it, without = (np.array(gradient_of(of, privacy, 1.0)) for of in (points, points[1:]))
    assert np.linalg.norm(with_it - without) <= 0.5 + 1e-5


@pytest.fixture
def gradients() -> Iterator[list[Tensor]]:
    """Those that each step is taken with, of all weights end to end."""
    found: list[Tensor] = []

    def keep(optimizer: Optimizer, *_: object) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        found.append(torch.cat([w.grad.flatten() for w in weights if w.grad is not None]))

    hook = register_optimizer_step_pre_hook(keep)
    yield found
    hook.remove()


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_a_step_is_the_mean_of_clipped_gradients_of_single_texts(
    kind: str, tmp_path: Path, gradients: list[Tensor]
) -> None:
    """The oracle computes each gradient in a model of its own."""
    for text in SAME_LENGTH:
        model = built(kind)
        recipe = private(UNBOUNDED, batch_tokens=100, epochs=1)
        trained(tmp_path, model, recipe, training_data(texts=[text]))
    # A longer one is cut to 1 by the recipe, which changes no direction.
    single = gradients[:]
    norms = [float(gradient.norm()) for gradient in single]
    clip_norm = min(norms) / 2
    model = built(kind)
    recipe = private(Privacy(clip_norm, 0.0), batch_tokens=100, epochs=1)
    trained(tmp_path, model, recipe, training_data(texts=SAME_LENGTH))
    expected = sum(g * clip_norm / n for g, n in zip(single, norms, strict=True)) / 3
    torch.testing.assert_close(gradients[-1], expected, rtol=1e-3, atol=1e-6)


def test_the_noise_has_the_stated_deviation_whatever_the_batch_holds() -> None:
    torch.manual_seed(0)
    weights = nn.Parameter(torch.zeros(100_000))
    set_private_gradients([weights], (), Privacy(clip_norm=0.5, noise_multiplier=3.0), 10.0)
    assert weights.grad is not None
    assert float(weights.grad.std()) == pytest.approx(3.0 * 0.5 / 10, rel=0.01)
    assert float(weights.grad.mean()) == pytest.approx(0.0, abs=0.002)


@given(num_batches=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_text_is_drawn_with_all_its_windows(num_batches: int, seed: int) -> None:
    windows = training_data().windows(BLOCK_SIZE)
    batches = poisson_batches(windows, num_batches, np.random.default_rng(seed))
    assert len(batches) == num_batches
    for batch in batches:
        is_drawn = np.isin(np.arange(len(windows)), batch)
        texts = windows.sequence[is_drawn]
        assert np.array_equal(is_drawn, np.isin(windows.sequence, texts))
    assert num_batches > 1 or len(batches[0]) == len(windows)


def test_texts_are_drawn_at_the_rate_that_epsilon_is_of() -> None:
    windows = training_data().windows(BLOCK_SIZE)
    rng = np.random.default_rng(0)
    draws = [batch for _ in range(500) for batch in poisson_batches(windows, 4, rng)]
    counts = np.bincount(np.concatenate(draws), minlength=len(windows))
    # 2,000 draws with probability 1 / 4: five deviations are 97.
    assert np.abs(counts - 500).max() < 97


def test_epsilon_is_that_of_the_accountant_step_by_step() -> None:
    accountant = RDPAccountant()
    for _ in range(1000):
        accountant.step(noise_multiplier=1.1, sample_rate=0.01)
    expected = accountant.get_epsilon(delta=1e-5)
    found = Accountant(sample_rate=0.01, num_steps=1000, delta=1e-5).epsilon(1.1)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx(1.7118, abs=1e-4)


def test_the_noise_for_an_epsilon_gives_it_and_hardly_less() -> None:
    accountant = Accountant(sample_rate=0.02, num_steps=100, delta=1e-5)
    noise = accountant.noise_for(4.0)
    assert accountant.epsilon(noise) <= 4.0 < accountant.epsilon(0.98 * noise)


def test_an_epsilon_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"epsilon that noise can reach in 10 steps .*got 0\.01"):
        Accountant(sample_rate=1.0, num_steps=10, delta=1e-9).noise_for(0.01)


def test_a_killed_run_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    whole = built(dropout=0.2)
    expected = outcome_of(whole, trained(tmp_path / "whole", whole, private()))
    trace, model = MemoryTrace(), built(dropout=0.2)
    kill_after(7, tmp_path / "killed", built(dropout=0.2), private(), trace)
    resumed = trained(tmp_path / "killed", model, private(), trace=trace)
    assert outcome_of(model, resumed) == expected
    other = built(dropout=0.2)
    assert outcome_of(other, trained(tmp_path / "other", other, private(seed=1))) != expected


def test_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^rule dp-sgd: expected one process, got 2"):
        train(
            built(),
            training_data(),
            Recipe(config_with(), BLOCK_SIZE, "float32", 0, privacy=PRIVATE),
            checkpoints=tmp_path,
            name="test",
            group=Group(0, 2),
        )
