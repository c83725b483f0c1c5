"""How much time recording takes: a tracked Trainer against an untracked one, and a probe.

Run: python benchmarks/recording.py [STEPS]. Each ratio is the median over pairs of turns, of
processor time, which other work on the machine changes least.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gdc

VOCABULARY, LENGTH, WIDTH, NUM_LAYERS, BATCH_SIZE = 2048, 128, 256, 4, 8
NUM_TURNS = 3


def model_of() -> GPT2LMHeadModel:
    """A GPT-2 of 3.7 million weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=NUM_LAYERS, n_head=4,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def samples_of(num_samples: int) -> Dataset:
    """Random tokens."""
    ids = torch.randint(VOCABULARY, (num_samples, LENGTH), generator=torch.Generator()).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def seconds_to_train(dataset: Dataset, folder: Path, *, is_tracked: bool) -> float:
    """One epoch."""
    arguments = TrainingArguments(
        str(folder / "model"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
        save_strategy="no", logging_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model_of(), arguments, train_dataset=dataset)
    if is_tracked:
        gdc.TraceCallback(folder / "trace").attach(trainer)
    started = time.process_time()
    trainer.train()
    return time.process_time() - started


def collate(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Samples of one length."""
    ids = torch.tensor([sample["input_ids"] for sample in samples])
    return {"input_ids": ids, "labels": ids}


def seconds_to_probe(dataset: Dataset, folder: Path) -> float:
    """Every sample's loss under the frozen model, recorded."""
    model, recorder = model_of(), gdc.TraceRecorder(folder / "probed", dataset)
    started = time.process_time()
    recorder.probe(model, collate, batch_size=BATCH_SIZE)
    recorder.close()
    return time.process_time() - started


@torch.no_grad()
def seconds_to_pass(dataset: Dataset) -> float:
    """The mean loss of each batch under the same model."""
    model = model_of().eval()
    started = time.process_time()
    for start in range(0, len(dataset), BATCH_SIZE):
        samples = [dataset[i] for i in range(start, min(start + BATCH_SIZE, len(dataset)))]
        model(**collate(samples), use_cache=False)
    return time.process_time() - started


def main() -> None:
    """Time both by turns."""
    torch.set_num_threads(1)
    dataset = samples_of(BATCH_SIZE * (int(sys.argv[1]) if len(sys.argv) > 1 else 20))
    tracked, probed = [], []
    for turn in range(NUM_TURNS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            order = (False, True) if turn % 2 else (True, False)
            seconds = {
                is_tracked: seconds_to_train(dataset, folder, is_tracked=is_tracked)
                for is_tracked in order
            }
            tracked.append(seconds[True] / seconds[False])
            probed.append(seconds_to_probe(dataset, folder) / seconds_to_pass(dataset))
    for name, ratios, bar in (
        ("tracked Trainer over untracked", tracked, 1.05),
        ("probe over a forward pass", probed, 1.1),
    ):
        shown = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
        sys.stdout.write(f"{name}: {statistics.median(ratios):.3f} (bar {bar}; {shown})\n")


if __name__ == "__main__":
    main()
