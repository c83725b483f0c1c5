"""Params and source -> models, minutes and gigabytes of a run, from a short measurement."""

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from gdc.config import Arm, DpSgdArm, LiveArm, Params, PretrainedModel, PretrainedTokenizer
from gdc.corpus import sources
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.environment import workers
from gdc.training.batches import TokenizedTexts
from gdc.training.distributed import Group
from gdc.training.loop import Trainer
from gdc.training.models import build_model, on_device
from gdc.training.recipe import Recipe, TrainingData
from gdc.workspace import files, paths

MEASURE_SECONDS: Final = 3.0
READ_SECONDS: Final = 3.0
# Of a text of natural language under a vocabulary of some thousand pieces.
_CHARS_PER_TOKEN: Final = 3.5
# A frozen pass beside a forward and a backward pass.
_FROZEN: Final = 1 / 3
# A text that passes the model alone, beside one in a batch: 4 to 6 times as long where measured.
_ALONE: Final = 5
_BYTES: Final = 4


@dataclass(frozen=True)
class Estimate:
    """What the models of a run cost.

    Args:
        num_models: That are trained.
        num_tokens: Tokens of one pass over the training split.
        tokens_per_second: Of one model in training, as measured here and now; None: not measured.
        minutes: All trainings, so many at a time as the cores allow; None: not measured.
        gigabytes: What models and traces fill.
    """

    num_models: int
    num_tokens: int
    tokens_per_second: float | None
    minutes: float | None
    gigabytes: float


def estimate(
    params: Params, num_workers: int | None = None, *, is_counted: bool = True
) -> Estimate:
    """Estimate the cost of all trainings of a run; audits and other stages come on top.

    Args:
        params: Of the run.
        num_workers: Models trained at the same time; None: as the cores allow.
        is_counted: Whether the corpus of the last run, if there is one, is that of ``params``.
    """
    num_tokens, num_samples = count_tokens(params, is_counted=is_counted)
    num_models = params.num_models
    num_workers = num_workers or workers(params.training.num_threads)
    speed, num_weights = None, 0
    if not isinstance(params.model, PretrainedModel):
        speed, num_weights = measure(params)
    work = passes(params) * num_tokens
    num_checkpoints = params.training.epochs * (1 + params.train.probes_per_epoch)
    trace = len(params.train.seeds) * num_checkpoints * num_samples
    return Estimate(
        num_models=num_models,
        num_tokens=num_tokens,
        tokens_per_second=speed,
        minutes=None if speed is None else work / speed / min(num_workers, num_models) / 60,
        gigabytes=_BYTES * (num_models * num_weights + trace) / 1e9,
    )


def passes(params: Params) -> float:
    """Training passes over the training split that all models take together, frozen ones added."""
    epochs = params.training.epochs
    num_frozen = params.train.probes_per_epoch + params.train.self_influence
    tracked = len(params.train.seeds) * epochs * (1 + num_frozen * _FROZEN)
    references = len(params.reference.halves) * epochs / 2 + len(params.reference.models) * _FROZEN
    retrained = sum(_cost(params.intervene.rule_of(arm)) for arm in params.retrain.arms)
    return tracked + references + retrained * len(params.retrain.seeds) * epochs


def _cost(rule: Arm) -> float:
    """Of a pass, in those of an arm that keeps everything."""
    if isinstance(rule, DpSgdArm):
        return _ALONE
    return 1 + _FROZEN if isinstance(rule, LiveArm) else 1


def count_tokens(params: Params, *, is_counted: bool = True) -> tuple[int, int]:
    """Tokens and samples of the training split: counted by the last run, else by its characters.

    Of a source that takes longer than a few seconds to read only the beginning is counted.
    """
    if is_counted and paths.CORPUS_SUMMARY.exists():
        summary = files.read_json(paths.CORPUS_SUMMARY)
        return int(summary["num_train_tokens"]), int(summary["num_samples"])
    deadline = time.monotonic() + READ_SECONDS
    num_chars = num_samples = 0
    ingest = params.ingest
    tokenizer = None
    if ingest.source.kind == "tokens" and ingest.tokenizer.kind == "pretrained":
        tokenizer = load_pretrained_tokenizer(ingest.tokenizer.name, ingest.tokenizer.revision)
    for chunk in sources.read_chunks(
        ingest.source, max_chars=ingest.max_chars, seed=params.seed, tokenizer=tokenizer
    ):
        num_chars += int(chunk.rows["text"].str.len_chars().sum())
        num_samples += chunk.rows.height
        if time.monotonic() > deadline:
            break
    num_kept = min(num_samples, ingest.max_samples or num_samples)
    share = num_kept / max(1, num_samples) * (1 - ingest.validation_fraction)
    return max(1, round(num_chars * share / _CHARS_PER_TOKEN)), num_kept


def measure(params: Params, seconds: float = MEASURE_SECONDS) -> tuple[float, int]:
    """Train a model of params on noise for a moment.

    Returns:
        Tokens it trained on in a second, and its number of weights.
    """
    torch.set_num_threads(params.training.num_threads)
    tokenizer = params.ingest.tokenizer
    size = 32_000 if isinstance(tokenizer, PretrainedTokenizer) else tokenizer.vocab_size
    model = on_device(build_model(params.model, vocab_size=size, end_of_text=0, seed=0))
    recipe = Recipe(params.training, params.model.block_size, params.model.precision, seed=0)
    length = params.model.block_size - 1
    num_texts = max(2, params.training.batch_tokens // (length + 2)) * 1000
    ids = np.random.default_rng(0).integers(1, size, (num_texts, length))
    texts = TokenizedTexts.from_ids(ids.tolist(), 0)
    data = TrainingData.unweighted(texts, TokenizedTexts.from_ids([], 0))
    trainer = Trainer(model, data, replace(recipe, num_steps=10**6), None, Group())
    trainer.train_step()  # what is made once
    started, num_tokens = time.monotonic(), 0
    while (took := time.monotonic() - started) < seconds:
        num_tokens += trainer.train_step()
    return num_tokens / took, sum(weight.numel() for weight in model.parameters())
