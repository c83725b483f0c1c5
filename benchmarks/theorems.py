"""What the paper's two theorems say, asked of data.

python benchmarks/theorems.py

Does a forget frequency bound the influence of a sample on itself from below, after any scaling?
Does less weight for memorized samples lower the generalization gap by more than less weight for as
many random ones? Models are those of benchmarks/score_corpora.py, on CPython's documentation.
Writes docs/results/theorems.md. It takes minutes; half-models that lie in ``work/theorems`` are not
trained again.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from machine import machine
from numpy.typing import NDArray
from result_pages import note, noted, put
from score_corpora import (
    BATCH_TOKENS,
    BLOCK_SIZE,
    CONFIG,
    MODELS,
    SEED,
    MemoryTrace,
    fit,
    losses_of,
    make_corpus,
    new_model,
    tokenized,
)
from text_corpora import docs, passages

from gdc.comparison.generalization import ArmLosses, gap_difference, generalization_gap
from gdc.config import ScoreConfig
from gdc.corpus.halves import assign_halves
from gdc.corpus.near_duplicates import NEAR_DUPLICATES
from gdc.corpus.tokenizer import TextTokenizer
from gdc.leaderboard.ground_truth import counterfactual_memorization
from gdc.leaderboard.lower_bound import LowerBound, lower_bound
from gdc.recording.trace import Trace, loss_table
from gdc.schema import TRACE_INDEX
from gdc.scores import score_samples
from gdc.statistics import wording
from gdc.statistics.hashing import hash_order
from gdc.statistics.markdown import table
from gdc.training import loop
from gdc.training.batches import TokenizedTexts
from gdc.training.losses import sample_losses
from gdc.training.recipe import Recipe, TrainingData

COMMAND: Final = "benchmarks/theorems.py"
FOLDER: Final = Path("work/theorems")
MODEL: Final = "lstm"
NUM_MODELS: Final = 8
"""Half-models of the ground truth."""
EPSILONS: Final = (0.01, 0.1, 0.3, 0.5)
"""Quantiles of all losses below which a sample counts as learned."""
EPSILON: Final = 0.1
"""That of the arms."""
FRACTION: Final = 0.1
"""Of the samples that an arm changes."""
WEIGHTS: Final = (0.5, 0.0)
SEEDS: Final = (1, 2, 3)


def main() -> None:
    """Train what is missing, and write the page."""
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    note(FOLDER)
    corpus, _, tokenizer = make_corpus(passages(docs(None)))
    samples, heldout = (corpus.filter(pl.col("split") == of) for of in ("train", "validation"))
    trace, gain = tracked(samples, heldout, tokenizer)
    scores = {epsilon: forgets(trace, corpus, epsilon) for epsilon in EPSILONS}
    truth = counterfactual_memorization(*half_losses(samples, tokenizer))
    bounds = {
        (epsilon, name): lower_bound(score, *measured, degrees=NUM_MODELS - 2)
        for epsilon, score in scores.items()
        for name, measured in {
            "counterfactual memorization": (truth.memorization, truth.standard_error),
            "gain of its own steps": (gain, np.zeros(len(gain))),
        }.items()
    }
    arms = arm_losses(samples, heldout, tokenizer, scores[EPSILON])
    text = f"Measured on: {machine()}.\n\n{bound_tables(bounds)}\n{gap_table(arms)}"
    put(COMMAND, text, noted(FOLDER))


# ---- theorem 1: forget frequency and influence


def tracked(
    samples: pl.DataFrame, heldout: pl.DataFrame, tokenizer: TextTokenizer
) -> tuple[Trace, NDArray[np.float64]]:
    """The trace of a run, and what each sample gained in the steps that it was in."""
    config, training = MODELS[MODEL]
    recipe = Recipe(training, BLOCK_SIZE, "float32", SEED, probes_per_epoch=2, self_influence=True)
    data = TrainingData.unweighted(tokenized(samples, tokenizer), tokenized(heldout, tokenizer))
    recorded = MemoryTrace()
    model = new_model(config, tokenizer, SEED)
    recording = loop.train(
        model, data, recipe, checkpoints=FOLDER / "checkpoints", name="tracked", trace=recorded
    )
    index, heldout_index = (of.select(TRACE_INDEX.names()) for of in (samples, heldout))
    trace = Trace(
        index,
        recording.checkpoint_table(),
        loss_table(recorded.train).lazy(),
        heldout_index,
        loss_table(recorded.heldout).lazy(),
    )
    assert recording.gain is not None  # noqa: S101 - asked for above
    return trace, recording.gain


def forgets(trace: Trace, corpus: pl.DataFrame, epsilon: float) -> NDArray[np.float64]:
    """The paper's memorization of each sample, in the order of the trace."""
    settings = CONFIG.model_dump() | {"epsilon": {"kind": "quantile", "value": epsilon}}
    config = ScoreConfig.model_validate(settings)
    scored = score_samples([trace], [corpus], config, seed=SEED).samples
    ordered = trace.index.join(scored, on="sample_id", how="left", maintain_order="left")
    return ordered["memorization"].to_numpy()


def half_losses(
    samples: pl.DataFrame, tokenizer: TextTokenizer
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Loss of each sample under each half-model, and whether that saw it."""
    halves = assign_halves(
        samples.select("sample_id", "content_id"),
        pl.DataFrame(schema=NEAR_DUPLICATES),
        num_models=NUM_MODELS,
        seed=2_000_000,
    )
    lists = samples.join(halves, on="sample_id", maintain_order="left")["seen"]
    seen = np.array(lists.to_list())
    columns = []
    for number in range(NUM_MODELS):
        path = FOLDER / f"half_{number}.npy"
        if not path.exists():
            trained = samples.filter(pl.Series(seen[:, number]))
            model, _ = fit(MODEL, tokenizer, trained, seed=2_000_000 + number)
            of_tokens = np.split(
                losses_of(model, tokenizer, samples), samples["num_tokens"].to_numpy().cumsum()[:-1]
            )
            np.save(path, np.array([part.mean(dtype=np.float64) for part in of_tokens]))
        columns.append(np.load(path))
    return np.stack(columns, axis=1), seen


def bound_tables(bounds: Mapping[tuple[float, str], LowerBound]) -> str:
    """A row for each epsilon and each measure of influence."""
    heading = [
        "epsilon, quantile", "influence", "samples", "with a forget event",
        "of them not above 0", "below 0 beyond error", "largest scaling", "share that it explains",
        "Spearman", "verdict",
    ]  # fmt: skip
    rows = [
        [
            f"{epsilon:g}", name, str(b.num_samples), str(b.num_positive), str(b.num_below),
            str(b.num_refuting), wording.number(b.scale), wording.percent(b.tightness),
            f"{b.spearman:.2f}", b.verdict,
        ]
        for (epsilon, name), b in bounds.items()
    ]  # fmt: skip
    found = list(bounds.values())
    refuted = sum(b.verdict.startswith("refuted") for b in found)
    most = max(b.num_positive for b in found)
    correlations = [b.spearman for b in found if np.isfinite(b.spearman)]
    verdict = f"**Verdict: refuted at every scaling in {refuted} of {len(bounds)} cases.** "
    # Without a forget event there is nothing to bound.
    if correlations:
        verdict += (
            f"The bound says something of at most {most} of {found[0].num_samples} samples, for "
            f"the others it is 0, and the rank correlation is between {min(correlations):.2f} and "
            f"{max(correlations):.2f}: where it holds, it does not tell which samples have "
            "influence."
        )
    title = "## Does forget frequency bound influence from below?"
    return f"{title}\n\n{table(heading, rows)}\n{verdict.strip()}\n"


# ---- theorem 2: weights and the generalization gap


def arm_losses(
    samples: pl.DataFrame,
    heldout: pl.DataFrame,
    tokenizer: TextTokenizer,
    score: NDArray[np.float64],
) -> dict[tuple[str, float], list[ArmLosses]]:
    """Losses of the models of each arm, a model for each seed."""
    ids = samples["sample_id"].to_list()
    draws = np.array(hash_order(ids, seed=SEED, purpose="random arm"), dtype=np.uint64)
    # Ties are decided by chance, as half of all samples may have no forget event.
    orders = {"hotspots": np.lexsort((draws, -score)), "random": np.argsort(draws)}
    num_changed = round(FRACTION * len(ids))
    found = {("none", 1.0): trained_arm(samples, heldout, tokenizer, np.ones(len(ids)))}
    for weight in WEIGHTS:
        for name, order in orders.items():
            weights = np.ones(len(ids))
            weights[order[:num_changed]] = weight
            found[name, weight] = trained_arm(samples, heldout, tokenizer, weights)
            sys.stderr.write(f"{name}, weight {weight}: done\n")
    return found


def trained_arm(
    samples: pl.DataFrame,
    heldout: pl.DataFrame,
    tokenizer: TextTokenizer,
    weights: NDArray[np.float64],
) -> list[ArmLosses]:
    """Losses under a model trained with these weights, for each seed; all take as many steps."""
    config, training = MODELS[MODEL]
    texts, other = tokenized(samples, tokenizer), tokenized(heldout, tokenizer)
    data = TrainingData(texts, weights, np.ones(len(texts), dtype=np.int64), other)
    runs = []
    for seed in SEEDS:
        model = new_model(config, tokenizer, seed)
        recipe = Recipe(training, BLOCK_SIZE, "float32", seed, num_steps=num_steps(texts))
        loop.train(model, data, recipe, checkpoints=FOLDER / "checkpoints", name="arm")
        sizes: Mapping[str, Any] = {"block_size": BLOCK_SIZE, "batch_tokens": BATCH_TOKENS}
        of_members, of_heldout = (sample_losses(model, t, **sizes) for t in (texts, other))
        runs.append(ArmLosses(of_members, weights > 0, of_heldout))
    return runs


def num_steps(texts: TokenizedTexts) -> int:
    """Steps of an arm that keeps everything."""
    _, training = MODELS[MODEL]
    per_epoch = int(np.ceil(texts.num_tokens.sum() / BATCH_TOKENS))
    return training.epochs * per_epoch


def gap_table(arms: Mapping[tuple[str, float], list[ArmLosses]]) -> str:
    """Gap of each arm, and that of the hotspots against as many random samples."""
    heading = ["samples", "weight", "held-out loss", "gap", "gap against random"]
    rows, lower = [], 0
    for (name, weight), runs in arms.items():
        against = None
        if name == "hotspots":
            against = gap_difference(runs, arms["random", weight], seed=SEED)
            lower += against.high < 0
        heldout = np.mean([run.heldout.mean() for run in runs])
        rows.append(
            [
                name,
                f"{weight:g}",
                wording.decimals(float(heldout)),
                wording.interval(generalization_gap(runs, seed=SEED), wording.decimals),
                wording.interval(against, wording.decimals),
            ]
        )
    return (
        "## Does less weight for hotspots lower the generalization gap?\n\n"
        f"{table(heading, rows)}\n"
        f"**Verdict: shown to be lower than with as many random samples in {lower} of "
        f"{len(WEIGHTS)} cases.**\n"
    )


if __name__ == "__main__":
    main()
