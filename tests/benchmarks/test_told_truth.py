"""Regressions that are told the ground truth, asked in a world that is trained in seconds."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from gdc.scores import distilled_fits, distilled_tokens
from tests.builders import REPOSITORY

WORDS = ("time", "person", "year", "way", "day", "thing", "world", "life", "hand", "child", "eye")
NAMES = ("docs-gpt2", "man-gpt2")


class Benchmark(NamedTuple):
    """The script, and the one whose worlds it reads."""

    told_truth: Any
    score_corpora: Any


def paragraphs(seed: int) -> list[str]:
    """More texts than a distilled score needs, some short enough to be canaries."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(17, 25))) for _ in range(120)]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Benchmark]:
    """Two worlds of tiny models; the script reads them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "benchmarks")
        scripts = Benchmark(import_module("told_truth"), import_module("score_corpora"))
        corpora = scripts.score_corpora
        model, training = corpora.MODELS["gpt2"]
        model = model.model_copy(update={"hidden_size": 8, "num_heads": 1})
        training = training.model_copy(update={"epochs": 2})
        patch.setattr(corpora, "FOLDER", tmp_path_factory.mktemp("worlds"))
        patch.setitem(corpora.MODELS, "gpt2", (model, training))
        for seed, name in enumerate(("docs", "man")):
            patch.setitem(corpora.CORPORA, name, lambda _, seed=seed: paragraphs(seed))
        patch.setattr(corpora, "SCORES", ("distilled_gap",))
        patch.setattr(corpora, "NUM_MODELS", 4)
        for trees in (
            distilled_fits.FIT,
            distilled_tokens._FIT,
            scripts.told_truth.OF_SAMPLES,
            scripts.told_truth.OF_TOKENS,
        ):
            patch.setitem(trees, "n_estimators", 4)
        for name in NAMES:
            corpora.train_world(name, None)
        yield scripts


def test_it_reads_what_the_score_reads(benchmark: Benchmark) -> None:
    told_truth, corpora = benchmark
    world = told_truth.read_world("docs-gpt2")
    row = next(
        row for row in corpora.read_board("docs-gpt2").scores if row.score == "distilled_gap"
    )
    score = np.mean([run.sample_gaps for run in world.runs], axis=0)
    found = told_truth.evaluate_score("distilled_gap", score, world.truth)
    assert found.mean == row.mean
    # The truth of a sample is the mean of that of its tokens.
    assert world.means(world.token_truth) == pytest.approx(world.truth.memorization, abs=1e-5)


def test_no_text_is_judged_by_a_fit_that_was_told_its_own_truth(benchmark: Benchmark) -> None:
    told_truth, _ = benchmark
    world = told_truth.read_world("docs-gpt2")
    others = [told_truth.read_world("man-gpt2")]
    before = told_truth.told(world, others)
    hidden = world.fold == 2
    lie = hidden * 100.0
    world.truth.memorization[:] += lie
    world.token_truth[:] += np.repeat(lie, world.num_tokens)
    after = told_truth.told(world, others)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][hidden], values[hidden], err_msg=name)
        assert (after[name] != values)[~hidden].all(), name


def test_the_table_has_a_row_for_each_world(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["told_truth.py", *NAMES])
    benchmark.told_truth.main()
    heading, _, *rows = capsys.readouterr().out.splitlines()
    columns = ["told truth (samples)", "and of other corpora", "told truth (tokens)", "both"]
    assert heading == f"| world | {' | '.join(columns)} | `distilled_gap` |"
    assert [row.split(" | ")[0] for row in rows] == ["| docs-gpt2*", "| man-gpt2"]


def test_the_page_names_the_code_that_trained_the_worlds_too(
    benchmark: Benchmark, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = benchmark.score_corpora.FOLDER / NAMES[1] / "code.txt"
    notes.write_text("before\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["told_truth.py", "--write", NAMES[1]])
    benchmark.told_truth.main()
    assert "\nCode: `before`, `today`.\n" in page.read_text(encoding="utf-8")


def test_samples_of_one_content_are_in_one_fold(benchmark: Benchmark) -> None:
    world = benchmark.told_truth.read_world("man-gpt2")
    contents = world.truth.samples.select("content_id", fold=pl.Series(world.fold))
    folds = contents.group_by("content_id").agg(pl.len(), pl.col("fold").n_unique())
    assert folds["len"].max() == 12
    assert folds["fold"].max() == 1
