"""Weights in labels, and the weighted loss in a trainer of other people."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from gdc.errors import ConfigError
from gdc.statistics.label_weights import weigh_labels
from gdc.training.losses import token_nll
from gdc.training.losses import weighted_loss as our_loss
from gdc.training.weighted_trainer import (
    WeightedCollator,
    split_labels,
    use_weights,
    weighted_loss,
)  # fmt: skip
from tests.builders import free_port
from tests.training.forked_ranks import SERVER

VOCABULARY = 11
END = "<end>"
# Lengths and weights of six samples.
WEIGHTS = (1.0, 0.25, 3.0, 0.0, 1.0, 0.5)
SAMPLES: list[dict[str, Any]] = [
    {"input_ids": [(7 * i + 3 * t) % VOCABULARY for t in range(4 + i)], "weight": weight}
    for i, weight in enumerate(WEIGHTS)
]


def test_ids_and_weights_come_out_as_they_went_in() -> None:
    weights = np.array([1.0, 0.1, 2.5, -0.5, 0.0, 1e-30], dtype=np.float32)
    labels = weigh_labels([4, 200_000, 0, 7, 9, 2**31 - 1], weights)
    assert labels[0] == 4
    ids, found = split_labels(torch.from_numpy(labels))
    assert ids.tolist() == [4, 200_000, 0, 7, -100, 2**31 - 1]
    assert found.tolist() == weights.tolist()
    ids, found = split_labels(torch.from_numpy(weigh_labels([-100, 3], 0.5)))
    assert (ids.tolist(), found.tolist()) == ([-100, 3], [0.0, 0.5])
    assert weigh_labels(labels, weights).tolist() == labels.tolist()


def by_hand(logits: torch.Tensor, samples: list[dict[str, Any]]) -> float:
    """Our own weighted loss of a padded batch."""
    nll, weights = [], []
    for row, sample in zip(logits, samples, strict=True):
        ids = torch.tensor(sample["input_ids"])
        nll.append(token_nll(row[: len(ids) - 1], ids[1:]))
        weights.append(torch.full((len(ids) - 1,), sample["weight"]))
    return float(our_loss(torch.cat(nll), torch.cat(weights), torch.cat(weights)))


def test_the_loss_is_that_of_our_own_training() -> None:
    batch = WeightedCollator(pad_token_id=0)(SAMPLES)
    logits = torch.randn(len(SAMPLES), batch["labels"].shape[1], VOCABULARY)
    found = weighted_loss({"logits": logits}, batch["labels"])
    assert float(found) == pytest.approx(by_hand(logits, SAMPLES), abs=1e-6)
    unit = WeightedCollator(pad_token_id=0)([{**s, "weight": 1.0} for s in SAMPLES])
    plain = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCABULARY), unit["labels"][:, 1:].reshape(-1)
    )
    assert float(weighted_loss({"logits": logits}, unit["labels"])) == pytest.approx(float(plain))


def test_a_batch_whose_weights_are_all_0_has_a_loss_of_0() -> None:
    batch = WeightedCollator(pad_token_id=0)([{**SAMPLES[0], "weight": 0.0}])
    assert float(weighted_loss({"logits": torch.randn(1, 4, VOCABULARY)}, batch["labels"])) == 0.0


class Losses(Trainer):
    """Keeps the loss of each part of an optimizer step."""

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        loss = super().compute_loss(*arguments, **named)
        assert isinstance(loss, torch.Tensor)
        self.parts = [*getattr(self, "parts", []), float(loss.detach())]
        return loss


def tiny_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=64, n_embd=8, n_layer=1, n_head=1,
            attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def trainer_of(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Losses:  # noqa: ANN401
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=1, learning_rate=0.0, report_to=[], disable_tqdm=True,
        save_strategy="no", use_cpu=True, **options,
    )  # fmt: skip
    return Losses(
        model=tiny_model(), args=arguments, train_dataset=datasets.Dataset.from_list(rows),
        data_collator=WeightedCollator(pad_token_id=0),
    )  # fmt: skip


def in_labels(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input_ids": sample["input_ids"],
        "labels": weigh_labels(sample["input_ids"], sample["weight"]).tolist(),
    }


def whole_loss(samples: list[dict[str, Any]]) -> float:
    batch = WeightedCollator(pad_token_id=0)(samples)
    with torch.no_grad():
        return by_hand(tiny_model().eval()(batch["input_ids"]).logits, samples)


@pytest.mark.parametrize(("size", "parts"), [(6, 1), (2, 3)])
def test_a_trainer_with_its_own_column_removal_takes_the_weights_however_it_cuts_the_batch(
    size: int, parts: int, tmp_path: Path
) -> None:
    trainer = trainer_of(
        [in_labels(sample) for sample in SAMPLES], tmp_path,
        per_device_train_batch_size=size, gradient_accumulation_steps=parts,
    )  # fmt: skip
    use_weights(trainer)
    trainer.train()
    assert len(trainer.parts) == parts
    assert sum(trainer.parts) == pytest.approx(whole_loss(SAMPLES), abs=1e-6)


def test_the_loss_function_alone_is_exact_in_one_part(tmp_path: Path) -> None:
    trainer = trainer_of(
        SAMPLES, tmp_path, per_device_train_batch_size=6, remove_unused_columns=False
    )
    trainer.compute_loss_func = weighted_loss
    trainer.train()
    assert trainer.parts == [pytest.approx(whole_loss(SAMPLES), abs=1e-6)]


def test_the_loss_function_alone_refuses_a_part_of_a_step(tmp_path: Path) -> None:
    trainer = trainer_of(
        [in_labels(sample) for sample in SAMPLES], tmp_path,
        per_device_train_batch_size=3, gradient_accumulation_steps=2,
    )  # fmt: skip
    trainer.compute_loss_func = weighted_loss
    with pytest.raises(ConfigError, match=r"expected the whole batch of a step.*gdc\.use_weights"):
        trainer.train()


def test_packed_samples_keep_their_weights() -> None:
    """Several samples in one row, the first label of each left out, as packing collators do."""
    packed: dict[str, list[int]] = {"input_ids": [], "labels": []}
    for sample in SAMPLES:
        packed["input_ids"] += sample["input_ids"]
        packed["labels"] += [-100, *in_labels(sample)["labels"][1:]]
    batch = WeightedCollator(pad_token_id=0)([packed])
    logits = torch.randn(1, len(packed["input_ids"]), VOCABULARY)
    starts = np.cumsum([0, *(len(s["input_ids"]) for s in SAMPLES)])
    rows = [logits[0, start:] for start in starts[:-1]]
    nll = [
        token_nll(row[: len(s["input_ids"]) - 1], torch.tensor(s["input_ids"][1:]))
        for row, s in zip(rows, SAMPLES, strict=True)
    ]
    weights = [torch.full((len(part),), s["weight"]) for part, s in zip(nll, SAMPLES, strict=True)]
    expected = our_loss(torch.cat(nll), torch.cat(weights), torch.cat(weights))
    found = weighted_loss({"logits": logits}, batch["labels"])
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


# TRL sets what transformers has deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("packing", [False, True])
def test_trls_own_padding_packing_and_column_removal_keep_the_weights(
    packing: bool, tmp_path: Path
) -> None:
    from trl.trainer.sft_config import SFTConfig  # noqa: PLC0415 - takes seconds
    from trl.trainer.sft_trainer import SFTTrainer  # noqa: PLC0415 - takes seconds

    class PartLosses(Losses, SFTTrainer):  # type: ignore[misc, unused-ignore]  # of an extra
        """Keeps the loss of each part of a step of TRL's trainer."""

    names = {name: row for row, name in enumerate("abcdefghi", start=1)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({END: 0, **names}, unk_token=END)),
        eos_token=END, pad_token=END,
    )  # fmt: skip
    arguments = SFTConfig(
        output_dir=str(tmp_path), max_steps=1, learning_rate=0.0, report_to=[], disable_tqdm=True,
        save_strategy="no", use_cpu=True, bf16=False, per_device_train_batch_size=2,
        gradient_accumulation_steps=3, packing=packing, max_length=16,
    )  # fmt: skip
    trainer = PartLosses(
        model=tiny_model(), args=arguments, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list([in_labels(sample) for sample in SAMPLES]),
    )  # fmt: skip
    use_weights(trainer)
    trainer.train()
    assert sum(trainer.parts) == pytest.approx(whole_loss(SAMPLES), abs=1e-6)


def train_as_rank(folder: Path, environment: Mapping[str, str], size: int) -> None:
    """One step of plain gradient descent on all samples; the weights go to a file of the rank."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    trainer = trainer_of(
        [in_labels(sample) for sample in SAMPLES], folder / "out", optim="sgd", max_grad_norm=0.0,
        per_device_train_batch_size=size, ddp_backend="gloo" if environment else None,
    )  # fmt: skip
    trainer.args.learning_rate = 0.5
    use_weights(trainer)
    trainer.train()
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.save(weights, folder / f"weights-{environment.get('RANK', 'alone')}.pt")
    if torch.distributed.is_initialized():
        # A forked process runs nothing at its exit.
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes_on_the_same_weights(tmp_path: Path) -> None:
    start = torch.cat([parameter.detach().flatten() for parameter in tiny_model().parameters()])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    processes = [
        SERVER.Process(target=train_as_rank, args=(tmp_path, environment, 3))
        for environment in ranks
    ]
    for process in processes:
        process.start()
    train_as_rank(tmp_path, {}, 6)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    alone, *both = (torch.load(tmp_path / f"weights-{name}.pt") for name in ("alone", "0", "1"))
    assert (alone - start).abs().max() > 1e-3
    for of_rank in both:
        torch.testing.assert_close(of_rank, alone, atol=1e-6, rtol=1e-5)
