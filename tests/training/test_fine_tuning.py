"""Fine-tuning a tiny pretrained model: adapters, fewer activations kept, the base's losses."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gdc.config import Lora, PretrainedModel
from gdc.errors import ConfigError
from gdc.training import models
from gdc.training.losses import sample_losses
from gdc.workspace.files import read_json
from tests.training.builders import (
    BLOCK_SIZE,
    END_OF_TEXT,
    VOCAB_SIZE,
    Killed,
    MemoryTrace,
    built,
    outcome_of,
    recipe_with,
    trained,
    training_data,
)

pytestmark = pytest.mark.slow

LORA = Lora(rank=2, alpha=4.0, dropout=0.0, target_modules=None)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A GPT-2 of width 8 and two layers, saved."""
    torch.set_num_threads(1)
    folder = tmp_path / "base"
    folder.mkdir()
    models.save_model(built(), folder)
    return folder


def started(base: Path, lora: Lora | None = LORA, *, checkpointing: bool = False) -> nn.Module:
    config = PretrainedModel(
        kind="pretrained", block_size=BLOCK_SIZE, precision="float32", name=str(base),
        revision=None, lora=lora, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    return models.build_model(config, vocab_size=VOCAB_SIZE, end_of_text=END_OF_TEXT, seed=0)


def losses_of(model: nn.Module) -> list[float]:
    texts = training_data().texts
    return [*map(float, sample_losses(model, texts, block_size=BLOCK_SIZE, batch_tokens=14))]


def test_adapters_start_at_nothing_and_alone_are_trained(base: Path, tmp_path: Path) -> None:
    model = started(base)
    assert losses_of(model) == pytest.approx(losses_of(models.load_model(base)), rel=1e-6)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    # Of the two layers' attention: rank 2 from width 8, and to three times width 8.
    assert sorted(trainable.values()) == [16, 16, 48, 48]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(tmp_path / "run", model, recipe_with())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {*trainable}


def test_a_trained_model_is_saved_whole_and_without_its_adapters(
    base: Path, tmp_path: Path
) -> None:
    model = started(base)
    trained(tmp_path / "run", model, recipe_with())
    adapted = losses_of(model)
    models.finish_training(model)
    assert losses_of(model) == pytest.approx(adapted, rel=1e-5)
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in models.load_model(base).named_parameters()]
    (tmp_path / "tuned").mkdir()
    models.save_model(model, tmp_path / "tuned")
    assert losses_of(models.load_model(tmp_path / "tuned")) == losses_of(model)
    assert read_json(tmp_path / "tuned/config.json")["gdc_lora"] == LORA.model_dump(mode="json")
    assert losses_of(model) != pytest.approx(losses_of(models.load_model(base)), rel=1e-3)
    models.finish_training(built("lstm"))


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
def test_activations_that_are_computed_again_change_nothing(
    lora: Lora | None, base: Path, tmp_path: Path
) -> None:
    runs = []
    for checkpointing in (False, True):
        model = started(base, lora, checkpointing=checkpointing)
        assert model.is_activation_checkpointing == checkpointing
        recording = trained(tmp_path / str(checkpointing), model, recipe_with())
        runs.append(outcome_of(model, recording))
    assert runs[0] == runs[1]


def test_the_losses_of_the_base_model_are_recorded_before_the_first_step(
    base: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe_with(), base_losses=True)
    recording = trained(tmp_path / "run", started(base), recipe)
    assert recording.base is not None
    expected = losses_of(models.load_model(base))
    assert recording.base.tolist() == pytest.approx(expected, rel=1e-6)
    assert trained(tmp_path / "other", started(base), recipe_with()).base is None


def test_a_killed_run_resumes_with_the_losses_of_the_base_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDC_CHECKPOINT_SECONDS", "0")
    recipe = replace(recipe_with(), base_losses=True)
    whole_model = started(base)
    whole = trained(tmp_path / "whole", whole_model, recipe)
    trace = KilledTrace()
    with pytest.raises(Killed):
        trained(tmp_path / "run", started(base), recipe, trace=trace)
    resumed_model = started(base)
    trace.lives = True
    resumed = trained(tmp_path / "run", resumed_model, recipe, trace=trace)
    assert outcome_of(resumed_model, resumed) == outcome_of(whole_model, whole)
    assert whole.base is not None
    assert resumed.base is not None
    assert resumed.base.tolist() == whole.base.tolist()


class KilledTrace(MemoryTrace):
    """Kills the run that writes its second checkpoint."""

    lives = False

    def append(self, losses, heldout):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        if not self.lives and len(self.losses) == 1:
            raise Killed
        super().append(losses, heldout)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("no_such_layer",), r"expected names of layers of gpt2, got \('no_such_layer',\)"),
        (("lm_head",), "expected layers before the head of the model"),
    ],
)
def test_layers_that_cannot_get_adapters_are_refused(
    modules: tuple[str, ...], message: str, base: Path
) -> None:
    lora = LORA.model_copy(update={"target_modules": modules})
    with pytest.raises(ConfigError, match=message):
        started(base, lora)


def test_without_peft_it_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'gendatacarto\[trainers\]'"):
        started(base)
