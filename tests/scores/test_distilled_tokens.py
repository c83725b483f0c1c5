"""Gaps of single tokens: hand-made answers, a stretch that a mean hides, what changes nothing."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from gdc.errors import ConfigError, DataError
from gdc.schema import REFERENCES, TOKEN_LOSSES
from gdc.scores import distilled_tokens, score_samples
from gdc.scores.distilled_tokens import WINDOW_TOKENS, ReferenceTokens, moved
from tests.builders import trace_of
from tests.scores.builders import agreement, config

pytestmark = pytest.mark.slow

NAME = "distilled_window_gap"
NUM_TOKENS = 60
STRETCHES = 40  # samples at the start of which one stretch alone is memorized


class Simulated:
    """Texts with a memorized stretch among texts that are memorized a little everywhere."""

    def __init__(self, num_samples: int = 200) -> None:
        rng = np.random.default_rng(0)
        hard = rng.normal(6, 1, (num_samples, NUM_TOKENS))
        memorized = np.repeat(rng.gamma(2, 0.4, (num_samples, 1)), NUM_TOKENS, axis=1)
        memorized[:STRETCHES] = 0
        for sample in range(STRETCHES):
            start = rng.integers(NUM_TOKENS - WINDOW_TOKENS)
            memorized[sample, start : start + WINDOW_TOKENS] = 2 + sample / 20
        self.ids = [f"c{number:04d}-0" for number in range(num_samples)]
        first = rng.random((num_samples, 2)) < 0.5
        self.seen = np.stack([first, ~first], axis=2).reshape(num_samples, 4)
        seen = self.seen[:, None, :]
        # samples x tokens x models
        noise = rng.normal(0, 1, (num_samples, NUM_TOKENS, 4))
        self.models = hard[:, :, None] - seen * memorized[:, :, None] + noise
        late = hard - memorized + rng.normal(0, 1, hard.shape)
        self.looks = np.stack([hard + 1, late], axis=2)
        self.peak = np.array(
            [np.convolve(row, np.ones(WINDOW_TOKENS), "valid").max() for row in memorized]
        )

    @property
    def references(self) -> pl.DataFrame:
        loss = self.models.mean(axis=1)
        columns = {"sample_id": self.ids, "loss": loss.tolist(), "seen": self.seen.tolist()}
        return pl.DataFrame(columns, schema=REFERENCES)

    @property
    def reference_tokens(self) -> pl.DataFrame:
        lists = {str(k): self.models[:, :, k].tolist() for k in range(4)}
        schema = {"sample_id": pl.String()} | {name: pl.List(pl.Float32) for name in lists}
        return pl.DataFrame({"sample_id": self.ids, **lists}, schema=schema)

    @property
    def tokens(self) -> pl.DataFrame:
        early, late = (self.looks[:, :, look].tolist() for look in (0, 1))
        columns = {"sample_id": self.ids, "early": early, "late": late}
        return pl.DataFrame(columns, schema=TOKEN_LOSSES)

    def scores(self, reference_tokens: pl.DataFrame | None = None) -> pl.DataFrame:
        if reference_tokens is None:
            reference_tokens = self.reference_tokens
        curves = np.concatenate([self.looks[:, :, :1], self.looks], axis=2).mean(axis=1)
        trace = trace_of(dict(zip(self.ids, curves.tolist(), strict=True)))
        contents = [name.removesuffix("-0") for name in self.ids]
        corpus = pl.DataFrame({"sample_id": self.ids, "content_id": contents, "text": "a text"})
        table, *_ = score_samples(
            [replace(trace, tokens=(self.tokens, self.tokens.clear()))],
            [corpus],
            config(enabled=(NAME, "distilled_gap")),
            seed=0,
            references=self.references,
            reference_tokens=reference_tokens,
        )
        return table.select("sample_id", NAME, "distilled_gap")


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated()


@pytest.fixture(scope="module")
def scores(simulated: Simulated) -> pl.DataFrame:
    return simulated.scores()


def test_a_memorized_stretch_that_the_mean_hides_is_found(
    simulated: Simulated, scores: pl.DataFrame
) -> None:
    mean, window = (
        agreement(scores[name].to_numpy(), simulated.peak) for name in ("distilled_gap", NAME)
    )
    assert window > mean + 0.1
    is_stretch = np.arange(len(simulated.ids)) < STRETCHES
    found, by_mean = scores[NAME].to_numpy(), scores["distilled_gap"].to_numpy()
    assert np.median(found[is_stretch]) > np.quantile(found[~is_stretch], 0.75)
    assert np.median(by_mean[is_stretch]) < np.median(by_mean[~is_stretch])
    bits = simulated.peak / np.log(2)
    assert np.abs(found - bits).mean() < 0.5 * bits.std()


def test_gaps_are_moved_to_the_means_by_hand() -> None:
    found = moved(np.array([1.0, 3.0, 5.0]), np.array([2, 1]), np.array([0.0, 6.0]))
    assert found.tolist() == [-1.0, 1.0, 6.0]


def test_tokens_stand_one_sample_after_the_other_in_the_order_asked_for() -> None:
    models = pl.DataFrame(
        [("a", [1.0], [2.0]), ("b", [3.0, 4.0], [5.0, 6.0])],
        schema={"sample_id": pl.String, "0": pl.List(pl.Float32), "1": pl.List(pl.Float32)},
        orient="row",
    )
    rows = [("b", [0.5, 0.25], [0.0, 0.0]), ("c", [9.0], [9.0]), ("a", [7.0], [8.0])]
    looks = pl.DataFrame(rows, schema=TOKEN_LOSSES, orient="row")
    found = ReferenceTokens(models, looks).of(pl.Series(["b", "a"]))
    assert found.num_tokens.tolist() == [2, 1]
    assert found.models.tolist() == [[3.0, 5.0], [4.0, 6.0], [1.0, 2.0]]
    assert found.looks.tolist() == [[0.5, 0.0], [0.25, 0.0], [7.0, 8.0]]
    for unknown in ("c", "d"):
        with pytest.raises(DataError, match=r"got 1 samples with other numbers\. Re-run stages tr"):
            ReferenceTokens(models, looks).of(pl.Series(["a", unknown]))


def test_neither_the_order_of_rows_nor_the_size_of_blocks_changes_anything(
    simulated: Simulated, scores: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled_tokens, "_BLOCK", 77)
    assert simulated.scores(simulated.reference_tokens.reverse()).equals(scores)


def test_trees_of_a_part_of_the_tokens_rank_about_as_well(
    simulated: Simulated, scores: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled_tokens, "MAX_TOKENS", 4_000)
    of_parts = simulated.scores()
    assert not of_parts.equals(scores)
    part, whole = (
        agreement(table[NAME].to_numpy(), simulated.peak) for table in (of_parts, scores)
    )
    assert part > whole - 0.1


def test_no_token_is_scored_by_a_fit_to_its_own_gap(scores: pl.DataFrame) -> None:
    """One pair lies about one token: the other samples of its fold keep their score to the bit."""
    lied = Simulated()
    place = 100
    lied.models[place, 5, lied.seen[place]] -= 50.0
    unchanged = (scores[NAME] == lied.scores()[NAME]).to_numpy()
    same_fold = np.arange(len(unchanged)) % 5 == place % 5
    same_fold[place] = False
    assert unchanged[same_fold].all()
    assert not unchanged[~same_fold].all()


def test_without_token_losses_it_is_refused(simulated: Simulated) -> None:
    with pytest.raises(ConfigError, match=f"{NAME} needs reference_tokens, got none"):
        score_samples(
            [trace_of({key: [6.0, 5.0, 4.0] for key in simulated.ids})],
            [pl.DataFrame({"sample_id": simulated.ids, "content_id": simulated.ids, "text": "a"})],
            config(enabled=(NAME,)),
            seed=0,
            references=simulated.references,
        )
