"""The leaderboard against scores that are known."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from polars.testing import assert_frame_equal
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from gdc import scores
from gdc.config import Params
from gdc.corpus.halves import assign_halves
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.leaderboard.board import (
    QUANTILES,
    TRAINED,
    Judge,
    Scored,
    agreement,
    build_leaderboard,
    judge_score,
)
from gdc.leaderboard.page import leaderboard_png, markdown
from gdc.recording.trace import Trace
from gdc.schema import CORPUS, REFERENCES
from gdc.workspace import half_models, paths, tables
from tests.builders import params_with, trace_of

NUM_ORDINARY = 300


def samples_of() -> pl.DataFrame:
    """Ordinary text, two canaries planted once, two planted four times, one in between."""
    rows: list[tuple[str, str, str | None, int | None]] = [
        (f"o{i:03}-0", f"o{i:03}", None, None) for i in range(NUM_ORDINARY)
    ]
    for name, repeats in (("c0", 1), ("c1", 1), ("c2", 2), ("c3", 4), ("c4", 4)):
        rows += [(f"{name}-{copy}", name, "digits", repeats) for copy in range(repeats)]
    return pl.DataFrame(rows, schema=TRAINED, orient="row").sort("sample_id")


def truth_of(samples: pl.DataFrame) -> NDArray[np.float64]:
    """By content, and higher the more often a canary was planted."""
    draws = np.random.default_rng(0).exponential(1, samples["content_id"].n_unique())
    by_content = dict(zip(samples["content_id"].unique().sort(), draws, strict=True))
    memorization = [by_content[name] for name in samples["content_id"]]
    num_repeats = samples["num_repeats"].fill_null(0).to_list()
    return np.array([a + b for a, b in zip(memorization, num_repeats, strict=True)])


def references_of(samples: pl.DataFrame, noise: float = 0.3) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    first = rng.random((samples.height, 4)) < 0.5
    seen = np.stack([first, ~first], axis=2).reshape(samples.height, 8)
    losses = 5 - seen * truth_of(samples)[:, None] + rng.normal(0, noise, seen.shape)
    table = {"sample_id": samples["sample_id"], "loss": losses.tolist(), "seen": seen.tolist()}
    return pl.DataFrame(table, schema=REFERENCES)


def measured_of(references: pl.DataFrame) -> NDArray[np.float64]:
    losses = np.array(references["loss"].to_list())
    seen = np.array(references["seen"].to_list())
    pairs = [(row[~was].mean(), row[was].mean()) for row, was in zip(losses, seen, strict=True)]
    return np.array([out - inside for out, inside in pairs])


def scores_of(
    samples: pl.DataFrame, columns: Mapping[str, Sequence[float | None] | NDArray[np.float64]]
) -> pl.DataFrame:
    fixed = {
        "difficulty": [1.0] * samples.height,
        "memorization": [0.0] * samples.height,
        "first_learned": [None] * samples.height,
    }
    schema = dict.fromkeys((*fixed, *columns), pl.Float64)
    table = pl.DataFrame({**fixed, **columns}, schema=schema)
    return table.select(
        samples["sample_id"], *fixed, never_learned=pl.lit(value=False), **{c: c for c in columns}
    )


def trace_with_truth(samples: pl.DataFrame) -> Trace:
    """Ends at a loss of 9 minus the truth."""
    curves = zip(samples["sample_id"], truth_of(samples), strict=True)
    return trace_of({name: [9.0, 9.0 - value, 9.0, 9.0 - value] for name, value in curves})


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    samples = samples_of()
    references = references_of(samples)
    measured = measured_of(references)
    partial = [None if i % 3 else value for i, value in enumerate(measured)]
    draws = np.random.default_rng(5).random((2, samples.height))
    tables = [
        scores_of(samples, {"final_loss": measured, "random": draw, "reference_gap": partial})
        for draw in draws
    ]
    # As stage `score` writes them.
    runs = [table.drop("first_learned", "never_learned") for table in tables]
    shuffled = samples.sample(fraction=1, shuffle=True, seed=3)
    trace = trace_with_truth(samples)
    mixed = tables[0].sample(fraction=1, shuffle=True, seed=1)
    scored = Scored(mixed, runs, [trace], "online", {"final_loss": 0.0123})
    return build_leaderboard(shuffled, references, scored, seed=0)


def row_of(board: Mapping[str, Any], name: str) -> dict[str, Any]:
    (row,) = [row for row in board["scores"] if row["score"] == name]
    return dict(row)


def test_a_score_equal_to_the_truth_finds_all(board: dict[str, Any]) -> None:
    row = row_of(board, "final_loss")
    everything = {"value": 1.0, "low": 1.0, "high": 1.0}
    for measure in ("spearman", "spearman_ordinary", "auroc", "average_precision"):
        assert row[measure] == pytest.approx(everything)
    assert row["canaries"] == {"digits": everything}
    assert row["agreement"] == pytest.approx(1)


def test_a_random_score_finds_nothing(board: dict[str, Any]) -> None:
    row = row_of(board, "random")
    assert row["spearman"]["low"] < 0 < row["spearman"]["high"]
    assert row["auroc"]["low"] < 0.5 < row["auroc"]["high"]
    assert abs(row["spearman"]["value"]) < 0.15
    assert abs(row["auroc"]["value"] - 0.5) < 0.15
    assert abs(row["agreement"]) < 0.15


def test_scores_stand_in_falling_order_and_undefined_ones_last(board: dict[str, Any]) -> None:
    names = [row["score"] for row in board["scores"]]
    assert names == [
        "final_loss", "reference_gap", "random", "difficulty", "first_learned", "memorization",
    ]  # fmt: skip
    constant = row_of(board, "difficulty")
    assert constant["spearman"] is None
    assert constant["auroc"]["value"] == 0.5
    assert constant["average_precision"]["value"] == board["num_top"] / board["num_samples"]
    assert row_of(board, "first_learned")["auroc"] is None


def test_a_score_is_judged_where_it_is_defined(board: dict[str, Any]) -> None:
    row = row_of(board, "reference_gap")
    assert row["num_samples"] == (board["num_samples"] + 2) // 3
    assert row["spearman"]["value"] == pytest.approx(1)


def test_the_board_says_what_it_rests_on(board: dict[str, Any]) -> None:
    references = references_of(samples_of())
    measured = measured_of(references)
    assert (board["num_models"], board["num_samples"], board["num_runs"]) == (8, 312, 2)
    assert board["num_ordinary"] == NUM_ORDINARY
    assert board["num_top"] == (measured > np.quantile(measured, 0.9)).sum()
    assert board["families"] == {"digits": {"num_repeats": 4, "num_most": 2, "num_once": 2}}
    assert board["truth_canaries"]["digits"]["value"] == 1
    assert 0.8 < board["ceiling"]["ordinary"] <= board["ceiling"]["all"] < 1
    levels = [(row["family"], row["num_repeats"], row["num_samples"]) for row in board["truth"]]
    assert levels == [(None, None, 300), ("digits", 1, 2), ("digits", 2, 2), ("digits", 4, 8)]
    json.dumps(board, allow_nan=False)


def test_the_curve_of_epsilon_matches_forget_events_by_numpy(board: dict[str, Any]) -> None:
    samples = samples_of()
    losses = trace_with_truth(samples).losses.collect().to_numpy().astype(np.float64)
    measured = measured_of(references_of(samples))
    is_top = measured > np.quantile(measured, 0.9)
    curve = board["epsilon_curve"]
    assert [point["quantile"] for point in curve] == list(QUANTILES)
    assert (curve[0]["quantile"], curve[-1]["quantile"]) == (0.005, 0.75)
    for point in curve:
        epsilon = np.quantile(losses, point["quantile"])
        forget = ((losses[:, :-1] < epsilon) & (losses[:, 1:] > epsilon)).mean(axis=1)
        below = (losses < epsilon).any(axis=1)
        assert point["epsilon"] == pytest.approx(epsilon)
        assert point["auroc"] == pytest.approx(roc_auc_score(is_top, forget))
        assert point["auroc_ever_below"] == pytest.approx(roc_auc_score(is_top, below))
        if len(set(forget)) > 1:
            found = spearmanr(forget, measured).statistic
            assert point["spearman"] == pytest.approx(found)


def test_copies_are_resampled_together_and_the_same_each_time() -> None:
    samples = samples_of()
    judge = Judge(samples, truth_of(samples), seed=7)
    again = Judge(samples, truth_of(samples), seed=7)
    assert (judge.weights == again.weights).all()
    assert (judge.weights[0] == 1).all()
    for name in ("c3", "c4"):
        copies = judge.weights[:, (samples["content_id"] == name).to_numpy()]
        assert copies.shape[1] == 4
        assert (copies == copies[:, :1]).all()
    first = ~samples["content_id"].is_duplicated() | samples["sample_id"].str.ends_with("-0")
    assert (judge.weights[:, first.to_numpy()].sum(axis=1) == first.sum()).all()


def test_an_interval_covers_a_known_correlation() -> None:
    rng = np.random.default_rng(2)
    names = [f"{i:04}" for i in range(800)]
    rows = [(name, name, None, None) for name in names]
    samples = pl.DataFrame(rows, schema=TRAINED, orient="row")
    memorization = rng.normal(size=800)
    judge = Judge(samples, memorization, seed=0)
    row = judge_score(memorization + rng.normal(size=800), judge)
    # The rank correlation of two normals with correlation r is 6 asin(r / 2) / pi.
    expected = 6 * np.arcsin(np.sqrt(0.5) / 2) / np.pi
    assert row["spearman"]["low"] < expected < row["spearman"]["high"]
    assert row["spearman"]["high"] - row["spearman"]["low"] < 0.1
    assert row["canaries"] == {}


def test_agreement_needs_two_runs() -> None:
    one, other = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    assert agreement([one]) is None
    assert agreement([one, other]) == -1
    assert agreement([one, one, other]) == pytest.approx(-1 / 3)
    assert agreement([one, np.full(3, np.nan)]) is None


def test_every_score_has_a_cost() -> None:
    costs = {name: scores.cost_class(name) for name in [*scores.REGISTRY, "difficulty"]}
    assert costs["difficulty"] == costs["forget"] == costs["zlib"] == "one run"
    assert {costs[name] for name in ("hard_token_drop", "self_influence")} == {"one run"}
    assert costs["num_copies"] == costs["random"] == "no model"
    assert costs["reference_gap"] == costs["reference_gap_calibrated"] == "reference models"


def test_the_table_holds_the_ceiling_first_and_every_score(board: dict[str, Any]) -> None:
    page = markdown(board)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    start = rows.index(next(row for row in rows if row.startswith("| score")))
    header, _, best, first, *others = rows[start:]
    assert header.count("|") == best.count("|") == first.count("|")
    assert best.startswith(f"| *best possible* | - | - | {board['ceiling']['all']:.3f} |")
    assert best.endswith("| - | - | 1.000 [1.000, 1.000] | - |")
    share = f"{1 / board['ceiling']['ordinary']:.3f}"
    assert first.startswith(
        f"| `final_loss` | one run | 0.0123 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | {share}"
    )
    (gap,) = [row for row in others if row.startswith("| `reference_gap`")]
    assert gap.startswith("| `reference_gap` | reference models | - |")
    assert len(others) == len(board["scores"]) - 1
    assert "`reference_gap` is defined for 104 samples" in page
    assert "2 canaries planted 4 times against 2 planted once (fewer than 10 of either" in page


def test_the_picture_has_the_same_bytes_each_time(board: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        leaderboard_png(board, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "other.png").read_bytes()


def test_tables_that_do_not_fit_each_other_are_refused() -> None:
    samples = samples_of()
    references = references_of(samples)
    table = scores_of(samples, {})
    scored = Scored(table, [table], [trace_with_truth(samples)], "online")
    with pytest.raises(DataError, match="312 samples, 1 of them without"):
        build_leaderboard(samples, references[1:], scored, seed=0)
    with pytest.raises(DataError, match="at least 10 training samples, got 9 samples"):
        build_leaderboard(samples[:9], references, scored, seed=0)
    fewer = Scored(table[1:], [table], scored.traces, "online")
    with pytest.raises(DataError, match="312 samples of the truth, got 311"):
        build_leaderboard(samples, references, fewer, seed=0)
    with pytest.raises(SchemaError, match="samples: expected columns"):
        build_leaderboard(samples.drop("family"), references, scored, seed=0)


@pytest.mark.parametrize("num_models", [0, 2, 5])
def test_models_that_make_no_two_pairs_are_refused(num_models: int) -> None:
    with pytest.raises(ConfigError, match=f"--num-models: .*at least 4, got {num_models}"):
        half_models.require_num_models(num_models)


def benchmark_files(folder: Path) -> Params:
    """A corpus of four training samples and two held-out ones, as stage `ingest` leaves it."""
    rows = [(f"{i}-0", f"{i}", 1, f"{i} is a text", 10, 4, "x", "train", None) for i in range(4)]
    rows += [(f"v{i}-0", f"v{i}", 1, f"v{i}", 2, 1, "x", "validation", None) for i in range(2)]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS, orient="row"))
    (folder / paths.TOKENIZER).mkdir()
    (folder / paths.TOKENIZER / "tokenizer.json").write_text("{}", encoding="utf-8")
    return params_with()


def test_halves_are_those_of_no_reference_and_cover_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = benchmark_files(tmp_path)
    table = half_models.make_halves(params, 64)
    assert table["sample_id"].to_list() == ["0-0", "1-0", "2-0", "3-0"]
    assert_frame_equal(half_models.make_halves(params, 64), table)
    samples = tables.read("corpus").filter(pl.col("split") == "train")
    twins = pl.DataFrame(schema={"sample_id": pl.String, "duplicate_of": pl.String})
    references = assign_halves(samples, twins, num_models=64, seed=params.seed)
    for ours, theirs in zip(table["seen"], references["seen"], strict=True):
        assert 8 < (ours == theirs).sum() < 56


def test_losses_of_other_inputs_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = benchmark_files(tmp_path)
    here = half_models.folder(params, 4)
    slower = params.training.model_copy(update={"learning_rate": 0.5})
    fewer = params.reference.model_copy(update={"models": ()})
    assert half_models.folder(params, 4) == here
    assert half_models.folder(params.model_copy(update={"reference": fewer}), 4) == here
    assert half_models.folder(params.model_copy(update={"training": slower}), 4) != here
    assert half_models.folder(params, 6) != here
    tables.write("corpus", tables.read("corpus")[:5])
    assert half_models.folder(params, 4) != here


def test_losses_that_lack_samples_or_a_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = benchmark_files(tmp_path)
    ids = half_models.make_halves(params, 4)["sample_id"]
    schema = {"sample_id": pl.String, "loss": pl.Float32}
    table = pl.DataFrame({"sample_id": ids, "loss": [1.0, 2.0, 3.0, 4.0]}, schema=schema)
    for number in range(3):
        half_models.write_losses(half_models.losses_path(params, 4, number), table)
    with pytest.raises(DataError, match=r"3\.parquet: expected a Parquet file.*gdc benchmark"):
        half_models.read_truth(params, 4)
    half_models.write_losses(half_models.losses_path(params, 4, 3), table[1:])
    with pytest.raises(DataError, match="got 1 samples that are not"):
        half_models.read_truth(params, 4)
    half_models.write_losses(half_models.losses_path(params, 4, 3), table)
    truth = half_models.read_truth(params, 4)
    assert truth.schema == REFERENCES
    assert truth["loss"].to_list() == [[i + 1.0] * 4 for i in range(4)]
