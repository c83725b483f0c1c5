"""Cards against hand-made answers and a plain loop; what chance, order and scale may not change."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import PartitionConfig
from gdc.errors import DataError
from gdc.mapping import calibration
from gdc.mapping.calibration import calibrate, choose_axis, label_probes
from gdc.mapping.quadrants import AutoAxis, resolve_axis
from gdc.schema import CANARIES, CANARY_MEMORIZATION, SCORES, SCORES_BY_RUN
from gdc.stages import partition as stage
from gdc.workspace import files, paths, tables, tracking
from tests.builders import params_with

# Families of probes: (is_memorized, memorization), one row of the corpus each.
Families = Mapping[str, Sequence[tuple[bool, float]]]
PERFECT = [(True, 3.0)] * 6 + [(False, 1.0)] * 6
REVERSED = [(True, 1.0)] * 6 + [(False, 3.0)] * 6


def rule(value: float = 0.5, kind: str = "quantile", axis: str = "memorization") -> PartitionConfig:
    return PartitionConfig.model_validate(
        {
            "axis": axis,
            "difficulty": {"kind": "quantile", "value": 0.5},
            "memorization": {"kind": kind, "value": value},
        }
    )


def tables_of(
    families: Families, num_twins: int = 1000, ordinary: Sequence[float] = ()
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Scores, copies and probes, the three tables that are judged."""
    named = [
        (f"{family}-{place:02d}", family, is_memorized, score)
        for family, probes in families.items()
        for place, (is_memorized, score) in enumerate(probes)
    ]
    probes = [(name, family, 1, num_twins, 0.0, label) for name, family, label, _ in named]
    rows = [(f"{name}-0", 1.0, score, None, True) for name, *_, score in named]
    rows += [(f"text-{i}", 1.0, score, None, True) for i, score in enumerate(ordinary)]
    return (
        pl.DataFrame(rows, schema=SCORES, orient="row"),
        pl.DataFrame(
            [(f"{name}-0", name) for name, *_ in named],
            schema={"sample_id": pl.String, "canary_id": pl.String},
            orient="row",
        ),
        pl.DataFrame(probes, schema=CANARY_MEMORIZATION, orient="row"),
    )


def card_of(built: Mapping[str, Any], score: str = "memorization") -> dict[str, Any]:
    return next(dict(card) for card in built["cards"] if card["score"] == score)


def judged(families: Families, **tables: Any) -> dict[str, Any]:  # noqa: ANN401 - of tables_of
    return card_of(calibrate(*tables_of(families, **tables), rule(), seed=0))


def canaries_of(names: Iterable[str]) -> pl.DataFrame:
    """Named family, repeats and number."""
    rows = [(name, name[0], "p", "s", "ps", int(name.split("-")[1])) for name in names]
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


# ---- what is memorized


def test_a_canary_is_memorized_when_its_mean_is_below_all_twins_however_often_planted() -> None:
    losses = {
        "a-1-00": (1.0, 2.5),  # likelier than both twins on average, not in every run
        "a-16-00": (4.0, 1.0),  # planted 16 times and less likely than a twin
        "a-4-00": (2.0, 2.0),  # tied with the likelier twin
        "a-0-00": (3.0, 1.0),
        "a-0-01": (9.0, 9.0),
        "b-1-00": (0.0, 0.0),
    }
    probes = label_probes(canaries_of(losses), list(np.array(list(losses.values())).T))
    assert probes.rows() == [
        ("a-1-00", "a", 1, 2, 1.0, True),
        ("a-16-00", "a", 16, 2, 0.0, False),
        ("a-4-00", "a", 4, 2, 0.0, False),
        ("b-1-00", "b", 1, 0, None, None),
    ]


def test_without_canaries_there_is_no_probe() -> None:
    assert label_probes(pl.DataFrame(schema=CANARIES), [np.zeros(0)]).schema == CANARY_MEMORIZATION


# ---- cards


def test_a_card_by_hand() -> None:
    # In a, which chooses, 3 of 4 pairs are in order; in b, which reports, 5 of 6, one a tie.
    a = [(True, 4.0), (True, 2.0), (False, 3.0), (False, 1.0)]
    b = [(True, 9.0), (True, 5.0), (True, 3.0), (False, 5.0), (False, 2.0)]
    built = calibrate(*tables_of({"a": a, "b": b}, ordinary=[0.0] * 2 + [9.0] * 3), rule(), seed=0)
    card = card_of(built)
    # The median of all 14 values is 3.5: above it are 9 and the two 5 of b.
    assert (card["auroc_choose"], card["auroc_report"]["value"]) == (0.75, 4.5 / 6)
    assert (built["num_memorized"], built["num_unmemorized"]) == (3, 2)
    assert (card["precision"]["value"], card["recall"]["value"]) == (2 / 3, 2 / 3)
    assert (card["cost"], card["may_be_axis"], card["why"]) == ("one run", True, None)


def test_a_probe_has_the_mean_of_its_copies() -> None:
    scores, copies, probes = tables_of({"a": [*PERFECT]})
    more = pl.DataFrame([("extra", 1.0, 3.0, None, True)], schema=SCORES, orient="row")
    copies = pl.concat([copies, pl.DataFrame({"sample_id": ["extra"], "canary_id": ["a-06"]})])
    card = card_of(calibrate(pl.concat([scores, more]), copies, probes, rule(), seed=0))
    # a-06, unmemorized, has 2 in place of 1: still below all memorized ones.
    assert card["auroc_report"]["value"] == 1.0


quarters = st.integers(0, 8).map(lambda n: n / 4)
labelled = st.lists(st.tuples(st.booleans(), quarters), min_size=2, max_size=8).filter(
    lambda probes: len({label for label, _ in probes}) == 2
)


@given(a=labelled, b=labelled, c=labelled, d=labelled)
def test_aurocs_match_a_plain_loop(a: Any, b: Any, c: Any, d: Any) -> None:  # noqa: ANN401
    def by_hand(probes: Sequence[tuple[bool, float]]) -> float:
        pairs = [
            (one > other) + (one == other) / 2
            for is_memorized, one in probes
            for is_too, other in probes
            if is_memorized and not is_too
        ]
        return sum(pairs) / len(pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "NUM_RESAMPLES", 20)
        card = judged({"a": a, "b": b, "c": c, "d": d})
    assert card["auroc_choose"] == pytest.approx((by_hand(a) + by_hand(c)) / 2)
    interval = card["auroc_report"]
    assert interval["value"] == pytest.approx((by_hand(b) + by_hand(d)) / 2)
    assert interval["low"] <= interval["value"] <= interval["high"]


@given(families=st.fixed_dictionaries({"a": labelled, "b": labelled}), seed=st.integers(0, 99))
def test_row_order_does_not_matter_and_neither_does_the_scale(families: Any, seed: int) -> None:  # noqa: ANN401
    def shuffled(table: pl.DataFrame) -> pl.DataFrame:
        return table.sample(fraction=1, shuffle=True, seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "NUM_RESAMPLES", 20)
        scores, copies, probes = tables_of(families, ordinary=[0.5, 1.5])
        built = calibrate(scores, copies, probes, rule(), seed=seed)
        again = calibrate(shuffled(scores), shuffled(copies), shuffled(probes), rule(), seed=seed)
        grown = scores.with_columns(memorization=pl.col("memorization").exp())
        other = card_of(calibrate(grown, copies, probes, rule(), seed=seed))
    assert again == built
    for name in ("auroc_choose", "auroc_report", "verdict"):
        assert other[name] == card_of(built)[name]


# ---- verdicts


@pytest.mark.parametrize(
    ("probes", "value", "verdict"),
    [
        pytest.param(PERFECT, 1.0, "predicts memorization here", id="all in order"),
        pytest.param(REVERSED, 0.0, "does not", id="the wrong way round"),
        pytest.param([(i % 2 == 0, 1.0) for i in range(12)], 0.5, "does not", id="one value"),
        pytest.param(PERFECT[5:7], 1.0, "not shown", id="two in order may be chance"),
        pytest.param(REVERSED[5:7], 0.0, "not shown", id="and two the wrong way round"),
        pytest.param(PERFECT[3:9], 1.0, "not shown", id="one in 20 by chance"),
        pytest.param(PERFECT[2:10], 1.0, "predicts memorization here", id="one in 70 by chance"),
    ],
)
def test_verdicts(probes: Sequence[tuple[bool, float]], value: float, verdict: str) -> None:
    card = judged({"a": probes})
    assert (card["auroc_report"]["value"], card["verdict"]) == (value, verdict)


def test_scores_of_chance_are_rarely_said_to_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "NUM_RESAMPLES", 200)
    scores, copies, probes = tables_of(dict.fromkeys("abcd", PERFECT))
    rng = np.random.default_rng(0)
    chance = {f"chance_{i}": rng.normal(size=scores.height) for i in range(60)}
    built = calibrate(scores.with_columns(**chance), copies, probes, rule(), seed=0)
    verdicts = [c["verdict"] for c in built["cards"] if c["score"].startswith("chance")]
    assert verdicts.count("not shown") >= 54
    assert verdicts.count("predicts memorization here") <= 4


def judged_world(seed: int, num_known: int) -> dict[str, Any]:
    """Two families whose secrets have losses by chance, but for the known ones, far lower.

    ``memorization`` is minus the loss and some noise; ``random`` knows nothing.
    """
    rng = np.random.default_rng(seed)
    planted = [f"{family}-1-{i:02d}" for family in "ab" for i in range(30)]
    twins = [f"{family}-0-{i:02d}" for family in "ab" for i in range(10)]
    losses = rng.normal(size=80)
    losses[[i for i in range(60) if i % 30 < num_known]] -= 9.0
    probes = label_probes(canaries_of(planted + twins), [losses])
    scores = pl.DataFrame(
        {
            "sample_id": planted,
            "difficulty": 1.0,
            "memorization": -losses[:60] + rng.normal(scale=0.5, size=60),
            "first_learned": None,
            "never_learned": True,
        },
        schema=SCORES,
    ).with_columns(random=rng.normal(size=60))
    copies = pl.DataFrame({"sample_id": planted, "canary_id": planted})
    return calibrate(scores, copies, probes, rule(), seed=seed)


def test_losses_by_chance_rarely_make_a_score_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "NUM_RESAMPLES", 100)
    worlds = [judged_world(seed, num_known=0) for seed in range(40)]
    verdicts = [card_of(world)["verdict"] for world in worlds]
    # A family can answer in at most 1 of 40 worlds, so one of two can in at most 1 of 20: more than
    # 6 of 40 in 1 % of cases.
    assert verdicts.count("predicts memorization here") <= 6
    # auto needs both: in at most 1 of 1600.
    assert not any(world["auto"]["is_validated"] for world in worlds)


def test_a_score_that_sees_real_memorization_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "NUM_RESAMPLES", 200)
    for world in (judged_world(seed, num_known=15) for seed in range(5)):
        assert card_of(world)["verdict"] == "predicts memorization here"
        assert (world["auto"]["axis"], world["auto"]["is_validated"]) == ("memorization", True)
        assert world["num_memorized"] >= 15


@given(num_probes=st.integers(1, 4), num_twins=st.integers(1, 3), data=st.data())
def test_the_chance_of_so_many_memorized_is_that_over_all_orders(
    num_probes: int, num_twins: int, data: st.DataObject
) -> None:
    num_memorized = data.draw(st.integers(0, num_probes))
    numbers = range(num_probes + num_twins)
    found = [
        sum(place < min(dealt[num_probes:]) for place in dealt[:num_probes]) >= num_memorized
        for dealt in permutations(numbers)
    ]
    chance = calibration._chance_of(num_memorized, num_probes, num_twins)
    assert chance == pytest.approx(np.mean(found))


# ---- what no card can say


@pytest.mark.parametrize(
    ("families", "num_twins", "why"),
    [
        pytest.param({}, 20, None, id="no canaries"),
        pytest.param({"a": [(True, 1.0)] * 3}, 20, "3 of 3 canaries are memorized", id="all known"),
        pytest.param({"a": [(False, 1.0)]}, 20, "0 of 1 canaries are memorized", id="none known"),
        pytest.param(
            {"a": PERFECT}, 8, "expected at least 9 twins (num_twins), got 8", id="too few twins"
        ),
        pytest.param(
            # One is in 4 of 24 cases; two, which can answer, in 4 * 3 of 24 * 23.
            {"a": [(True, 1.0)] + [(False, 0.0)] * 3},
            20,
            "no more are likelier than all twins than chance gives",
            id="one by chance",
        ),
    ],
)
def test_what_cannot_be_answered_is_null_and_says_why(
    families: Families, num_twins: int, why: str | None
) -> None:
    tables = tables_of(families, num_twins, ordinary=[0.0, 1.0])
    built = calibrate(*tables, rule(), seed=0)
    for card in built["cards"]:
        values = [card[name] for name in ("auroc_choose", "auroc_report", "precision", "recall")]
        assert values == [None] * 4
        assert (card["verdict"], card["why"]) == ("not shown", "No family of canaries can answer.")
    assert [family["why"] for family in built["families"].values()] == ([why] if why else [])
    assert built["auto"]["axis"] == "memorization"
    assert not built["auto"]["is_validated"]
    assert built["auto"]["reason"].startswith("auto cannot choose: ")
    assert (why or "Plant canaries") in built["auto"]["reason"]
    json.dumps(built, allow_nan=False)


def test_two_of_four_are_more_than_chance_gives_and_can_answer() -> None:
    built = calibrate(*tables_of({"a": [*PERFECT[4:8]]}, 20), rule(), seed=0)
    assert built["families"]["a"]["why"] is None


def test_a_family_without_twins_has_no_counts() -> None:
    scores, copies, probes = tables_of({"a": PERFECT, "b": PERFECT}, 0)
    probes = probes.with_columns(is_memorized=pl.lit(None, pl.Boolean))
    built = calibrate(scores, copies, probes, rule(), seed=0)
    assert built["families"]["a"] == {
        "num_memorized": None,
        "num_unmemorized": None,
        "num_twins": 0,
        "why": "expected at least 9 twins (num_twins), got 0",
        "role": None,
    }
    assert (built["num_memorized"], built["num_unmemorized"]) == (0, 0)


def test_a_score_that_some_canary_lacks_is_not_judged() -> None:
    assert judged({"a": [(True, float("nan")), *PERFECT]}) | {"may_be_axis": None} == {
        "score": "memorization",
        "cost": "one run",
        "may_be_axis": None,
        "auroc_choose": None,
        "auroc_report": None,
        "low_for_auto": None,
        "precision": None,
        "recall": None,
        "verdict": "not shown",
        "why": "memorization has no value for some of the canaries.",
    }
    tables = tables_of({"a": PERFECT}, ordinary=[float("nan")])
    card = card_of(calibrate(*tables, rule(), seed=0))
    assert (card["may_be_axis"], card["verdict"]) == (False, "predicts memorization here")


def test_a_cut_in_units_of_one_score_is_not_laid_on_others() -> None:
    tables = tables_of({"a": PERFECT})
    for config in (rule(2.0, "absolute"), rule(0.1, "conformal", "calibrated_drop_log_p")):
        built = calibrate(*tables, config, seed=0)
        card = card_of(built, "difficulty")
        assert (card["precision"], card["recall"]) == (None, None)
        assert card["why"] == f"The cut, {config.memorization.kind}, is for {config.axis} alone."
    assert card_of(calibrate(*tables, rule(2.0, "absolute"), seed=0))["recall"]["value"] == 1.0


def test_nothing_above_the_cut_has_a_recall_and_no_precision() -> None:
    card = judged({"a": PERFECT}, ordinary=[9.0] * 30)
    assert (card["precision"], card["recall"]["value"]) == (None, 0.0)
    assert card["why"] == "No canary is above the cut."


def test_a_planted_canary_without_a_score_is_refused() -> None:
    scores, copies, probes = tables_of({"a": PERFECT})
    with pytest.raises(DataError, match=r"every planted canary, got 1 without, first a-00\."):
        calibrate(scores.filter(pl.col("sample_id") != "a-00-0"), copies, probes, rule(), seed=0)


# ---- the choice


def test_families_that_can_answer_take_turns_by_name_and_a_single_one_reports() -> None:
    names = {"d": PERFECT, "a": PERFECT, "b": [(True, 1.0)], "c": PERFECT}
    families = calibrate(*tables_of(names), rule(), seed=0)["families"]
    assert {name: family["role"] for name, family in families.items()} == {
        "a": "choose",
        "b": None,
        "c": "report",
        "d": "choose",
    }
    alone = calibrate(*tables_of({"a": PERFECT}), rule(), seed=0)
    assert alone["families"]["a"]["role"] == "report"
    assert card_of(alone)["auroc_choose"] is None
    assert card_of(alone)["verdict"] == "predicts memorization here"
    assert (alone["auto"]["axis"], alone["auto"]["is_validated"]) == ("memorization", False)
    assert alone["auto"]["reason"].startswith(
        "auto cannot choose: one family of canaries has to choose and another one to report, and "
        "1 can answer. So auto takes memorization, the paper's. Plant canaries"
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_is_reported_has_no_part_in_the_order_in_which_scores_are_asked(seed: int) -> None:
    scores, copies, probes = tables_of({"a": PERFECT, "b": PERFECT})
    rng, is_reporting = np.random.default_rng(seed), pl.col("sample_id").str.starts_with("b")
    names = ["memorization", "iqr", "std", "min_loss"]
    drawn = scores.with_columns(
        pl.Series(name, rng.normal(size=scores.height)) + 2 * pl.col("memorization") * i / 3
        for i, name in enumerate(names)
    )
    # The reporting family the other way round, and other labels.
    turned = drawn.with_columns(pl.when(is_reporting).then(-pl.col(names)).otherwise(pl.col(names)))
    labels = pl.Series(rng.permutation(probes["is_memorized"].to_numpy()[12:]))
    relabelled = probes.with_columns(
        is_memorized=pl.concat([probes["is_memorized"][:12], labels], rechunk=True)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "NUM_RESAMPLES", 20)
        built = calibrate(drawn, copies, probes, rule(), seed=0)
        other = calibrate(turned, copies, relabelled, rule(), seed=0)
    order = [[(c["score"], c["auroc_choose"]) for c in b["cards"]] for b in (built, other)]
    assert order[0] == order[1]


def judged_score(name: str, choose: float, low: float, *, may: bool = True) -> dict[str, Any]:
    return {
        "score": name,
        "may_be_axis": may,
        "auroc_choose": choose,
        "auroc_report": {"value": 0.75, "low": 0.5, "high": 1.0},
        "low_for_auto": low,
        "verdict": "predicts memorization here",
    }


TWO = {"a": {"why": None}, "b": {"why": None}}


def test_the_best_by_choice_that_is_validated_is_taken() -> None:
    cards = [
        judged_score("num_copies", 1.0, 0.6, may=False),
        judged_score("iqr", 0.9, 0.5),
        judged_score("std", 0.8, 0.6),
        judged_score("min_loss", 0.7, 0.6),
    ]
    assert choose_axis(cards, TWO) == {
        "axis": "std",
        "is_validated": True,
        "reason": "std is the best in the choosing families that predicts memorization in the "
        "reporting ones: AUROC 0.80 there, 0.75 [0.50, 1.00] in the reporting ones, number 2 by "
        "choice. 2 asked, of at most 3, each at 0.83% one-sided.",
    }


def test_with_none_of_the_best_three_validated_the_papers_score_is_taken() -> None:
    cards = [judged_score(f"s{i}", 0.9 - i / 10, 0.6 if i == 3 else 0.4) for i in range(4)]
    cards.append(judged_score("wrong", 0.25, 0.6))
    choice = choose_axis(cards, TWO | {"c": {"why": "0 of 5 are memorized"}})
    assert (choice["axis"], choice["is_validated"]) == ("memorization", False)
    assert choice["reason"].startswith(
        "No score that may be an axis and is above chance in the choosing families is validated in "
        "the reporting ones: 3 asked, of at most 3, each at 0.83% one-sided. So auto takes "
        "memorization, the paper's. Best by choice: s0 AUROC 0.90 there, 0.75 [0.50, 1.00]"
    )
    assert ("s2 " in choice["reason"], "s3 " in choice["reason"]) == (True, False)
    assert "Families that cannot answer: c: 0 of 5 are memorized." in choice["reason"]


def test_auto_asks_for_more_than_a_verdict_does() -> None:
    # All in order: by chance 1 in 70, which is less than 2.5 % and more than a third of it.
    built = calibrate(*tables_of({"a": PERFECT, "b": PERFECT[2:10]}), rule(), seed=0)
    assert card_of(built)["verdict"] == "predicts memorization here"
    assert not built["auto"]["is_validated"]
    assert ": 1 asked, of at most 3" in built["auto"]["reason"]


def test_scores_that_ask_no_model_and_the_other_axis_are_never_taken() -> None:
    scores, copies, probes = tables_of({"a": PERFECT, "b": PERFECT})
    score = pl.col("memorization")
    known = scores.with_columns(
        difficulty=score, first_learned=score, random=score, num_copies=score, iqr=score,
        memorization=pl.lit(0.0),
    )  # fmt: skip
    built = calibrate(known, copies, probes, rule(), seed=0)
    assert {card["score"] for card in built["cards"] if card["auroc_choose"] == 1.0} == {
        "difficulty", "first_learned", "random", "num_copies", "iqr",
    }  # fmt: skip
    assert (built["auto"]["axis"], built["auto"]["is_validated"]) == ("iqr", True)


class FakeRun:
    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        assert metrics

    def log_artifact(self, path: Path) -> None:
        assert path.exists()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags = dict(tags)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """An empty folder; the run that stage partition opens is returned."""
    monkeypatch.chdir(tmp_path)
    fake = FakeRun()

    @contextmanager
    def stage_run(_stage: str, _params: Mapping[str, Any]) -> Iterator[FakeRun]:
        yield fake

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    return fake


@pytest.mark.parametrize(
    ("asked", "is_validated", "axis"),
    [
        pytest.param("auto", True, "iqr", id="auto takes what is validated"),
        pytest.param("auto", False, "memorization", id="auto falls back and says so"),
        pytest.param("memorization", True, "memorization", id="a named axis stays"),
    ],
)
def test_the_map_is_cut_on_the_axis_that_auto_stands_for(
    workspace: FakeRun, asked: str, is_validated: bool, axis: str
) -> None:
    partition = rule().model_dump(mode="json") | {"axis": asked}
    files.write_json(paths.PARAMS, params_with(partition=partition).model_dump(mode="json"))
    families = {"a": PERFECT, "b": PERFECT}
    scores, copies, probes = tables_of(families, ordinary=[0.0] * 9)
    scores = scores.with_columns(iqr=pl.col("memorization"), memorization=pl.lit(0.0))
    seen = scores if is_validated else scores.drop("iqr")
    built = calibrate(seen, copies, probes, rule(), seed=0)
    assert built["auto"]["is_validated"] == is_validated
    tables.write("scores", scores)
    tables.write("scores_by_run", pl.DataFrame(schema=SCORES_BY_RUN))
    files.write_json(paths.CALIBRATION, built)
    stage.main()
    summary = files.read_json(paths.QUADRANTS_SUMMARY)
    assert (summary["axis"], workspace.tags) == (axis, {"gdc.axis": axis})
    warnings = [w for w in summary["warnings"] if w.startswith("No score that may be an axis")]
    assert warnings == ([] if is_validated else [built["auto"]["reason"]])
    num_hot = sum(summary["counts"][q] for q in ("hotspot-memorized", "noisy-outlier"))
    assert num_hot == (12 if axis == "iqr" else 0)


def test_a_named_axis_is_left_as_it_is() -> None:
    auto = AutoAxis(axis="iqr", is_validated=False, reason="no")
    assert resolve_axis(rule(), auto) == (rule(), ())
