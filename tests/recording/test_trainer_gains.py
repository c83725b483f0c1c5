"""What the steps of a Trainer taught of their samples: as each sample alone gives it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorWithFlattening, Trainer, TrainerCallback, TrainingArguments

import gdc
from gdc.commands.map_corpus import Request, run
from gdc.errors import ConfigError, DataError
from gdc.recording.transformers import TraceCallback
from tests.recording.gain_witness import GainWitness
from tests.recording.sft_builders import ids_of_prompts, sft_of
from tests.recording.test_gains import FILE, gains_of
from tests.recording.trainer_builders import (
    arguments,
    model_of,
    pad,
    tokens_of_words,
    trainer_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about each other


def train(trainer: Trainer, folder: Path, dataset: Any = None, **more: Any) -> None:
    TraceCallback(folder / "trace", dataset, gains=True).attach(trainer)
    trainer.train(**more)


def weights_of(trainer: Trainer) -> torch.Tensor:
    model: Any = trainer.model
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def dropping() -> Any:
    """A model half of whose numbers are dropped in training."""
    model: Any = model_of()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    return model


class Drawing(TrainerCallback):
    """Draws a number between the passes of a step and the step, as an optimizer may."""

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        torch.rand(1)


# ---- what is recorded


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="accumulated"),
        pytest.param({"gradient_accumulation_steps": 4}, id="epochs that end within a step"),
        pytest.param({"gradient_checkpointing": True}, id="with checkpoints of the gradient"),
        pytest.param({"label_smoothing_factor": 0.1}, id="smoothed, so the model sees no labels"),
    ],
)
def test_gains_are_those_of_each_sample_alone(changed: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **changed)
    witness = GainWitness(trainer)
    train(trainer, tmp_path)
    ids = {tuple(row["input_ids"]): place for place, row in enumerate(tokens_of_words())}
    witness.require(gains_of(tmp_path / "trace"), ids)


def test_gains_of_samples_that_share_a_row_are_their_own(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.data_collator = DataCollatorWithFlattening(return_position_ids=True)
    witness = GainWitness(trainer)
    train(trainer, tmp_path)
    ids = {tuple(row["input_ids"]): place for place, row in enumerate(tokens_of_words())}
    witness.require(gains_of(tmp_path / "trace"), ids)


@pytest.mark.slow
def test_gains_of_an_adapter_in_rows_that_trl_has_packed(tmp_path: Path) -> None:
    lora = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["c_attn"], r=2, init_lora_weights=False
    )
    trainer, dataset = sft_of(tmp_path, get_peft_model(model_of(), lora), packing=True)
    witness = GainWitness(trainer)
    train(trainer, tmp_path, dataset)
    places = {str(name): place for place, name in enumerate(dataset["id"])}
    ids = {tokens: places[name] for tokens, name in ids_of_prompts().items()}
    witness.require(gains_of(tmp_path / "trace"), ids)


def test_with_dropout_gains_do_not_change_the_training_and_steps_of_length_zero_gain_nothing(
    tmp_path: Path,
) -> None:
    trained = []
    for is_tracked in (False, True):
        trainer = trainer_of(tmp_path, dropping())
        trainer.add_callback(Drawing())
        if is_tracked:
            train(trainer, tmp_path)
        else:
            trainer.train()
        trained.append(weights_of(trainer))
    assert torch.equal(*trained)
    still = trainer_of(tmp_path / "still", dropping(), learning_rate=0.0)
    train(still, tmp_path / "still")
    gains = gains_of(tmp_path / "still/trace")
    assert gains == [0.0] * len(gains)


def test_what_a_model_counts_of_its_passes_in_training_stays_what_it_was(tmp_path: Path) -> None:
    """As a batch norm does."""

    def count(part: Any, *_: Any) -> None:
        part.passes += part.training

    counted = []
    for is_tracked in (False, True):
        model: Any = model_of()
        model.transformer.register_buffer("passes", torch.zeros(()))
        model.transformer.register_forward_pre_hook(count)
        trainer = trainer_of(tmp_path, model)
        if is_tracked:
            train(trainer, tmp_path)
        else:
            trainer.train()
        counted.append(model.transformer.passes.item())
    assert counted[0] == counted[1] > 0


def test_the_map_of_a_trainers_trace_has_the_score_that_reads_gains(tmp_path: Path) -> None:
    """As docs/guides/trainer.md says."""
    rows = list(tokens_of_words())
    unseen = [row | {"id": f"unseen-{i}"} for i, row in enumerate((rows * 2)[:20])]
    for name, of in (("my", rows), ("held", unseen)):
        lines = [
            json.dumps({"id": r["id"], "text": f"{i} {r['input_ids']}"}) for i, r in enumerate(of)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    trainer = trainer_of(tmp_path)
    heldout = Dataset.from_list(unseen)
    callback = TraceCallback(tmp_path / "trace", None, heldout, probe_every=3, gains=True)
    callback.attach(trainer)
    trainer.train()
    request = Request(
        tmp_path / "trace", str(tmp_path / "my.jsonl"), heldout=str(tmp_path / "held.jsonl")
    )
    report = run(request, tmp_path / "map", 3)
    assert report.quadrants.axis == "influence_contrast"
    assert any("the map has influence_contrast" in told for told in report.warnings)
    # At the end of each epoch and at each probe, of the third step and the sixth.
    unseen_losses = [
        pl.read_parquet(path).to_series()
        for path in sorted((tmp_path / "trace/heldout").glob("loss_*.parquet"))
    ]
    assert all(losses.null_count() == 0 for losses in unseen_losses)
    _, *after_three = unseen_losses
    assert after_three[0].to_list() == pytest.approx(after_three[1].to_list(), abs=1e-6)


# ---- what is refused


def trainer_with(args: dict[str, Any], **accelerator: Any) -> Any:
    usual = {
        "n_gpu": 0, "torch_compile": False, "device": torch.device("cpu"), "packing": False,
        "packing_strategy": "bfd",
    }  # fmt: skip
    return SimpleNamespace(
        args=SimpleNamespace(**usual | args),
        accelerator=SimpleNamespace(**{"distributed_type": "NO"} | accelerator),
    )


@pytest.mark.parametrize(
    ("trainer", "got"),
    [
        (trainer_with({}, distributed_type="FSDP"), r"one in parts \(FSDP\)"),
        (trainer_with({}, distributed_type="DEEPSPEED"), r"one in parts \(DEEPSPEED\)"),
        (trainer_with({}, parallelism_config=object()), r"one in parts \(parallelism_config\)"),
        (trainer_with({"n_gpu": 2}), r"copies of it on 2 GPUs, which a launcher prevents"),
        (trainer_with({"torch_compile": True}), r"a compiled one \(torch_compile\)"),
        (trainer_with({"device": torch.device("meta")}), r"one on a device meta"),
        (
            trainer_with({"packing": True, "packing_strategy": "bfd_split"}),
            r"samples that are cut \(packing_strategy='bfd_split'\)",
        ),
    ],
)
def test_a_model_whose_passes_cannot_be_made_again_is_refused(
    trainer: Any, got: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"gains: expected a whole model .*, got {got}\."):
        TraceCallback(tmp_path / "trace", gains=True).attach(trainer)
    assert not (tmp_path / "trace").exists()


def test_a_model_that_hides_its_logits_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    forward = trainer.compute_loss

    def fused(model: Any, inputs: Any, *args: Any, **kept: Any) -> Any:
        # As a fused loss does.
        hook = model.register_forward_hook(
            lambda _, __, outputs: outputs | {"logits": None}, prepend=True
        )
        try:
            return forward(model, inputs, *args, **kept)
        finally:
            hook.remove()

    trainer.compute_loss = fused  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"gains: expected losses from the training pass, got"):
        train(trainer, tmp_path)


def test_a_run_that_began_without_gains_does_not_go_on_with_them(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 2}
    trainer = trainer_of(tmp_path, **saved)
    TraceCallback(tmp_path / "trace").attach(trainer)
    trainer.train()
    checkpoint = tmp_path / "model/checkpoint-2"
    for _ in range(2):
        with pytest.raises(DataError, match=r"expected the gains of the 2 steps before, got none"):
            train(trainer_of(tmp_path, **saved), tmp_path, resume_from_checkpoint=str(checkpoint))
        # Nor where nothing is known of what was recorded.
        (checkpoint / "gdc_trace.pt").unlink(missing_ok=True)
    assert not (tmp_path / "trace" / FILE).exists()
    assert gdc.load_trace(tmp_path / "trace").checkpoints.height == 2


def test_a_run_that_goes_on_without_gains_leaves_none(tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 2}
    train(trainer_of(tmp_path, **saved), tmp_path)
    assert None not in gains_of(tmp_path / "trace")
    TraceCallback(tmp_path / "trace").attach(trainer := trainer_of(tmp_path, **saved))
    trainer.train(resume_from_checkpoint=str(tmp_path / "model/checkpoint-2"))
    assert not (tmp_path / "trace" / FILE).exists()


def test_arguments_are_of_a_trainer(tmp_path: Path) -> None:
    """The refusals above read what a real one has."""
    args = TrainingArguments(**arguments(tmp_path))
    trainer = Trainer(model_of(), args, train_dataset=tokens_of_words(), data_collator=pad)
    TraceCallback(tmp_path / "trace", gains=True).attach(trainer)
