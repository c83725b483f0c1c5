"""Gaps of pairs of reference models: hand-made answers, what distilling must keep, refusals."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from gdc.errors import ConfigError, DataError
from gdc.schema import SELF_INFLUENCE
from gdc.scores import REFERENCES, distilled, distilled_fits, samples, score_samples
from gdc.scores.distilled_fits import Known
from gdc.scores.ngrams import ORDERS, ngram_nats
from tests.builders import trace_of
from tests.scores.builders import agreement, config

pytestmark = pytest.mark.slow

NAMES = ("reference_gap", "in_out_gap", "distilled_gap")
FAR = 20  # samples at the start that are memorized far more than any other


class Simulated:
    """Texts of different difficulty and memorization, a tracked run and four reference models."""

    def __init__(self, num_samples: int = 400, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        hard = rng.normal(6, 0.7, num_samples)
        self.memorized = rng.gamma(2, 0.6, num_samples)
        self.memorized[:FAR] = np.linspace(6, 12, FAR)
        noise = rng.normal(0, 0.3, (num_samples, 3))
        last = hard - 1.5 - self.memorized + noise[:, 2]
        middle = hard - 0.7 - self.memorized / 2 + noise[:, 1]
        self.ids = [f"c{number:04d}-0" for number in range(num_samples)]
        curves = np.stack([hard + noise[:, 0], middle, last], axis=1)
        self.curves = dict(zip(self.ids, curves.tolist(), strict=True))
        first = rng.random((num_samples, 2)) < 0.5
        self.seen = np.stack([first, ~first], axis=2).reshape(num_samples, 4)
        self.loss = (hard - 1.5)[:, None] - self.seen * self.memorized[:, None]
        self.loss += rng.normal(0, 0.8, self.loss.shape)

    @property
    def references(self) -> pl.DataFrame:
        columns = {"sample_id": self.ids, "loss": self.loss.tolist(), "seen": self.seen.tolist()}
        return pl.DataFrame(columns, schema=REFERENCES)

    @property
    def corpus(self) -> pl.DataFrame:
        contents = [name.removesuffix("-0") for name in self.ids]
        return pl.DataFrame({"sample_id": self.ids, "content_id": contents, "text": "some text"})

    @property
    def gains(self) -> pl.DataFrame:
        """What the steps taught of each sample, with as much noise as two pairs' gap has."""
        taught = self.memorized / 2 + np.random.default_rng(1).normal(0, 0.3, len(self.ids))
        columns = {"sample_id": self.ids, "gain": taught}
        return pl.DataFrame(columns, schema=SELF_INFLUENCE)

    def scores(
        self,
        names: Sequence[str] = NAMES,
        gains: pl.DataFrame | None = None,
        corpus: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        table, *_ = score_samples(
            [replace(trace_of(self.curves), gains=gains)],
            [self.corpus if corpus is None else corpus],
            config(enabled=names),
            seed=0,
            references=self.references,
        )
        return table.select("sample_id", *names)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    return Simulated()


@pytest.fixture(scope="module")
def scores(simulated: Simulated) -> pl.DataFrame:
    return simulated.scores()


def test_known_gaps_of_two_pairs() -> None:
    """Sample `a` was seen by models 0 and 3, `b` by 1 and 2: gaps of 3 and 1, of -1 and 5."""
    rows = [
        ("a", [1.0, 4.0, 3.0, 2.0], [True, False, False, True]),
        ("b", [1.0, 2.0, 1.0, 6.0], [False, True, True, False]),
    ]
    table, *_ = score_samples(
        [trace_of({"a": [6.0, 1.0], "b": [6.0, 2.0], "unknown": [6.0, 3.0]})],
        [pl.DataFrame({"sample_id": ["a", "b", "unknown"]})],
        config(enabled=("in_out_gap",)),
        seed=0,
        references=pl.DataFrame(rows, schema=REFERENCES, orient="row"),
    )
    assert table["in_out_gap"].to_list() == [2.0, 2.0, None]


def test_it_ranks_ordinary_text_better_than_either_gap_alone(
    simulated: Simulated, scores: pl.DataFrame
) -> None:
    found = {
        name: agreement(scores[name].to_numpy()[FAR:], simulated.memorized[FAR:]) for name in NAMES
    }
    assert found["distilled_gap"] > max(found["reference_gap"], found["in_out_gap"]) + 0.1


def test_the_gains_of_the_run_bring_it_closer_where_they_were_recorded(
    simulated: Simulated, scores: pl.DataFrame
) -> None:
    gains = simulated.gains
    with_gains = simulated.scores(gains=gains)
    ordinary = simulated.memorized[FAR:]
    closer = agreement(with_gains["distilled_gap"].to_numpy()[FAR:], ordinary)
    assert closer > agreement(scores["distilled_gap"].to_numpy()[FAR:], ordinary) + 0.02
    assert with_gains.drop("distilled_gap").equals(scores.drop("distilled_gap"))
    unknown = gains.with_columns(gain=pl.lit(None, pl.Float64))
    assert simulated.scores(gains=unknown)["distilled_gap"].null_count() == 0


def test_with_all_that_it_needs_the_influence_contrast_is_one_more_feature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a run with both modes and held-out texts, whose contrast alone tells what is memorized."""
    simulated = Simulated()
    unseen = {f"h{i:02d}": [9.0, 5.0, 5.0, 9.0, 9.0, 4.0] for i in range(24)}
    curves = {
        name: [9.0, 5.0, 5.0, 9.0, 9.0, 4.0 - min(3.5, known)]
        for name, known in zip(simulated.ids, simulated.memorized.tolist(), strict=True)
    }
    trace, other = trace_of(curves), trace_of(unseen)
    modes = pl.Series("mode", ["online"] * 3 + ["probe"] * 3)
    run = replace(
        trace,
        checkpoints=trace.checkpoints.with_columns(modes),
        heldout_index=other.index,
        heldout_losses=other.losses,
        gains=simulated.gains.with_columns(gain=pl.lit(1.0)),
    )
    more = pl.DataFrame({"sample_id": [*unseen], "content_id": [*unseen], "text": "some text"})
    corpus = pl.concat([simulated.corpus, more]).with_columns(num_copies=pl.lit(1, pl.Int64))
    seen: list[NDArray[np.float64]] = []

    def keep(known: Known) -> NDArray[np.float64]:
        seen.append(known.trace)
        return np.zeros(len(known.last))

    monkeypatch.setattr(distilled, "sample_gaps", keep)
    rules = config(enabled=("distilled_gap", "influence_contrast"), mode="probe")
    table = score_samples([run], [corpus], rules, seed=0, references=simulated.references).samples
    assert seen[0][:, -1].tolist() == table["influence_contrast"].to_list()
    assert seen[0][:, -2].tolist() == [1.0] * len(simulated.ids)


def test_what_only_gains_make_useful_is_read_where_there_are_some(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(what: str, of: pl.DataFrame) -> pl.DataFrame:
        read.append(what)
        return of

    monkeypatch.setattr(samples, "ngram_nats", lambda *of: noted("n-grams", ngram_nats(*of)))
    unseen = trace_of({"h-0": [6.0, 5.0, 4.0]})
    losses = unseen.losses.map_batches(lambda table: noted("held-out", table))
    run = replace(trace_of(simulated.curves), heldout_index=unseen.index, heldout_losses=losses)
    corpus = simulated.corpus.with_columns(num_copies=pl.lit(1, pl.Int64))
    rules = config(enabled=("distilled_gap",))
    for gains, expected in ((None, set()), (simulated.gains, {"n-grams", "held-out"})):
        score_samples(
            [replace(run, gains=gains)], [corpus], rules, seed=0, references=simulated.references
        )
        assert set(read) == expected


def test_what_the_halves_tell_of_unseen_losses_is_taken_out_of_them() -> None:
    """By hand: losses where not seen are those of the text, and half of what its half lacks."""
    rng = np.random.default_rng(0)
    first_saw = rng.random((60, 2)) < 0.5
    nats = rng.normal(5, 1, (60, 4, ORDERS))
    models = np.where(first_saw, [1, 3], [0, 2])
    unseen = np.take_along_axis(nats, models[:, :, None], axis=1)
    lacks = (unseen - nats.mean(axis=1, keepdims=True)) @ [0.5, 0.0, 0.25, 0.0, 0.0, 1.0]
    of_text = rng.normal(4, 1, 60)
    known = Known(
        content=np.arange(60),
        last=of_text,
        trace=np.zeros((60, 1)),
        out_loss=of_text[:, None] + lacks,
        in_loss=np.ones((60, 2)),
        first_saw=first_saw,
    )
    rows = pl.DataFrame({"half_nats": nats.reshape(60, -1)})
    lists = pl.col("half_nats").arr.to_list()
    found = distilled._without_composition(known, rows.with_columns(lists))
    assert found.out_loss == pytest.approx(np.column_stack([of_text, of_text]))
    is_first = pl.int_range(pl.len()) == 0
    found = distilled._without_composition(known, rows.with_columns(pl.when(~is_first).then(lists)))
    assert found.out_loss[0].tolist() == known.out_loss[0].tolist()
    assert found.out_loss[1:] == pytest.approx(np.column_stack([of_text, of_text])[1:])
    assert found.in_loss is known.in_loss


def test_texts_of_the_halves_bring_it_closer_where_the_corpus_is_at_hand() -> None:
    """Of 40 topics a model knows those in its half, which moves its loss of all their texts."""
    simulated = Simulated()
    rng = np.random.default_rng(2)
    topic = rng.integers(0, 40, len(simulated.ids))
    words = np.array([rng.bytes(6).hex() for _ in range(40)])
    texts = [f"{words[t]} {words[t]} {i}" for i, t in enumerate(topic)]
    counts = np.stack([np.bincount(topic, simulated.seen[:, k], 40) for k in range(4)], axis=1)
    simulated.loss -= 0.5 * (counts - counts.mean(axis=1, keepdims=True))[topic]
    plain = simulated.corpus.with_columns(text=pl.Series(texts))
    with_copies = plain.with_columns(num_copies=pl.lit(1, pl.Int64))
    ordinary = simulated.memorized[FAR:]
    without, closer = (
        agreement(simulated.scores(corpus=corpus)["distilled_gap"].to_numpy()[FAR:], ordinary)
        for corpus in (plain, with_copies)
    )
    assert closer > without + 0.02


def test_trees_of_a_part_of_many_samples_rank_as_well(
    simulated: Simulated, scores: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled_fits, "MAX_FITTED", 200)
    of_parts = simulated.scores()
    assert not of_parts.equals(scores)
    memorized, ours = simulated.memorized[FAR:], of_parts["distilled_gap"].to_numpy()[FAR:]
    assert agreement(ours, memorized) > agreement(scores["in_out_gap"].to_numpy()[FAR:], memorized)


def test_far_beyond_ordinary_text_it_keeps_the_order_of_the_gap(
    simulated: Simulated, scores: pl.DataFrame
) -> None:
    far, ordinary = scores["distilled_gap"][:FAR].to_numpy(), scores["distilled_gap"][FAR:]
    assert agreement(far, simulated.memorized[:FAR]) > 0.8
    assert (far > np.quantile(ordinary, 0.95)).mean() > 0.9


def test_the_row_order_changes_nothing(scores: pl.DataFrame) -> None:
    mixed = Simulated()
    mixed.curves = dict(reversed(mixed.curves.items()))
    assert mixed.scores().equals(scores)


def test_no_sample_is_scored_by_a_fit_to_its_own_gap(scores: pl.DataFrame) -> None:
    """One pair lies about one sample: the others of its fold keep their score to the last bit."""
    lied = Simulated()
    lied.loss[FAR, lied.seen[FAR]] -= 50.0
    before, after = (table["distilled_gap"] for table in (scores, lied.scores()))
    same_fold = np.arange(len(before)) % 5 == FAR % 5
    same_fold[FAR] = False
    unchanged = (before == after).to_numpy()
    assert unchanged[same_fold].all()
    assert not unchanged[~same_fold].all()


def test_an_unknown_sample_has_no_score_and_changes_no_other(scores: pl.DataFrame) -> None:
    more = Simulated()
    more.curves["unknown-0"] = [6.0, 5.0, 4.0]
    more_corpus = pl.DataFrame(
        {"sample_id": ["unknown-0"], "content_id": ["unknown"], "text": ["x"]}
    )
    table, *_ = score_samples(
        [trace_of(more.curves)],
        [more.corpus, more_corpus],
        config(enabled=NAMES),
        seed=0,
        references=more.references,
    )
    assert table["distilled_gap"].to_list() == [*scores["distilled_gap"].to_list(), None]


def test_two_reference_models_are_too_few() -> None:
    few = Simulated(60)
    few.loss, few.seen = few.loss[:, :2], few.seen[:, :2]
    with pytest.raises(DataError, match=r"at least 2 pair.* got 1\. Set reference.models to \[0"):
        few.scores()


def test_halves_that_are_not_complementary_are_refused() -> None:
    odd = Simulated(60)
    odd.seen[7] = [True, True, False, True]
    with pytest.raises(DataError, match="in_out_gap: expected at least 1 pair"):
        odd.scores(("in_out_gap",))


def test_fewer_contents_than_a_fit_needs_are_refused() -> None:
    with pytest.raises(DataError, match=r"at least 50 contents .* got 40"):
        Simulated(40).scores()


def test_a_corpus_without_contents_is_refused() -> None:
    some = Simulated(60)
    with pytest.raises(ConfigError, match="needs content_id, got none"):
        score_samples(
            [trace_of(some.curves)],
            [some.corpus.drop("content_id")],
            config(enabled=NAMES),
            seed=0,
            references=some.references,
        )
