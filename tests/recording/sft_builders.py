"""A Trainer of TRL on the words of ``trainer_builders``, as prompts and completions."""

from pathlib import Path
from typing import Any

from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tests.recording.trainer_builders import (
    arguments,
    model_of,
    tokenizer_of,
    tokens_of_words,
    words,
)


def sft_of(folder: Path, model: Any = None, **changed: Any) -> tuple[SFTTrainer, Any]:
    """An SFTTrainer on prompts and completions, and their data set."""
    rows = [
        {"id": i * 10, "prompt": " ".join(sample[:2]), "completion": " " + " ".join(sample[2:])}
        for i, sample in enumerate(words())
    ]
    dataset = tokens_of_words().from_list(rows)
    config = SFTConfig(**arguments(folder, **{"max_length": 16, **changed}))
    trainer = SFTTrainer(
        model or model_of(), config, train_dataset=dataset, processing_class=tokenizer_of()
    )
    return trainer, dataset


def ids_of_prompts() -> dict[tuple[int, ...], str]:
    """The id of each sample by its tokens."""
    return {
        (*(int(word[1:]) + 2 for word in sample), 1): str(i * 10)
        for i, sample in enumerate(words())
    }
