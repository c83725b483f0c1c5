"""Compare every score with the ground truth on several corpora and two models.

python benchmarks/score_corpora.py train docs-lstm code-gpt2 --novels novels.jsonl
python benchmarks/score_corpora.py page

``train`` trains the models of some worlds (a corpus, a model and, if it is not the usual one, the
number of texts), or of all where none is named.
``score`` compares the scores with the ground truth. ``page`` does so where it is not done yet, and
writes docs/results/corpora.md and its picture. What lies in ``work/score-corpora`` is not made
again.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from corpora_page import draw, markdown, reported
from numpy.typing import NDArray
from result_pages import RESULTS, note, noted, put
from text_corpora import CORPORA, passages

from gdc.audit.model_audit import Subject, record_secrets
from gdc.config import Gpt2Model, LstmModel, Model, ScoreConfig, TrainingConfig
from gdc.config.ingest import CanariesConfig
from gdc.corpus.canaries import make_canaries
from gdc.corpus.halves import assign_halves
from gdc.corpus.near_duplicates import NEAR_DUPLICATES
from gdc.corpus.samples import build_corpus, samples_from, with_num_tokens
from gdc.corpus.tokenizer import TextTokenizer, train_tokenizer
from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.evaluation import build_leaderboard
from gdc.leaderboard.inputs import TRAINED, HalfModels, ScoreTables
from gdc.recording.trace import Trace, gain_table, loss_table, token_table
from gdc.schema import SOURCE_ROWS, TRACE_INDEX
from gdc.scores import cost_class, score_samples
from gdc.training import loop, losses
from gdc.training.batches import TokenizedTexts
from gdc.training.models import build_model
from gdc.training.recipe import Recipe, TrainingData
from gdc.training.recording import Recording
from gdc.workspace.half_models import loss_table as half_model_losses
from gdc.workspace.reference_tables import with_losses

FOLDER: Final = Path("work/score-corpora")
NUM_RUNS, NUM_REFERENCES, NUM_MODELS = 3, 4, 12
"""Tracked runs, reference models of scores, and half-models of the truth, on other halves."""
BLOCK_SIZE, VOCAB_SIZE, BATCH_TOKENS = 256, 1024, 1024
SEED: Final = 0
EPOCHS: Final = 15
_FAMILIES: Final[Mapping[str, Mapping[str, object]]] = {
    "digits": {
        "template": "The access code of user {key} is",
        "key_digits": 4,
        "secret_digits": 8,
    },
    "words": {"prefix_words": 6, "secret_words": 6},
    "natural": {"min_words": 10, "max_words": 20},
}
CANARIES: Final = CanariesConfig.model_validate(
    {
        family: {**form, "repeats": [1, 12], "per_level": 5, "num_twins": 0}
        for family, form in _FAMILIES.items()
    }
)
_MODEL: Final[Mapping[str, Any]] = {
    "block_size": BLOCK_SIZE, "precision": "float32", "dropout": 0.0,
}  # fmt: skip
_TRAINING: Final[Mapping[str, Any]] = {
    "batch_tokens": BATCH_TOKENS,
    "schedule": "constant",
    "warmup_steps": 20,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "num_threads": 1,
}
MODELS: Final[Mapping[str, tuple[Model, TrainingConfig]]] = {
    "lstm": (
        LstmModel(kind="lstm", hidden_size=96, num_layers=1, **_MODEL),
        TrainingConfig(epochs=EPOCHS, learning_rate=1e-2, **_TRAINING),
    ),
    "gpt2": (
        Gpt2Model(kind="gpt2", hidden_size=64, num_layers=1, num_heads=4, **_MODEL),
        TrainingConfig(epochs=EPOCHS, learning_rate=3e-3, **_TRAINING),
    ),
}
CONFIG: Final = ScoreConfig.model_validate(
    {
        "mode": "probe",
        "num_early": 2,
        "epsilon": {"kind": "quantile", "value": 0.3},
        "hysteresis": 0.1,
        "enabled": [],
    }
)
CHOSEN_ON: Final = ("docs", "code")
"""Corpora that formulas were chosen on."""
SCORES: Final = (
    "num_copies", "random", "final_loss", "zlib", "iqr", "std", "total_drop", "online_probe_gap",
    "online_late_contrast", "synthetic_control_gap", "unseen_loss_contrast",
    "self_influence", "influence_contrast",
    "calibrated_drop_log_p", "synthetic_control_log_p", "hard_token_drop", "worst_window_drop",
    "recited_run_drop", "reference_gap", "in_out_gap", "distilled_gap",
    "distilled_window_gap",
)  # fmt: skip
LARGER: Final = ("docs-gpt2-2400", "code-gpt2-2400", "prose-lstm-2400", "prose-gpt2-2400")
"""Worlds with three times as many texts."""
SCORES_OF_LARGER: Final = (
    "std", "online_late_contrast", "unseen_loss_contrast", "self_influence", "influence_contrast",
    "reference_gap", "in_out_gap", "distilled_gap", "distilled_window_gap",
)  # fmt: skip


def main() -> None:
    """Train the worlds that are named, or write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("train", "score", "page"))
    parser.add_argument("worlds", nargs="*")
    parser.add_argument("--novels", type=Path, help="JSON lines with a field text: the prose")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worlds = arguments.worlds or [*(f"{c}-{m}" for c, m in product(CORPORA, MODELS)), *LARGER]
    if arguments.action == "train":
        for world in worlds:
            train_world(world, arguments.novels)
    elif arguments.action == "score":
        for world in worlds:
            read_board(world)
    else:
        write_page([world for world in worlds if is_trained(world)])


# ---- one world: a corpus and a model


def train_world(world: str, novels: Path | None) -> None:
    """Train the tracked runs, the reference models and the half-models of a world."""
    folder = FOLDER / world
    folder.mkdir(parents=True, exist_ok=True)
    note(folder)
    corpus_name, model_name, *size = world.split("-")
    texts = passages(CORPORA[corpus_name](novels), *map(int, size))
    corpus, canaries, tokenizer = make_corpus(texts)
    corpus.write_parquet(folder / "corpus.parquet")
    samples = corpus.filter(pl.col("split") == "train")
    heldout = corpus.filter(pl.col("split") == "validation")
    for run in range(NUM_RUNS):
        if not (folder / f"run_{run}/checkpoints.parquet").exists():
            track(folder, run, model_name, (samples, heldout, canaries), tokenizer)
    for kind, num_models, first_seed in (
        ("reference", NUM_REFERENCES, 1_000_000),
        ("half", NUM_MODELS, 2_000_000),
    ):
        halves = assign_halves(
            samples.select("sample_id", "content_id"),
            pl.DataFrame(schema=NEAR_DUPLICATES),
            num_models=num_models,
            seed=first_seed,
        )
        halves.write_parquet(folder / f"{kind}.parquet")
        for number in range(num_models):
            path = folder / f"{kind}_{number}.parquet"
            if not path.exists():
                seen = samples.join(halves, on="sample_id", maintain_order="left")["seen"]
                trained = samples.filter(seen.list.get(number))
                model, seconds = fit(model_name, tokenizer, trained, seed=first_seed + number)
                table = half_model_losses(samples, losses_of(model, tokenizer, samples))
                table.with_columns(seconds=seconds).write_parquet(path)


def make_corpus(texts: list[str]) -> tuple[pl.DataFrame, pl.DataFrame, TextTokenizer]:
    """``CORPUS`` and ``CANARIES`` tables, and the tokenizer of the training split."""
    rows = pl.DataFrame(
        {"text": texts, "source": [str(i) for i in range(len(texts))]}, schema=SOURCE_ROWS
    )
    samples = samples_from(rows, max_samples=None, seed=SEED)
    canaries = make_canaries(CANARIES, [samples], seed=SEED)
    corpus = build_corpus(samples, canaries, validation_fraction=0.25, seed=SEED)
    training = corpus.filter(pl.col("split") == "train")
    tokenizer = train_tokenizer(training["text"], VOCAB_SIZE)
    lengths = [len(ids) + 1 for ids in tokenizer.encode(corpus["text"].to_list())]
    return with_num_tokens(corpus, lengths), canaries, tokenizer


class MemoryTrace:
    """Keeps the losses of a run, checkpoint by checkpoint."""

    def __init__(self) -> None:
        self.train: list[NDArray[np.float32]] = []
        self.heldout: list[NDArray[np.float32]] = []

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Nothing is resumed."""

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """Take the losses at the next checkpoint."""
        self.train.append(losses)
        self.heldout.append(heldout)

    def flush(self) -> None:
        """Nothing is written before the end."""


def track(
    world: Path,
    run: int,
    model_name: str,
    tables: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame],
    tokenizer: TextTokenizer,
) -> None:
    """Train a tracked run; write its trace, and which canaries it reproduces if it is the first."""
    folder = world / f"run_{run}"
    folder.mkdir(exist_ok=True)
    samples, heldout, canaries = tables
    config, training = MODELS[model_name]
    model = new_model(config, tokenizer, run)
    recipe = Recipe(
        training, BLOCK_SIZE, "float32", run,
        probes_per_epoch=2, token_losses=True, self_influence=True,
    )  # fmt: skip
    data = TrainingData.unweighted(tokenized(samples, tokenizer), tokenized(heldout, tokenizer))
    trace, started = MemoryTrace(), time.monotonic()
    recording = loop.train(
        model,
        data,
        recipe,
        checkpoints=FOLDER / "checkpoints",
        name=f"{world.name}@{run}",
        trace=trace,
    )
    seconds = time.monotonic() - started
    write_trace(folder, recording, trace, samples, heldout)
    if run == 0:
        subject = Subject(model, tokenizer, BLOCK_SIZE)
        extracted(subject, canaries).write_parquet(world / "canaries.parquet")
    # Its presence says that the run is done.
    checkpoints = recording.checkpoint_table().with_columns(seconds=seconds)
    checkpoints.write_parquet(folder / "checkpoints.parquet")


def write_trace(
    folder: Path,
    recording: Recording,
    trace: MemoryTrace,
    samples: pl.DataFrame,
    heldout: pl.DataFrame,
) -> None:
    """Write what a tracked run recorded of the samples, all but its checkpoints."""
    early, late = recording.snapshots[0], recording.snapshots[-1]
    for part, table, curves in (
        ("train", samples, trace.train),
        ("heldout", heldout, trace.heldout),
    ):
        index = table.select(TRACE_INDEX.names())
        loss_table(curves).write_parquet(folder / f"{part}_losses.parquet")
        tokens = token_table(index, getattr(early, part), getattr(late, part))
        tokens.write_parquet(folder / f"{part}_tokens.parquet")
    assert recording.gain is not None  # noqa: S101  # the recipe asks for it
    gains = gain_table(samples.select(TRACE_INDEX.names()), recording.gain)
    gains.write_parquet(folder / "self_influence.parquet")


def extracted(subject: Subject, canaries: pl.DataFrame) -> pl.DataFrame:
    """The canaries, which of them the model reproduces, and the tokens of their secrets."""
    secrets = record_secrets(subject, canaries, batch_tokens=BATCH_TOKENS)
    return canaries.with_columns(
        is_extracted=pl.Series(secrets.is_extracted, dtype=pl.Boolean),
        num_secret_tokens=pl.Series(secrets.num_tokens),
    )


def fit(
    model_name: str, tokenizer: TextTokenizer, samples: pl.DataFrame, *, seed: int
) -> tuple[torch.nn.Module, float]:
    """Train a model on some samples; returns it and the seconds that it took."""
    config, training = MODELS[model_name]
    model = new_model(config, tokenizer, seed)
    recipe = Recipe(training, BLOCK_SIZE, "float32", seed)
    data = TrainingData.unweighted(
        tokenized(samples, tokenizer), tokenized(samples.head(0), tokenizer)
    )
    started = time.monotonic()
    loop.train(model, data, recipe, checkpoints=FOLDER / "checkpoints", name=f"{model_name}@{seed}")
    return model, time.monotonic() - started


def new_model(config: Model, tokenizer: TextTokenizer, seed: int) -> torch.nn.Module:
    """A model with the weights that the seed draws."""
    return build_model(
        config, vocab_size=tokenizer.vocab_size, end_of_text=tokenizer.end_of_text, seed=seed
    )


def tokenized(samples: pl.DataFrame, tokenizer: TextTokenizer) -> TokenizedTexts:
    """Token sequences of the column ``text``."""
    return TokenizedTexts.from_ids(
        tokenizer.encode(samples["text"].to_list()), tokenizer.end_of_text
    )


def losses_of(
    model: torch.nn.Module, tokenizer: TextTokenizer, samples: pl.DataFrame
) -> NDArray[np.float32]:
    """Losses of all tokens of the samples, end to end."""
    return losses.token_losses(
        model, tokenized(samples, tokenizer), block_size=BLOCK_SIZE, batch_tokens=BATCH_TOKENS
    )


# ---- the scores of a world, against its ground truth


def write_page(worlds: Sequence[str]) -> None:
    """Write the tables and the picture of the worlds that are trained."""
    boards, larger = (
        reported({w: read_board(w) for w in worlds if (w in LARGER) == is_larger}, CHOSEN_ON)
        for is_larger in (False, True)
    )
    code = dict.fromkeys(name for world in worlds for name in noted(FOLDER / world))
    put("benchmarks/score_corpora.py page", markdown(boards, larger), list(code))
    draw(boards, RESULTS.parent / "pictures/corpora.png")


def read_board(world: str) -> Leaderboard:
    """The leaderboard of a world; made and kept where it is missing."""
    path = FOLDER / world / "board.json"
    if not path.exists():
        note(path.parent)
        enabled = SCORES_OF_LARGER if world in LARGER else SCORES
        path.write_text(json.dumps(board_of(world, enabled).to_json()), encoding="utf-8")
    return Leaderboard.from_json(json.loads(path.read_text(encoding="utf-8")))


def is_trained(world: str) -> bool:
    """Whether the last model of a world is done."""
    return (FOLDER / world / f"half_{NUM_MODELS - 1}.parquet").exists()


def board_of(world: str, enabled: tuple[str, ...]) -> Leaderboard:
    """Score a world that is trained, and compare the scores with its ground truth."""
    folder = FOLDER / world
    corpus = pl.read_parquet(folder / "corpus.parquet")
    traces = [read_trace(folder, run) for run in range(NUM_RUNS)]
    references = read_references(folder, "reference", NUM_REFERENCES)
    tokens = read_reference_tokens(folder)
    seconds = {name: seconds_of(name, traces[0], corpus, references, tokens) for name in enabled}
    reference_seconds = _half_seconds(folder, "reference")
    for name in enabled:
        if cost_class(name) == "reference models":
            seconds[name] += reference_seconds
    config = CONFIG.model_copy(update={"enabled": enabled})
    scored = score_samples(
        traces, [corpus], config, seed=SEED, references=references, reference_tokens=tokens
    )
    runs = [
        scored.by_run.filter(pl.col("run") == run).drop("run").sort("sample_id")
        for run in range(NUM_RUNS)
    ]
    tables = ScoreTables(scored.samples, runs, traces, "probe", seconds, NUM_REFERENCES)
    samples, half_models = read_truth(folder)
    return build_leaderboard(samples, half_models, tables, seed=SEED)


def read_truth(folder: Path) -> tuple[pl.DataFrame, HalfModels]:
    """``TRAINED`` table of a world, and the half-models of its ground truth."""
    corpus = pl.read_parquet(folder / "corpus.parquet")
    canaries = pl.read_parquet(folder / "canaries.parquet")
    samples = (
        corpus.filter(pl.col("split") == "train")
        .join(canaries, on="canary_id", how="left", maintain_order="left")
        .select(TRAINED.names())
    )
    half_models = HalfModels(
        read_references(folder, "half", NUM_MODELS),
        [
            pl.read_parquet(folder / f"half_{number}.parquet").sort("sample_id")["token_losses"]
            for number in range(NUM_MODELS)
        ],
        int(canaries.select(pl.col("num_secret_tokens").median()).item()),
    )
    return samples, half_models


def seconds_of(
    name: str,
    trace: Trace,
    corpus: pl.DataFrame,
    references: pl.DataFrame,
    tokens: pl.DataFrame,
) -> float:
    """What it takes to compute this score alone, of one run."""
    config = CONFIG.model_copy(update={"enabled": (name,)})
    started = time.perf_counter()
    score_samples(
        [trace], [corpus], config, seed=SEED, references=references, reference_tokens=tokens
    )
    return time.perf_counter() - started


def _half_seconds(folder: Path, kind: str) -> float:
    """What the models of a kind took to train, summed."""
    tables = [pl.read_parquet(path) for path in folder.glob(f"{kind}_*.parquet")]
    return float(sum(table["seconds"][0] for table in tables))


def read_trace(world: Path, run: int) -> Trace:
    """The trace of a tracked run."""
    corpus, folder = pl.read_parquet(world / "corpus.parquet"), world / f"run_{run}"
    parts = [
        corpus.filter(pl.col("split") == split).select(TRACE_INDEX.names())
        for split in ("train", "validation")
    ]
    return Trace(
        index=parts[0],
        checkpoints=pl.read_parquet(folder / "checkpoints.parquet").drop("seconds"),
        losses=pl.scan_parquet(folder / "train_losses.parquet"),
        heldout_index=parts[1],
        heldout_losses=pl.scan_parquet(folder / "heldout_losses.parquet"),
        tokens=(
            pl.read_parquet(folder / "train_tokens.parquet"),
            pl.read_parquet(folder / "heldout_tokens.parquet"),
        ),
        gains=pl.read_parquet(folder / "self_influence.parquet"),
    )


def read_reference_tokens(folder: Path) -> pl.DataFrame:
    """``sample_id`` and the losses of all tokens under each reference model."""
    tables = [
        pl.read_parquet(folder / f"reference_{number}.parquet").select(
            "sample_id", pl.col("token_losses").alias(str(number))
        )
        for number in range(NUM_REFERENCES)
    ]
    return pl.concat(tables, how="align")


def read_references(folder: Path, kind: str, num_models: int) -> pl.DataFrame:
    """``REFERENCES`` table of the models of a kind."""
    losses = [
        pl.read_parquet(folder / f"{kind}_{number}.parquet").select("sample_id", "loss")
        for number in range(num_models)
    ]
    table, _ = with_losses(pl.read_parquet(folder / f"{kind}.parquet"), losses)
    return table


if __name__ == "__main__":
    main()
