"""Params and tokenized samples -> a trained model, its curves and files, for stages that train."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from gdc.config import Model, Params
from gdc.corpus.chat import with_unscored
from gdc.corpus.tokenizer import TextTokenizer, load_tokenizer, text_chunks, tokens_with_loss
from gdc.filesystem import durable, table_files
from gdc.filesystem.json_values import JsonObject
from gdc.training import loop, losses, models
from gdc.training.batches import TokenizedTexts
from gdc.training.distributed import Group
from gdc.training.recipe import Recipe, TrainingData
from gdc.training.recording import Recording, TraceSink
from gdc.workspace import files, paths, tables, tracking
from gdc.workspace.tracking import StageRun


class Evaluate(Protocol):
    """Losses of texts under a model: ``losses.sample_losses`` or ``losses.token_losses``."""

    def __call__(  # noqa: D102  # the class says it
        self,
        model: nn.Module,
        texts: TokenizedTexts,
        *,
        block_size: int,
        batch_tokens: int,
        group: Group,
    ) -> NDArray[np.floating]: ...


class LiveCurve:
    """Logs the loss of a training run, and what the machine does, every few seconds."""

    def __init__(self, stage: StageRun, seconds: float = 10.0) -> None:
        self._stage, self._seconds = stage, seconds
        self._logged = time.monotonic()
        self._process = psutil.Process()
        self._process.cpu_percent()

    def __call__(self, recording: Recording) -> None:
        """Log what is new, if it is time; a store that does not answer stops no training."""
        now = time.monotonic()
        if now - self._logged < self._seconds:
            return
        self._logged = now
        system = {
            "system/cpu_utilization_percentage": self._process.cpu_percent(),
            "system/system_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
        }
        with tracking.second_failure("log the loss so far"):
            self._stage.log_curve("train_loss", recording.curve)
            self._stage.log_metrics(system, step=recording.curve[-1][0])


@contextmanager
def stage_run(group: Group, stage: str, params: JsonObject, cell: str) -> Iterator[StageRun | None]:
    """Run of a stage that trains: the main process writes and logs, the others get None."""
    if group.is_main:
        with tracking.stage_run(stage, params, cell=cell) as run:
            yield run
    else:
        yield None


def samples_of(split: str) -> pl.DataFrame:
    """``sample_id`` of the samples in a split, in the order of the corpus."""
    return tables.scan("corpus").filter(pl.col("split") == split).select("sample_id").collect()


def read_texts(samples: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Texts of samples of the corpus, in its order, a chunk at a time.

    Args:
        samples: Table with ``sample_id`` in the order of the corpus.

    Yields:
        ``sample_id``, ``content_id`` and ``text``, and of conversations ``unscored``.
    """
    turns, asked = tables.read("turns"), samples.select("sample_id")
    for chunk in tables.chunks("corpus", ["sample_id", "content_id", "text"]):
        chosen = chunk.join(asked, on="sample_id", how="semi", maintain_order="left")
        yield with_unscored(chosen, turns)


def tokenize(samples: Iterable[pl.DataFrame], tokenizer: TextTokenizer) -> TokenizedTexts:
    """Token sequences of the column ``text`` of all tables, in row order, in a file.

    Spans in ``unscored`` carry no loss.
    """
    return TokenizedTexts.on_disk(
        part for table in samples for part in _tokenized_parts(table, tokenizer)
    )


def _tokenized_parts(samples: pl.DataFrame, tokenizer: TextTokenizer) -> Iterator[TokenizedTexts]:
    first = 0
    for part in text_chunks(samples["text"]):
        if "unscored" in samples.columns:
            ids, offsets = tokenizer.encode_with_offsets(part.to_list())
            unscored = samples["unscored"].slice(first, len(part)).to_list()
            has_loss = tokens_with_loss(offsets, unscored)
        else:
            ids, has_loss = tokenizer.encode(part.to_list()), None
        yield TokenizedTexts.from_ids(ids, tokenizer.end_of_text, has_loss)
        first += len(part)


def recipe_from(params: Params, seed: int) -> Recipe:
    """Recipe of params.yaml, without probes."""
    return Recipe(params.training, params.model.block_size, params.model.precision, seed)


def fit(  # noqa: PLR0913  # what is trained, how, and where it is kept
    params: Params,
    tokenizer: TextTokenizer,
    data: TrainingData,
    recipe: Recipe,
    *,
    group: Group,
    name: str,
    trace: TraceSink | None = None,
    stage: StageRun | None = None,
) -> tuple[nn.Module, Recording]:
    """Train a fresh model on the device that ``GDC_DEVICE`` names (default: cpu).

    Its loss is logged to the run ``stage`` while it trains; None: it is not logged.
    """
    torch.set_num_threads(params.training.num_threads)
    model = _fresh_model(params, tokenizer, recipe.seed)
    # A model that will be sharded need not fit on one device.
    if not group.is_sharded:
        model = models.on_device(model)
    recording = loop.train(
        model,
        data,
        recipe,
        checkpoints=Path("work/checkpoints"),
        name=name,
        trace=trace,
        group=group,
        watch=None if stage is None else LiveCurve(stage),
    )
    models.finish_training(model)
    return model, recording


def evaluate_base(
    params: Params, samples: pl.DataFrame, *, group: Group, evaluate: Evaluate
) -> NDArray[np.floating]:
    """What ``evaluate`` gives for samples under the pretrained model, which fits on one device.

    The samples are as in ``fit_half``.
    """
    torch.set_num_threads(params.training.num_threads)
    tokenizer = load_tokenizer(paths.TOKENIZER)
    return evaluate(
        models.on_device(_fresh_model(params, tokenizer, seed=0)),
        tokenize(read_texts(samples), tokenizer),
        block_size=params.model.block_size,
        batch_tokens=params.training.batch_tokens,
        group=group,
    )


def fit_half(  # noqa: PLR0913  # as fit
    params: Params,
    samples: pl.DataFrame,
    is_trained: pl.Series,
    recipe: Recipe,
    *,
    group: Group,
    name: str,
    evaluate: Evaluate = losses.sample_losses,
) -> tuple[NDArray[np.floating], Recording]:
    """Train a fresh model on some of the samples and evaluate it on all of them.

    The samples are a table with ``sample_id`` in the order of the corpus.

    Returns:
        What ``evaluate`` gives for all samples in their row order (``losses.sample_losses`` or
        ``losses.token_losses``), and what the run has recorded.
    """
    tokenizer = load_tokenizer(paths.TOKENIZER)
    # All texts are evaluated once, at the end, so there is no held-out curve.
    data = TrainingData.unweighted(
        tokenize(read_texts(samples.filter(is_trained)), tokenizer), tokenize((), tokenizer)
    )
    model, recording = fit(params, tokenizer, data, recipe, group=group, name=name)
    loss = evaluate(
        model,
        tokenize(read_texts(samples), tokenizer),
        block_size=params.model.block_size,
        batch_tokens=params.training.batch_tokens,
        group=group,
    )
    return loss, recording


def _fresh_model(params: Params, tokenizer: TextTokenizer, seed: int) -> nn.Module:
    return models.build_model(
        _pin_commit(params.model),
        vocab_size=tokenizer.vocab_size,
        end_of_text=tokenizer.end_of_text,
        seed=seed,
    )


def _pin_commit(config: Model) -> Model:
    """Fix a model of the Hub at the commit in the manifest, wherever its branch is now."""
    commit = (
        files.read_json(paths.PRETRAINED).get("commit") if config.kind == "pretrained" else None
    )
    return config.model_copy(update={"revision": commit}) if commit else config


def save(  # noqa: PLR0913  # what was trained, and of which cell
    model: nn.Module,
    recording: Recording,
    stage: StageRun,
    *,
    arm: str,
    seed: int,
    weights: pl.DataFrame | None = None,
    numbers: JsonObject | None = None,
) -> None:
    """Write the model folder, with a ``REVISED_WEIGHTS`` table if given; log it, curves by step.

    More ``numbers`` stand in ``training.json`` beside those of the recording.
    """
    heldout = [
        (step, loss)
        for (_, step, *_), loss in zip(recording.checkpoints, recording.heldout_means, strict=True)
    ]
    all_numbers = {
        "num_steps": recording.curve[-1][0],
        "num_masked_tokens": recording.num_masked_tokens,
        **(numbers or {}),
    }
    if weights is not None:
        all_numbers["num_reweighted"] = weights["first_changed"].count()
    path = paths.model_path(arm, seed)
    with durable.new_folder(path) as folder:
        models.save_model(model, folder)
        files.write_json(folder / "training.json", all_numbers)
        if weights is not None:
            table_files.write_parquet(folder / paths.weights_path(arm, seed).name, weights)
    stage.log_curve("train_loss", recording.curve)
    stage.log_curve("heldout_loss_mean_over_samples", heldout)
    stage.log_metrics(all_numbers)
    stage.log_model(path)
