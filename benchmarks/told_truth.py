"""How near to the ceiling regressions come that are told the ground truth of the other texts.

python benchmarks/told_truth.py --write

``distilled_gap`` learns from noisy gaps of four reference models. Regressions read the same and are
told the ground truth of other contents: of samples, here or in other corpora too, of single tokens,
and of samples beside what the fit to tokens says. Nothing that judges a text was fitted to its own
truth, nor reads what was. Of the worlds that are named, or of all that benchmarks/score_corpora.py
has trained; ``--write`` puts the table into docs/results/corpora.md.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from typing import Any, Final
from unittest import mock

import numpy as np
import polars as pl
import result_pages
import score_corpora
from corpora_page import of_mean, reported
from numpy.typing import NDArray
from score_corpora import CHOSEN_ON, CONFIG, MODELS, NUM_REFERENCES, NUM_RUNS, SEED
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from text_corpora import CORPORA

from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.evaluation import evaluate_score
from gdc.leaderboard.ground_truth import counterfactual_memorization
from gdc.leaderboard.inputs import GroundTruth
from gdc.scores import distilled, score_samples
from gdc.scores.distilled_fits import FOLDS, Known, features, sample_gaps
from gdc.scores.distilled_tokens import ReferenceTokens, TokenLosses, Tokens, token_gaps
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.markdown import table

SCORE: Final = "distilled_gap"
OF_SAMPLES: Final[Mapping[str, Any]] = {"n_estimators": 200, "min_samples_leaf": 8}
OF_TOKENS: Final[Mapping[str, Any]] = {"n_estimators": 50, "min_samples_leaf": 15}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What the scores read of a tracked run and the reference models, and what they make of it."""

    known: Known
    tokens: Tokens
    sample_gaps: Values  # of samples, by the fit to samples
    token_gaps: Values  # of tokens, by the fit to tokens


@dataclass(frozen=True)
class World:
    """The tracked runs of a world and its ground truth; samples are sorted by ``sample_id``."""

    runs: Sequence[Run]
    truth: GroundTruth
    token_truth: Values  # nats
    num_tokens: NDArray[np.int64]  # of each sample
    fold: NDArray[np.int64]  # of each sample; samples of one content are in one fold

    @property
    def sample(self) -> NDArray[np.int64]:
        """Of each token."""
        return np.repeat(np.arange(len(self.num_tokens)), self.num_tokens)

    def is_told(self, *folds: int) -> NDArray[np.bool_]:
        """Ordinary samples outside of these folds."""
        return self.truth.is_ordinary & ~np.isin(self.fold, folds)

    def means(self, of_tokens: Values) -> Values:
        """Over the tokens of each sample."""
        return np.bincount(self.sample, of_tokens) / self.num_tokens


def main() -> None:
    """Ask the regressions in each world, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("worlds", nargs="*")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    every = map("-".join, product(CORPORA, MODELS))
    names = options.worlds or [*filter(score_corpora.is_trained, every)]
    worlds = {name: read_world(name) for name in names}
    boards = reported({name: score_corpora.read_board(name) for name in names}, CHOSEN_ON)
    rows: list[dict[str, str]] = []
    for (name, world), (shown, board) in zip(worlds.items(), boards.items(), strict=True):
        others = [each for key, each in worlds.items() if key.split("-")[0] != name.split("-")[0]]
        rows.append({"world": shown, **shares(told(world, others), world.truth, board)})
        sys.stderr.write(f"{rows[-1]}\n")
    written = table([*rows[0]], [[*row.values()] for row in rows])
    sys.stdout.write(written)
    if options.write:
        made = [made for name in names for made in result_pages.noted(score_corpora.FOLDER / name)]
        code = dict.fromkeys([*made, result_pages.version() or result_pages.UNKNOWN])
        result_pages.put("benchmarks/told_truth.py", written, [*code])


def shares(found: Mapping[str, Values], truth: GroundTruth, board: Leaderboard) -> dict[str, str]:
    """Of the ceiling at the mean, of the regressions and of the score, with intervals."""
    rows = {name: evaluate_score(name, values, truth) for name, values in found.items()}
    rows[f"`{SCORE}`"] = next(row for row in board.scores if row.score == SCORE)
    reached = {name: of_mean(row, board) or Estimate(*[np.nan] * 3) for name, row in rows.items()}
    # A digit more than elsewhere on the page: the target lies between two of those.
    return {name: f"{e.value:.3f} [{e.low:.2f}, {e.high:.2f}]" for name, e in reached.items()}


# ---- a world


def read_world(name: str) -> World:
    """What the score reads, and the ground truth, of a world that is trained."""
    samples, half_models = score_corpora.read_truth(score_corpora.FOLDER / name)
    samples = samples.sort("sample_id")
    losses, seen = (np.array(half_models.references[c].to_list()) for c in ("loss", "seen"))
    runs = read_runs(name, samples["sample_id"])
    num_tokens, fold = runs[0].tokens.num_tokens, runs[0].known.content % FOLDS
    tokens = np.column_stack([each.explode().to_numpy() for each in half_models.token_losses])
    seen_tokens = np.repeat(seen, num_tokens, axis=0)
    of_tokens = counterfactual_memorization(tokens, seen_tokens).memorization
    means = counterfactual_memorization(losses, seen).memorization
    truth = GroundTruth(samples, means, means, SEED)  # the peak is not asked for
    return World(runs, truth, of_tokens, num_tokens, fold)


def read_runs(name: str, sample_ids: pl.Series) -> list[Run]:
    """What the score reads of the tracked runs, taken where it calls its trees."""
    folder = score_corpora.FOLDER / name
    traces = [score_corpora.read_trace(folder, number) for number in range(NUM_RUNS)]
    corpus = pl.read_parquet(folder / "corpus.parquet")
    references = score_corpora.read_references(folder, "reference", NUM_REFERENCES)
    of_models = score_corpora.read_reference_tokens(folder)
    config = CONFIG.model_copy(update={"enabled": (SCORE,)})
    found: list[Known] = []

    def kept(known: Known) -> Values:
        found.append(known)
        return known.last

    with mock.patch.object(distilled, "sample_gaps", kept):
        score_samples(traces, [corpus], config, seed=SEED, references=references)
    runs = []
    for known, trace in zip(found, traces, strict=True):
        assert trace.tokens is not None  # noqa: S101  # every world has them
        tokens = ReferenceTokens(of_models, trace.tokens[0]).of(sample_ids)
        runs.append(Run(known, tokens, sample_gaps(known), token_gaps(known, tokens)))
    return runs


# ---- what the regressions read


def sample_inputs(world: World) -> Values:
    """What the trees of the score read, mean over the runs and of each; and both its fits."""
    known = world.runs[0].known
    pairs = range(known.out_loss.shape[1])
    means = np.mean([features(run.known, pairs) for run in world.runs], axis=0)
    lasts = np.sort([run.known.last for run in world.runs], axis=0).T
    by_samples = np.mean([run.sample_gaps for run in world.runs], axis=0)
    by_tokens = world.means(np.mean([run.token_gaps for run in world.runs], axis=0))
    return np.column_stack([means, lasts, known.out_loss, known.in_loss, by_samples, by_tokens])


def token_inputs(world: World, of_samples: Values) -> Values:
    """Losses of each token under every model, its gaps and its place, and those of its sample."""
    of_run = TokenLosses(world.runs[0].known, world.runs[0].tokens, world.sample)
    in_loss, out_loss = of_run.in_loss, of_run.out_loss
    early, late = np.array([run.tokens.looks for run in world.runs]).transpose(2, 1, 0)
    out_mean, in_mean, late_mean = (each.mean(axis=1) for each in (out_loss, in_loss, late))
    means = (out_mean - late_mean, out_mean - in_mean, out_mean, in_mean, early.mean(axis=1))
    each = [np.sort(losses, axis=1) for losses in (out_loss, in_loss, late)]
    return np.column_stack([*means, late_mean, *each, of_run.place, of_samples[world.sample]])


# ---- the regressions


def told(world: World, others: Sequence[World]) -> dict[str, Values]:
    """What regressions say of the samples of a world; ``others`` are of other corpora."""
    of_samples = sample_inputs(world)
    by_tokens = means_by_tokens(world, token_inputs(world, of_samples))
    elsewhere = [
        (sample_inputs(each)[each.is_told()], each.truth.memorization[each.is_told()])
        for each in others
    ]
    return {
        "told truth (samples)": cross_fitted(world, lambda _: of_samples),
        "and of other corpora": cross_fitted(world, lambda _: of_samples, elsewhere),
        "told truth (tokens)": by_tokens[world.fold, np.arange(len(world.fold))].mean(axis=1),
        "both": cross_fitted(world, lambda fold: np.column_stack([of_samples, by_tokens[fold]])),
    }


def cross_fitted(
    world: World, inputs: Callable[[int], Values], elsewhere: Sequence[tuple[Values, Values]] = ()
) -> Values:
    """Mean of trees and of a ridge regression that are told the truth of other folds.

    ``inputs`` are of all samples where the given fold is judged; ``elsewhere`` are inputs and truth
    of samples of other worlds.
    """
    predictions: Values = np.zeros(len(world.fold))
    for fold in range(FOLDS):
        is_told, is_judged, read = world.is_told(fold), world.fold == fold, inputs(fold)
        told_of = [(read[is_told], world.truth.memorization[is_told]), *elsewhere]
        fitted, target = (np.concatenate(each) for each in zip(*told_of, strict=True))
        for regression in regressions(OF_SAMPLES):
            predictions[is_judged] += regression.fit(fitted, target).predict(read[is_judged]) / 2
    return predictions


def means_by_tokens(world: World, inputs: Values) -> Values:
    """Means over the samples of what trees and ridge, told of single tokens, say of them.

    Folds x samples x 2: of each fold by fits that know nothing of it, nor of the sample's own. So
    what is fitted to these means has not met the truth of the fold that it is judged by.
    """
    means: Values = np.zeros((FOLDS, len(world.fold), 2))
    for one, other in combinations_with_replacement(range(FOLDS), 2):
        is_told = world.is_told(one, other)[world.sample]
        for column, regression in enumerate(regressions(OF_TOKENS)):
            regression.fit(inputs[is_told], world.token_truth[is_told])
            found = world.means(regression.predict(inputs))
            for hidden, predicted in ((one, other), (other, one)):
                is_predicted = world.fold == predicted
                means[hidden, is_predicted, column] = found[is_predicted]
    return means


def regressions(trees: Mapping[str, Any]) -> tuple[Any, Any]:
    """Extremely randomised trees, and a ridge regression whose penalty is cross-validated."""
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    return ExtraTreesRegressor(**trees, max_features=0.5, random_state=SEED), ridge


if __name__ == "__main__":
    main()
