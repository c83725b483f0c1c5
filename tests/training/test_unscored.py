"""Tokens without a loss, as of a prompt: they are seen and never predicted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.training.batches import TokenizedTexts, cut_windows
from gdc.training.losses import (
    sample_losses,
    sample_losses_from_tokens,
    token_losses,
    token_records,
)
from gdc.training.models import target_states
from tests.training.builders import (
    BLOCK_SIZE,
    END_OF_TEXT,
    HELDOUT,
    TEXTS,
    built,
    recipe_with,
    tokenized,
    trained,
    training_data,
)

RANDOM = np.random.default_rng(1)
HAS_LOSS = [RANDOM.random(len(text)) < 0.4 for text in TEXTS]
# A prompt of two windows, so that one window predicts nothing.
HAS_LOSS[4][:] = False
PARTLY = TokenizedTexts.from_ids(TEXTS, END_OF_TEXT, HAS_LOSS)


def nll_alone(model: torch.nn.Module, text: int) -> list[float]:
    """Loss of every id of a text and of its end, window by window, nothing padded or left out."""
    ids = [END_OF_TEXT, *TEXTS[text], END_OF_TEXT]
    found: list[float] = []
    for start in range(0, len(ids) - 1, BLOCK_SIZE):
        window = torch.tensor([ids[start : start + BLOCK_SIZE + 1]])
        everywhere = torch.ones_like(window[:, :-1], dtype=torch.bool)
        logits = target_states(model, window[:, :-1], everywhere).logits()
        found += F.cross_entropy(logits, window[0, 1:], reduction="none").tolist()
    return found


def scored_alone(model: torch.nn.Module, text: int) -> list[float]:
    scored = [*HAS_LOSS[text], True]
    return [nll for nll, is_scored in zip(nll_alone(model, text), scored, strict=True) if is_scored]


@pytest.mark.parametrize("kind", ["gpt2", "lstm"])
def test_losses_are_those_of_the_scored_tokens_behind_all_others(kind: str) -> None:
    model = built(kind).eval()
    expected = [scored_alone(model, text) for text in range(len(TEXTS))]
    assert PARTLY.num_tokens.tolist() == [len(of_text) for of_text in expected]
    mean = sample_losses(model, PARTLY, block_size=BLOCK_SIZE, batch_tokens=14)
    assert mean == pytest.approx([np.mean(of_text) for of_text in expected], rel=1e-5)
    nll = token_losses(model, PARTLY, block_size=BLOCK_SIZE, batch_tokens=14)
    flat = [value for of_text in expected for value in of_text]
    assert nll == pytest.approx(flat, rel=1e-4)
    assert (sample_losses_from_tokens(nll, PARTLY, block_size=BLOCK_SIZE) == mean).all()
    records = token_records(model, PARTLY, block_size=BLOCK_SIZE, batch_tokens=14)
    assert records.nll == pytest.approx(flat, rel=1e-4)
    places = [np.flatnonzero([*of_text, True]) for of_text in HAS_LOSS]
    assert records.position.tolist() == np.concatenate(places).tolist()
    assert records.sequence.tolist() == np.repeat(range(len(TEXTS)), PARTLY.num_tokens).tolist()


def test_a_window_that_predicts_nothing_is_not_asked_for() -> None:
    windows = cut_windows(PARTLY, BLOCK_SIZE)
    assert (windows.num_targets > 0).all()
    assert windows.num_targets.sum() == PARTLY.num_tokens.sum()
    assert len(cut_windows(tokenized(TEXTS), BLOCK_SIZE)) > len(windows)


def test_a_step_and_its_recorded_losses_are_of_scored_tokens(tmp_path: Path) -> None:
    data = replace(training_data(heldout=HELDOUT), texts=PARTLY)
    model = built()
    expected = [scored_alone(model.eval(), text) for text in range(len(TEXTS))]
    one_batch = recipe_with(batch_tokens=10_000, epochs=1, warmup_steps=0)
    recording = trained(tmp_path, model, one_batch, data)
    assert recording.losses[0] == pytest.approx([np.mean(of) for of in expected], rel=1e-5)
    flat = [value for of_text in expected for value in of_text]
    assert recording.curve[0][1] == pytest.approx(np.mean(flat), rel=1e-5)


def test_a_run_on_all_tokens_is_the_run_without_a_mask(tmp_path: Path) -> None:
    whole = [np.ones(len(text), dtype=bool) for text in TEXTS]
    data = training_data()
    masked = replace(data, texts=TokenizedTexts.from_ids(TEXTS, END_OF_TEXT, whole))
    runs = [
        trained(tmp_path / str(i), built(), recipe_with(), d) for i, d in enumerate((data, masked))
    ]
    assert [loss.tobytes() for loss in runs[0].losses] == [
        loss.tobytes() for loss in runs[1].losses
    ]
