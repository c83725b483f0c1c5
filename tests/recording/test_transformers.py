"""What a Trainer trains on is recorded as each sample alone would give it, whatever it does."""

import functools
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

import gdc
from gdc.errors import ConfigError, DataError
from gdc.recording.transformers import TraceCallback
from tests.builders import REPOSITORY
from tests.recording.gain_witness import assert_gains_are_whole
from tests.recording.loops import IDS, LOOPS
from tests.recording.sft_builders import ids_of_prompts, sft_of
from tests.recording.trainer_builders import (
    NUM_SAMPLES,
    Witness,
    arguments,
    model_of,
    pad,
    recorded,
    tokens_of_words,
    trainer_of,
    words,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about each other


def ids_of_tokens() -> dict[tuple[int, ...], str]:
    tokens = tokens_of_words()
    return {tuple(ids): name for ids, name in zip(tokens["input_ids"], tokens["id"], strict=True)}


def assert_agrees(folder: Path, witness: Witness, names: dict[tuple[int, ...], str]) -> None:
    """Every sample's recorded loss is that of a plain forward pass of it alone."""
    epochs = recorded(folder)
    assert len(epochs) == len(witness.losses()) == 2
    for found, expected in zip(epochs, witness.losses(), strict=True):
        assert len(expected) == NUM_SAMPLES
        assert found == {
            names[ids]: pytest.approx(loss, rel=1e-5) for ids, loss in expected.items()
        }


# ---- transformers.Trainer


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="accumulated"),
        pytest.param({"seed": 4}, id="shuffled otherwise"),
        pytest.param({"train_sampling_strategy": "group_by_length"}, id="grouped by length"),
        pytest.param({"dataloader_num_workers": 2}, id="loaded by two workers"),
        pytest.param({"label_smoothing_factor": 0.1}, id="smoothed, so the model sees no labels"),
        pytest.param({"gradient_accumulation_steps": 4}, id="epochs that end within a step"),
    ],
)
def test_recorded_losses_are_those_of_each_sample_alone(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, **changed)
    TraceCallback(tmp_path / "trace").attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    assert_agrees(tmp_path / "trace", witness, ids_of_tokens())


def test_a_batch_that_is_one_row_of_samples_is_recorded_apart(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.data_collator = DataCollatorWithFlattening(return_position_ids=True)
    TraceCallback(tmp_path / "trace").attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    assert_agrees(tmp_path / "trace", witness, ids_of_tokens())


def test_recording_does_not_change_the_training(tmp_path: Path) -> None:
    trained = []
    for is_tracked in (False, True):
        trainer = trainer_of(tmp_path)
        if is_tracked:
            TraceCallback(
                tmp_path / "trace", heldout=tokens_of_words(), probe_every=2, token_losses=True
            ).attach(trainer)
        trainer.train()
        model: Any = trainer.model
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*trained)
    checkpoints = gdc.load_trace(tmp_path / "trace").checkpoints
    assert checkpoints.select("step", "mode").rows() == [
        (0, "probe"), (2, "probe"), (3, "online"), (4, "probe"), (6, "probe"), (6, "online"),
    ]  # fmt: skip
    assert checkpoints["learning_rate"][0] is None
    assert checkpoints["learning_rate"][1:].to_list() == pytest.approx(
        [1e-2 * share for share in (5 / 6, 4 / 6, 3 / 6, 1 / 6, 1 / 6)]
    )
    last = recorded(tmp_path / "trace", "probe")[-1]
    tokens = pl.read_parquet(tmp_path / "trace/tokens.parquet")
    assert tokens.select("early_checkpoint", "late_checkpoint").row(0) == (0, 4)
    model.eval()
    for row in tokens_of_words():
        batch = pad([{name: row[name] for name in ("input_ids", "labels")}])
        assert last[row["id"]] == pytest.approx(float(model(**batch).loss.detach()), rel=1e-5)
        # Token by token, too; the first that has a loss is the third.
        logits = model(input_ids=batch["input_ids"]).logits[0, 1:-1].detach()
        expected = F.cross_entropy(logits, batch["labels"][0, 2:], reduction="none")
        of_tokens = tokens.row(by_predicate=pl.col("sample_id") == row["id"], named=True)
        assert of_tokens["late"] == pytest.approx(expected.tolist(), rel=1e-5)
        assert of_tokens["token_ids"] == row["labels"][2:]


@pytest.mark.slow
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_run_that_resumes_has_the_trace_of_one_that_was_not_killed(
    is_packed: bool, tmp_path: Path
) -> None:
    saved = {"save_strategy": "steps", "save_steps": 1}
    one_row = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}

    def train(folder: Path, checkpoint: str | None) -> dict[str, bytes]:
        trainer, dataset = trainer_of(folder, **saved), None
        if is_packed:
            trainer, dataset = sft_of(folder, packing=True, **one_row, **saved)
        TraceCallback(folder / "trace", dataset, gains=True).attach(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
        return {path.name: path.read_bytes() for path in (folder / "trace").rglob("*.parquet")}

    whole = train(tmp_path / "whole", None)
    assert "self_influence.parquet" in whole
    for step in (2, 3, 4):
        # It had gone on after the checkpoint from which it resumes.
        killed = tmp_path / f"killed-{step}"
        shutil.copytree(tmp_path / "whole", killed)
        assert train(killed, str(killed / f"model/checkpoint-{step}")) == whole, step


def test_a_model_that_hides_its_logits_is_probed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of()
    forward = model.forward

    @functools.wraps(forward)
    def fused(*args: Any, **kwargs: Any) -> Any:
        outputs = forward(*args, **kwargs)
        return CausalLMOutput(loss=outputs.loss) if model.training else outputs

    model.forward = fused
    trainer = trainer_of(tmp_path, model)
    TraceCallback(tmp_path / "trace").attach(trainer)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "the model gives no logits, as its loss is fused: losses cannot come from" in caplog.text
    assert gdc.load_trace(tmp_path / "trace").checkpoints["mode"].to_list() == ["probe", "probe"]


def test_what_cannot_be_recorded_says_what_is_missing(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.add_callback(TraceCallback(tmp_path / "trace"))
    with pytest.raises(ConfigError, match=r"expected attach\(trainer\) before train"):
        trainer.train()
    trainer = trainer_of(tmp_path)
    TraceCallback(tmp_path / "trace", id_column="key").attach(trainer)
    with pytest.raises(ConfigError, match=r"expected a column 'key' .*, got \['id', 'note', "):
        trainer.train()
    stream = tokens_of_words().select_columns(["input_ids", "labels"]).to_iterable_dataset()
    args = TrainingArguments(**arguments(tmp_path, max_steps=2))
    trainer = Trainer(model_of(), args, train_dataset=stream, data_collator=pad)
    TraceCallback(tmp_path / "trace").attach(trainer)
    with pytest.raises(ConfigError, match="expected a data set whose samples have row numbers"):
        trainer.train()


def test_another_run_does_not_go_into_the_trace_of_the_first(tmp_path: Path) -> None:
    for is_first in (True, False):
        trainer = trainer_of(tmp_path, num_train_epochs=1)
        TraceCallback(tmp_path / "trace").attach(trainer)
        if is_first:
            trainer.train()
        else:
            with pytest.raises(DataError, match=r"expected no trace yet, got one of 1 checkpoints"):
                trainer.train()


# ---- TRL


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({}, id="padded"),
        pytest.param({"completion_only_loss": False, "seed": 4}, id="loss on prompts too"),
        pytest.param({"packing": True}, id="packed"),
        pytest.param({"packing": True, "shuffle_dataset": True, "seed": 4}, id="packed, shuffled"),
        pytest.param({"padding_free": True, "max_length": None}, id="without padding"),
        pytest.param({"train_sampling_strategy": "group_by_length"}, id="grouped by length"),
        pytest.param({"loss_type": "dft"}, id="another loss than the one recorded"),
        pytest.param({"shuffle_dataset": True}, id="in another order than the data set"),
    ],
)
def test_what_trl_trains_on_is_recorded(changed: dict[str, Any], tmp_path: Path) -> None:
    trainer, dataset = sft_of(tmp_path, **changed)
    TraceCallback(tmp_path / "trace", dataset).attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    assert_agrees(tmp_path / "trace", witness, ids_of_prompts())
    index = gdc.load_trace(tmp_path / "trace").samples.collect()
    prompts = 0 if changed.get("completion_only_loss") is False else 1
    assert index["num_tokens"].to_list() == [len(sample) - prompts for sample in words()]


@pytest.mark.slow
def test_an_adapter_of_peft_is_recorded(tmp_path: Path) -> None:
    lora = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["c_attn"], r=2, init_lora_weights=False
    )
    trainer, _ = sft_of(tmp_path, get_peft_model(model_of(), lora))
    TraceCallback(tmp_path / "trace", probe_every=3).attach(trainer)
    witness = Witness(trainer)
    trainer.train()
    found, expected = recorded(tmp_path / "trace"), witness.losses()
    for epoch in range(2):
        losses = sorted(loss for loss in found[epoch].values() if loss is not None)
        assert losses == pytest.approx(sorted(expected[epoch].values()), rel=1e-5)
    assert len(recorded(tmp_path / "trace", "probe")) == 3


@pytest.mark.slow
def test_packing_without_marks_is_probed_and_packing_without_the_data_set_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, dataset = sft_of(tmp_path, packing=True, packing_strategy="wrapped")
    TraceCallback(tmp_path / "trace", dataset).attach(trainer)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "packing cuts through samples without a mark: losses cannot come from" in caplog.text
    assert len(recorded(tmp_path / "trace", "probe")) == 2
    trainer, dataset = sft_of(tmp_path, packing=True)
    TraceCallback(tmp_path / "other").attach(trainer)
    with pytest.raises(ConfigError, match=r"expected the data set that SFTTrainer was given, as"):
        trainer.train()
    trainer, dataset = sft_of(tmp_path, packing=True)
    TraceCallback(tmp_path / "other", dataset.select(range(9))).attach(trainer)
    with pytest.raises(ConfigError, match=r"expected each packed sample in the data set, got one"):
        trainer.train()


# ---- several processes


@pytest.mark.slow
def test_two_processes_record_what_one_records(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.recording.train_on_two", str(tmp_path), "2"],
        cwd=REPOSITORY, check=True, timeout=400,
    )  # fmt: skip
    names: dict[str, dict[Any, str]] = {
        "trainer": ids_of_tokens(),
        "sft": ids_of_prompts(),
        "sharded": {row: str(row) for row in range(NUM_SAMPLES)},
        **{loop: dict(enumerate(IDS)) for loop in LOOPS},
    }
    for kind, name_of in names.items():
        folder = tmp_path / kind
        assert len(list((folder / "trace/train").glob("shard_*/loss_001.parquet"))) == 2
        expected = [torch.load(folder / f"witness-{rank}.pt") for rank in (0, 1)]
        epochs = recorded(folder / "trace")
        assert len(epochs) == 2
        if kind == "sharded":
            epochs += recorded(folder / "trace", "probe")
            probed = epochs[-1]
        for epoch, found in enumerate(epochs):
            sums: dict[str, list[float]] = {}
            for of_rank in expected:
                for sample, (total, count) in of_rank[epoch].items():
                    entry = sums.setdefault(name_of[sample], [0.0, 0])
                    entry[0], entry[1] = entry[0] + total, entry[1] + count
            assert len(sums) == NUM_SAMPLES
            assert found == {
                name: pytest.approx(total / count, rel=1e-5)
                for name, (total, count) in sums.items()
            }, kind
    assert_gains_are_whole(tmp_path / "trainer", names["trainer"], 2)
    assert_gains_are_whole(tmp_path / "lightning", names["lightning"], 2)
    # The same model looks at held-out samples at the end of the last epoch and in the probe there.
    ends = [tmp_path / f"trainer/trace/heldout/loss_00{number}.parquet" for number in (1, 2)]
    online, last = (pl.read_parquet(end).to_series().to_list() for end in ends)
    assert online == pytest.approx(last, abs=1e-6)
    # Each process has looked at half of the samples, and one has written the tokens of all.
    tokens = pl.read_parquet(tmp_path / "sharded/trace/tokens.parquet")
    means = dict(zip(tokens["sample_id"], tokens["late"].list.mean(), strict=True))
    assert means == {name: pytest.approx(of, rel=1e-6) for name, of in probed.items()}
