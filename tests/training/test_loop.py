"""Training: known steps, equal bytes, weights, copies, masks, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.errors import DataError
from gdc.training.batches import cut_windows, pad_windows
from gdc.training.losses import TargetLosses, sample_losses
from gdc.training.models import save_model, target_states
from gdc.training.recipe import TrainingData, count_steps
from tests.training.builders import (
    BLOCK_SIZE,
    TEXTS,
    built,
    masked_at,
    outcome_of,
    recipe_with,
    tokenized,
    trained,
    training_data,
    weights_of,
)


def test_one_step_is_a_step_of_adamw_on_the_weighted_loss(tmp_path: Path) -> None:
    weights = [1.0, 0.5, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0]
    data = training_data(weights)
    model, twin = built(), built().train()
    recipe = recipe_with(batch_tokens=10_000, num_steps=1, clip_norm=0.1, warmup_steps=0)
    recording = trained(tmp_path, model, recipe, data)
    windows = cut_windows(data.texts, BLOCK_SIZE)
    numerator, denominator = torch.zeros(()), 0.0
    for i in range(len(windows)):
        inputs, targets = (
            torch.from_numpy(a) for a in pad_windows(data.texts, windows, np.array([i]))
        )
        states = target_states(twin, inputs, torch.ones_like(targets, dtype=torch.bool))
        logits = states.logits()
        weight = weights[windows.sequence[i]]
        numerator = numerator + weight * nn.functional.cross_entropy(
            logits, targets[0], reduction="sum"
        )
        denominator += weight * len(targets[0])
    loss = numerator / denominator
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
    torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.01).step()
    assert recording.curve[0][1] == pytest.approx(loss.item(), abs=1e-5)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "curve", "train", "heldout"),
    [
        pytest.param(
            "lstm",
            [3.36496, 3.45877, 3.35408, 3.36568, 3.3353],
            [3.37416, 3.44376, 3.32072, 3.35797, 3.31023, 3.33172],
            [3.41014, 3.41014, 3.38441, 3.38441, 3.38094, 3.38094],
            id="lstm",
        ),
        pytest.param(
            "gpt2",
            [3.41104, 3.32817, 3.21873, 3.14706, 3.13653],
            [3.25854, 3.36316, 3.12318, 3.21494, 3.09944, 3.12492],
            [3.36457, 3.36457, 3.38677, 3.38677, 3.4044, 3.4044],
            id="gpt2",
        ),
    ],
)
def test_a_run_has_the_losses_it_had_in_earlier_versions(
    kind: str, curve: list[float], train: list[float], heldout: list[float], tmp_path: Path
) -> None:
    """Every fourth step's loss; mean losses at checkpoints: probe, online, probe, online, ..."""
    recording = trained(tmp_path, built(kind, dropout=0.2), recipe_with(probes_per_epoch=1))
    assert [loss for _, loss in recording.curve[::4]] == pytest.approx(curve, abs=1e-4)
    assert [loss.mean() for loss in recording.losses] == pytest.approx(train, abs=1e-4)
    assert [loss.mean() for loss in recording.heldout] == pytest.approx(heldout, abs=1e-4)


def test_no_pass_through_the_model_holds_gradients_of_the_step_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    forward = TargetLosses.forward

    def watched(self: TargetLosses, inputs: Tensor, targets: Tensor) -> Tensor:
        held.append(any(weight.grad is not None for weight in self.parameters()))
        return forward(self, inputs, targets)

    monkeypatch.setattr(TargetLosses, "forward", watched)
    recording = trained(tmp_path, built(), recipe_with(probes_per_epoch=1))
    assert len(held) > len(recording.curve) > 1
    assert not any(held)


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_one_seed_gives_equal_bytes_and_another_does_not(kind: str, tmp_path: Path) -> None:
    outcomes = []
    for seed in (0, 0, 1):
        model = built(kind, dropout=0.2)
        recording = trained(tmp_path, model, recipe_with(seed=seed, probes_per_epoch=1))
        outcomes.append(outcome_of(model, recording))
    assert outcomes[0] == outcomes[1]
    weights, losses, _, curve, *_ = outcomes[0]
    other_weights, other_losses, _, other_curve, *_ = outcomes[2]
    assert weights != other_weights
    assert losses != other_losses
    assert curve != other_curve


# ---- weights and copies


def test_weight_0_and_no_copies_are_the_same_absence(tmp_path: Path) -> None:
    models = [built(dropout=0.2) for _ in range(2)]
    weightless = trained(tmp_path, models[0], recipe_with(), training_data([*[1.0] * 9, 0.0]))
    copyless = trained(tmp_path, models[1], recipe_with(), training_data(copies=[*[1] * 9, 0]))
    assert outcome_of(models[0], weightless) == outcome_of(models[1], copyless)
    for losses in weightless.losses:
        assert np.isfinite(losses[:9]).all()
        assert np.isnan(losses[9])


def test_a_dropped_sample_is_absent(tmp_path: Path) -> None:
    dropped, absent = built(dropout=0.2), built(dropout=0.2)
    trained(tmp_path, dropped, recipe_with(), training_data(copies=[*[1] * 9, 0]))
    trained(tmp_path, absent, recipe_with(), training_data(texts=TEXTS[:9]))
    assert weights_of(dropped) == weights_of(absent)


def test_a_dropped_sample_is_still_probed(tmp_path: Path) -> None:
    data = training_data([*[1.0] * 9, 0.0])
    recording = trained(tmp_path, built(), recipe_with(probes_per_epoch=1, epochs=1), data)
    probe, online = recording.losses
    assert np.isfinite(probe).all()
    assert np.isnan(online).tolist() == [False] * 9 + [True]


def test_the_online_loss_of_copies_is_their_mean(tmp_path: Path) -> None:
    data, model = training_data(copies=[2, 1, 3, 1, 2, 1, 1, 1, 1, 1]), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recipe = recipe_with(batch_tokens=10_000, epochs=1)
    recording = trained(tmp_path, model, recipe, data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    tokens = data.texts.num_tokens * data.copies
    assert recording.curve[0][1] == pytest.approx(np.average(untrained, weights=tokens), abs=1e-5)


def test_a_weight_leaves_the_recorded_loss_alone(tmp_path: Path) -> None:
    data, model = training_data([0.1, 7.0, *[1.0] * 8]), built()
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=10_000, epochs=1), data)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)


# ---- masked tokens


def with_last_id(last: int, masked: NDArray[np.bool_] | None) -> TrainingData:
    """Texts whose very last id, which no token follows, is another."""
    data = training_data(masked=masked)
    data.texts.ids[-1] = last
    return data


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_what_a_masked_token_is_changes_no_weight(kind: str, tmp_path: Path) -> None:
    def weights_after(last: int, masked: NDArray[np.bool_] | None) -> bytes:
        model = built(kind, dropout=0.2)
        trained(tmp_path, model, recipe_with(), with_last_id(last, masked))
        return weights_of(model)

    masked = masked_at(-1)
    assert weights_after(3, masked) == weights_after(4, masked)
    assert weights_after(3, None) != weights_after(4, None)
    assert weights_after(3, masked) != weights_after(3, None)
    assert weights_after(3, masked_at()) == weights_after(3, None)


def test_the_loss_is_the_mean_over_unmasked_tokens_and_samples_keep_all_of_theirs(
    tmp_path: Path,
) -> None:
    texts, model = [[1, 2, 3], [4, 5]], built()
    masked = np.zeros(9, dtype=bool)
    masked[[1, 2, 3, 4]] = True  # all that the first text predicts
    data = training_data(texts=texts, masked=masked)
    untrained = sample_losses(model, data.texts, block_size=BLOCK_SIZE, batch_tokens=99)
    recording = trained(tmp_path, model, recipe_with(batch_tokens=99, epochs=1), data)
    assert recording.curve[0][1] == pytest.approx(untrained[1], abs=1e-5)
    assert recording.losses[0].tolist() == pytest.approx(untrained.tolist(), abs=1e-5)
    assert recording.num_masked_tokens == 4


def test_a_batch_that_is_masked_as_a_whole_teaches_nothing(tmp_path: Path) -> None:
    data = training_data(masked=np.ones(len(tokenized(TEXTS).ids), dtype=bool))
    model, recipe = built(), recipe_with(weight_decay=0.0)
    before = weights_of(model)
    recording = trained(tmp_path, model, recipe, data)
    assert weights_of(model) == before
    assert len(recording.curve) == count_steps(training_data(), recipe)
    assert {loss for _, loss in recording.curve} == {0.0}


# ---- refusals and bfloat16


@pytest.mark.parametrize("num_steps", [1, 2, None])
def test_a_diverging_run_is_refused_at_once(num_steps: int | None, tmp_path: Path) -> None:
    recipe = recipe_with(learning_rate=1e39, warmup_steps=0, num_steps=num_steps)
    with pytest.raises(DataError, match=r"finite .* at step 1\. Lower .*rate \(1e\+39\)"):
        trained(tmp_path, built(), recipe)


@pytest.mark.parametrize("kind", ["lstm", "gpt2"])
def test_bfloat16_trains_float32_weights(kind: str, tmp_path: Path) -> None:
    recipe = recipe_with(precision="bfloat16", epochs=2, batch_tokens=100, probes_per_epoch=1)
    data = training_data(texts=[[1, 2, 3], [4, 5]])
    outcomes = []
    for _ in range(2):
        model = built(kind)
        recording = trained(tmp_path, model, recipe, data)
        outcomes.append(outcome_of(model, recording))
    assert outcomes[0] == outcomes[1]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    plain = trained(tmp_path, built(kind), recipe_with(epochs=2, batch_tokens=100), data)
    assert recording.curve[0][1] == pytest.approx(plain.curve[0][1], rel=0.01)
    assert recording.curve != plain.curve


def test_on_a_processor_bfloat16_leaves_attention_in_float32(tmp_path: Path) -> None:
    recipe = recipe_with(precision="bfloat16", epochs=1, batch_tokens=100)
    attend, asked = F.scaled_dot_product_attention, set[torch.dtype]()

    def noting(query: Tensor, *others: Any, **options: Any) -> Tensor:  # noqa: ANN401 - as it has
        asked.add(query.dtype)
        return attend(query, *others, **options)

    model = built("gpt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", noting)
        recording = trained(tmp_path, model, recipe)
    assert asked == {torch.float32}
    assert all(np.isfinite(loss) for _, loss in recording.curve)
    # Nothing of it stays in what is saved.
    save_model(model, tmp_path)
    assert "gdc" not in (tmp_path / "config.json").read_text()
