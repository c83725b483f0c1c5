"""Cards against hand-made answers and a plain loop; what chance, order and scale may not change."""

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import DataError
from gdc.mapping import calibration, canary_families
from gdc.mapping.calibration import label_canaries
from gdc.schema import CANARIES, CANARY_MEMORIZATION, SCORES
from tests.mapping.calibration_builders import (
    PERFECT,
    REVERSED,
    Families,
    calibrated,
    canaries_of,
    card_of,
    judged,
    rule,
    tables_of,
    unseen_of,
)

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
    # Each tracked model says another secret verbatim.
    extracted = [np.array([True, *[False] * 5]), np.array([False, True, *[False] * 4])]
    canaries = label_canaries(
        canaries_of(losses), list(np.array(list(losses.values())).T), extracted
    )
    assert canaries.rows() == [
        ("a-1-00", "a", 1, 2, 1.0, True, True),
        ("a-16-00", "a", 16, 2, 0.0, False, True),
        ("a-4-00", "a", 4, 2, 0.0, False, False),
        ("b-1-00", "b", 1, 0, None, None, False),
    ]


def test_without_canaries_nothing_is_labelled() -> None:
    assert (
        label_canaries(pl.DataFrame(schema=CANARIES), [np.zeros(0)]).schema == CANARY_MEMORIZATION
    )


# ---- cards


def test_a_card_by_hand() -> None:
    # In a, which chooses, 3 of 4 pairs are in order; in b, which reports, 5 of 6, one a tie.
    a = [(True, 4.0), (True, 2.0), (False, 3.0), (False, 1.0)]
    b = [(True, 9.0), (True, 5.0), (True, 3.0), (False, 5.0), (False, 2.0)]
    built = calibrated(*tables_of({"a": a, "b": b}, ordinary=[0.0] * 2 + [9.0] * 3), rule(), seed=0)
    card = card_of(built)
    # The median of all 14 values is 3.5: above it are 9 and the two 5 of b.
    assert (card["auroc_choose"], card["auroc_report"]["value"]) == (0.75, 4.5 / 6)
    assert (built["num_memorized"], built["num_unmemorized"]) == (3, 2)
    assert (card["precision"]["value"], card["recall"]["value"]) == (2 / 3, 2 / 3)
    assert (card["cost"], card["may_be_axis"], card["why"]) == ("one run", True, None)


def test_a_canary_has_the_mean_of_its_copies() -> None:
    scores, copies, canaries = tables_of({"a": [*PERFECT]})
    more = pl.DataFrame([("extra", 1.0, 3.0, None, True)], schema=SCORES, orient="row")
    copies = pl.concat([copies, pl.DataFrame({"sample_id": ["extra"], "canary_id": ["a-06"]})])
    card = card_of(calibrated(pl.concat([scores, more]), copies, canaries, rule(), seed=0))
    # a-06, unmemorized, has 2 in index of 1: still below all memorized ones.
    assert card["auroc_report"]["value"] == 1.0


quarters = st.integers(0, 8).map(lambda n: n / 4)
labelled_pairs = st.lists(st.tuples(st.booleans(), quarters), min_size=2, max_size=8).filter(
    lambda canaries: len({label for label, _ in canaries}) == 2
)


@settings(max_examples=10)
@given(a=labelled_pairs, b=labelled_pairs, c=labelled_pairs, d=labelled_pairs)
def test_aurocs_match_a_plain_loop(a: Any, b: Any, c: Any, d: Any) -> None:  # noqa: ANN401
    def by_hand(canaries: Sequence[tuple[bool, float]]) -> float:
        pairs = [
            (one > other) + (one == other) / 2
            for is_memorized, one in canaries
            for is_too, other in canaries
            if is_memorized and not is_too
        ]
        return sum(pairs) / len(pairs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary_families, "NUM_RESAMPLES", 20)
        card = judged({"a": a, "b": b, "c": c, "d": d})
    assert card["auroc_choose"] == pytest.approx((by_hand(a) + by_hand(c)) / 2)
    interval = card["auroc_report"]
    assert interval["value"] == pytest.approx((by_hand(b) + by_hand(d)) / 2)
    assert interval["low"] <= interval["value"] <= interval["high"]


@settings(max_examples=12)
@given(
    families=st.fixed_dictionaries({"a": labelled_pairs, "b": labelled_pairs}),
    seed=st.integers(0, 99),
)
def test_row_order_does_not_matter_and_neither_does_the_scale(families: Any, seed: int) -> None:  # noqa: ANN401
    def shuffled(table: pl.DataFrame) -> pl.DataFrame:
        return table.sample(fraction=1, shuffle=True, seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary_families, "NUM_RESAMPLES", 20)
        scores, copies, canaries = tables_of(families, ordinary=[0.5, 1.5])
        built = calibrated(scores, copies, canaries, rule(), seed=seed)
        again = calibrated(
            shuffled(scores), shuffled(copies), shuffled(canaries), rule(), seed=seed
        )
        grown = scores.with_columns(memorization=pl.col("memorization").exp())
        other = card_of(calibrated(grown, copies, canaries, rule(), seed=seed))
    assert again == built
    for name in ("auroc_choose", "auroc_report", "verdict"):
        assert other[name] == card_of(built)[name]


# ---- verdicts


@pytest.mark.parametrize(
    ("canaries", "value", "verdict"),
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
def test_verdicts(canaries: Sequence[tuple[bool, float]], value: float, verdict: str) -> None:
    card = judged({"a": canaries})
    assert (card["auroc_report"]["value"], card["verdict"]) == (value, verdict)


@pytest.mark.slow
def test_scores_of_chance_are_rarely_said_to_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_families, "NUM_RESAMPLES", 200)
    scores, copies, canaries = tables_of(dict.fromkeys("abcd", PERFECT))
    rng = np.random.default_rng(0)
    chance = {f"chance_{i}": rng.normal(size=scores.height) for i in range(60)}
    built = calibrated(scores.with_columns(**chance), copies, canaries, rule(), seed=0)
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
    canaries = label_canaries(canaries_of(planted + twins), [losses])
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
    return calibrated(scores, copies, canaries, rule(), seed=seed)


def test_losses_by_chance_rarely_make_a_score_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_families, "NUM_RESAMPLES", 100)
    worlds = [judged_world(seed, num_known=0) for seed in range(40)]
    verdicts = [card_of(world)["verdict"] for world in worlds]
    # A family can judge in at most 1 of 40 worlds, so one of two can in at most 1 of 20: more than
    # 6 of 40 in 1 % of cases.
    assert verdicts.count("predicts memorization here") <= 6
    # auto needs both: in at most 1 of 1600.
    assert not any(world["auto"]["is_validated"] for world in worlds)


def test_a_score_that_sees_real_memorization_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_families, "NUM_RESAMPLES", 200)
    for world in (judged_world(seed, num_known=15) for seed in range(5)):
        assert card_of(world)["verdict"] == "predicts memorization here"
        assert (world["auto"]["axis"], world["auto"]["is_validated"]) == ("memorization", True)
        assert world["num_memorized"] >= 15


@given(num_planted=st.integers(1, 4), num_twins=st.integers(1, 3), data=st.data())
def test_the_chance_of_so_many_memorized_is_that_over_all_orders(
    num_planted: int, num_twins: int, data: st.DataObject
) -> None:
    num_memorized = data.draw(st.integers(0, num_planted))
    numbers = range(num_planted + num_twins)
    found = [
        sum(index < min(dealt[num_planted:]) for index in dealt[:num_planted]) >= num_memorized
        for dealt in permutations(numbers)
    ]
    chance = calibration._chance_of(num_memorized, num_planted, num_twins)
    assert chance == pytest.approx(np.mean(found))


# ---- what a score is asked


def test_canaries_that_are_not_memorized_and_twins_are_asked_and_every_comparison_is_told() -> None:
    families = {"a": [(True, 4.0), (True, 2.0), (False, 1.0)]}
    tables = tables_of(families, ordinary=[3.0, 1.0])
    unseen = unseen_of({"a": [3.0, 0.0]}, heldout=[5.0])
    card = card_of(calibrated(*tables, rule(), seed=0, unseen=unseen))
    assert card["asked"] == {"a": ["other canaries", "twins"]}
    # Of 2 x 3 pairs with 1, 3 and 0 the memorized one is higher in five.
    assert card["auroc_report"]["value"] == 5 / 6
    assert card["against"] == {
        "a": {"other canaries": 1.0, "twins": 0.75, "training text": 0.75, "held-out text": 0.0}
    }


def test_where_all_canaries_are_memorized_twins_decide_and_without_them_ordinary_text() -> None:
    tables = tables_of({"a": [(True, 4.0), (True, 2.0)]}, ordinary=[3.0, 1.0, 1.0, 1.0])
    unseen = unseen_of({"a": [3.0, 0.0]}, heldout=[])
    by_twins = card_of(calibrated(*tables, rule(), seed=0, unseen=unseen))
    assert (by_twins["asked"], by_twins["auroc_report"]["value"]) == ({"a": ["twins"]}, 0.75)
    by_text = card_of(calibrated(*tables, rule(), seed=0))
    assert by_text["asked"] == {"a": ["training text"]}
    assert by_text["auroc_report"]["value"] == 7 / 8


def test_with_nothing_to_compare_with_a_score_is_not_judged() -> None:
    card = judged({"a": [(True, 4.0), (True, 2.0)]})
    assert (card["auroc_report"], card["verdict"]) == (None, "not shown")
    assert card["why"] == "There is nothing to compare the memorized canaries with."


def test_a_score_that_puts_extracted_canaries_below_ordinary_text_is_no_axis() -> None:
    # In order within the family, and yet below two of three ordinary texts.
    tables = tables_of({"a": PERFECT}, ordinary=[4.0, 4.0, 2.0], are_extracted=True)
    card = card_of(calibrated(*tables, rule(), seed=0))
    assert card["auroc_report"]["value"] == 1.0
    assert card["extracted_against_text"] == {"a": pytest.approx(1 / 3)}
    assert (card["may_be_axis"], card["verdict"]) == (False, "does not")
    assert card["why"] == (
        "Extracted canaries lie below ordinary training text, AUROC a 0.33: such a score is no "
        "axis."
    )
    known = tables_of({"a": PERFECT}, ordinary=[4.0, 2.0, 2.0], are_extracted=True)
    above = card_of(calibrated(*known, rule(), seed=0))
    assert (above["may_be_axis"], above["verdict"]) == (True, "predicts memorization here")


def test_what_is_memorized_but_not_extracted_may_lie_below_ordinary_text() -> None:
    card = judged({"a": PERFECT}, ordinary=[4.0, 4.0, 2.0])
    assert card["extracted_against_text"] == {}
    assert (card["may_be_axis"], card["verdict"]) == (True, "predicts memorization here")


def with_gaps(gaps: Sequence[float | None], score: str = "memorization") -> dict[str, Any]:
    """The card of a score that ordinary texts have in their order, where half-models say this."""
    scores, copies, canaries = tables_of({"a": PERFECT}, ordinary=[float(i) for i in range(120)])
    scores = scores.with_columns(pl.col("memorization").alias(score))
    ids = [f"text-{i}" for i in range(120)]
    table = pl.DataFrame({"sample_id": ids, "gap": gaps}, schema_overrides={"gap": pl.Float64})
    return card_of(calibrated(scores, copies, canaries, rule(), seed=0, gaps=table), score)


def test_a_score_that_orders_ordinary_text_against_half_models_is_no_axis() -> None:
    card = with_gaps([-float(i) for i in range(120)])
    assert card["ordinary_text"]["value"] == pytest.approx(-1)
    assert (card["may_be_axis"], card["verdict"]) == (False, "predicts memorization here")
    assert card["why"] == (
        "On ordinary text it falls where what half-models measure rises, rank correlation -1.00 "
        "[-1.00, -1.00]: such a score is no axis."
    )
    same = with_gaps([float(i) for i in range(120)])
    assert (same["ordinary_text"]["value"], same["may_be_axis"]) == (pytest.approx(1), True)
    # Below zero by chance.
    shown = with_gaps([float(i % 7) - 0.005 * i for i in range(120)])
    assert shown["ordinary_text"]["low"] < shown["ordinary_text"]["value"] < 0
    assert (shown["ordinary_text"]["high"] > 0, shown["may_be_axis"]) == (True, True)


@pytest.mark.parametrize(
    ("gaps", "score"),
    [
        pytest.param([None] * 21 + [-float(i) for i in range(99)], "memorization", id="few texts"),
        pytest.param([-float(i) for i in range(120)], "reference_gap", id="reads half-models"),
        pytest.param([1.0] * 120, "memorization", id="all alike"),
    ],
)
def test_half_models_that_cannot_answer_refuse_no_score(
    gaps: list[float | None], score: str
) -> None:
    card = with_gaps(gaps, score)
    assert (card["ordinary_text"], card["may_be_axis"]) == (None, True)


# ---- what no card can say


@pytest.mark.parametrize(
    ("families", "num_twins", "why"),
    [
        pytest.param({}, 20, None, id="no canaries"),
        pytest.param({"a": [(False, 1.0)]}, 20, "0 of 1 canaries are memorized", id="none known"),
        pytest.param(
            {"a": PERFECT}, 8, "expected at least 9 twins (num_twins), got 8", id="too few twins"
        ),
        pytest.param(
            # One is in 4 of 24 cases; two, which can judge, in 4 * 3 of 24 * 23.
            {"a": [(True, 1.0)] + [(False, 0.0)] * 3},
            20,
            "no more are likelier than all twins than chance gives",
            id="one by chance",
        ),
    ],
)
def test_what_cannot_be_judged_is_null_and_says_why(
    families: Families, num_twins: int, why: str | None
) -> None:
    tables = tables_of(families, num_twins, ordinary=[0.0, 1.0])
    built = calibrated(*tables, rule(), seed=0)
    for card in built["cards"]:
        values = [card[name] for name in ("auroc_choose", "auroc_report", "precision", "recall")]
        assert values == [None] * 4
        assert (card["verdict"], card["why"]) == ("not shown", "No family of canaries can judge.")
    assert [family["why"] for family in built["families"].values()] == ([why] if why else [])
    assert built["auto"]["axis"] == "memorization"
    assert not built["auto"]["is_validated"]
    assert built["auto"]["reason"].startswith("auto cannot choose: ")
    assert (why or "Plant canaries") in built["auto"]["reason"]
    json.dumps(built, allow_nan=False)


def test_two_of_four_are_more_than_chance_gives_and_can_judge() -> None:
    built = calibrated(*tables_of({"a": [*PERFECT[4:8]]}, 20), rule(), seed=0)
    assert built["families"]["a"]["why"] is None


def test_a_family_without_twins_has_no_counts() -> None:
    scores, copies, canaries = tables_of({"a": PERFECT, "b": PERFECT}, 0)
    canaries = canaries.with_columns(is_memorized=pl.lit(None, pl.Boolean))
    built = calibrated(scores, copies, canaries, rule(), seed=0)
    assert built["families"]["a"] == {
        "num_memorized": None,
        "num_unmemorized": None,
        "num_twins": 0,
        "why": "expected at least 9 twins (num_twins), got 0",
        "role": None,
        "num_extracted": 0,
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
        "asked": {},
        "against": {},
        "extracted_against_text": {},
        "ordinary_text": None,
    }
    tables = tables_of({"a": PERFECT}, ordinary=[float("nan")])
    card = card_of(calibrated(*tables, rule(), seed=0))
    assert (card["may_be_axis"], card["verdict"]) == (False, "predicts memorization here")


def test_a_cut_in_units_of_one_score_is_not_laid_on_others() -> None:
    tables = tables_of({"a": PERFECT})
    for config in (rule(2.0, "absolute"), rule(0.1, "conformal", "calibrated_drop_log_p")):
        built = calibrated(*tables, config, seed=0)
        card = card_of(built, "difficulty")
        assert (card["precision"], card["recall"]) == (None, None)
        assert card["why"] == f"The cut, {config.memorization.kind}, is for {config.axis} alone."
    assert card_of(calibrated(*tables, rule(2.0, "absolute"), seed=0))["recall"]["value"] == 1.0


def test_nothing_above_the_cut_has_a_recall_and_no_precision() -> None:
    card = judged({"a": PERFECT}, ordinary=[9.0] * 30)
    assert (card["precision"], card["recall"]["value"]) == (None, 0.0)
    assert card["why"] == "No canary is above the cut."


def test_a_planted_canary_without_a_score_is_refused() -> None:
    scores, copies, canaries = tables_of({"a": PERFECT})
    with pytest.raises(DataError, match=r"every planted canary, got 1 without, first a-00\."):
        calibrated(scores.filter(pl.col("sample_id") != "a-00-0"), copies, canaries, rule(), seed=0)
