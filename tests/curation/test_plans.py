"""Plans small enough to check by hand, and laws that every plan and curated data set obeys."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gdc.config import CanariesConfig, CapCopiesArm, DedupArm, InterveneConfig, ScoreArm
from gdc.corpus.canaries import make_canaries
from gdc.corpus.samples import build_corpus, samples_from
from gdc.curation.plans import (
    cap_copies_plan,
    make_plan,
    on_axis,
    oracle_plan,
    shuffled_live_plan,
    shuffled_plan,
)
from gdc.errors import ConfigError, DataError
from gdc.schema import CURATED, PLAN, QUADRANTS, REMOVED
from tests.builders import rows_of
from tests.curation.builders import FIVE, corpus_of, curated, quadrants_of, scored_of

NONE = {"rule": "none"}
PAPER = {"rule": "quadrants", "hotspot_weight": 0.5, "drop_noisy": True, "hard_copies": 3}


def top(fraction: float, weight: float = 0.0) -> dict[str, object]:
    rule = {"rule": "top-fraction", "score": "memorization", "tie_break": "difficulty"}
    return {**rule, "fraction": fraction, "weight": weight}


def at_random(fraction: float, weight: float = 0.0) -> dict[str, object]:
    return {"rule": "random", "fraction": fraction, "weight": weight}


def plan(arm: Mapping[str, object], scored: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    rule = TypeAdapter[ScoreArm](ScoreArm).validate_python(arm)
    return make_plan(rule, scored.lazy(), seed=seed).collect()


def rows_without_masks(table: pl.DataFrame) -> list[tuple[object, ...]]:
    """Rows of a plan or a curated table that masks nothing."""
    assert table["masked"].list.len().sum() == 0
    return table.drop("masked").rows()


quarters = st.integers(0, 4).map(lambda n: n / 4)
points = st.tuples(quarters, st.one_of(st.none(), quarters), st.sampled_from(QUADRANTS))
scored_tables = st.lists(points, min_size=1, max_size=12).map(
    lambda drawn: scored_of([(f"s{(7 * i) % 13:02d}", *point) for i, point in enumerate(drawn)])
)
fractions = st.integers(0, 19).map(lambda n: n / 20)
weights = st.sampled_from([0.0, 0.25, 0.5, 1.0])
arms = st.one_of(
    st.just(NONE),
    st.builds(
        lambda alpha, noisy, gamma: {
            "rule": "quadrants",
            "hotspot_weight": alpha,
            "drop_noisy": noisy,
            "hard_copies": gamma,
        },
        weights,
        st.booleans(),
        st.integers(1, 3),
    ),
    st.builds(top, fractions, weights),
    st.builds(at_random, fractions, weights),
    st.just({"rule": "weight-by-score", "score": "memorization"}),
    st.just(
        {"rule": "order", "score": "memorization", "tie_break": "difficulty", "fraction": 0.25}
    ),
    st.just({"rule": "live", "fraction": 0.25, "weight": 0.0}),
    st.just(
        {
            "rule": "dp-sgd",
            "clip_norm": 1,
            "noise_multiplier": 0.5,
            "target_epsilon": None,
            "delta": 0.01,
        }
    ),
)


def test_no_rule_keeps_every_sample_once() -> None:
    kept = plan(NONE, FIVE)
    assert kept.schema == PLAN
    assert rows_without_masks(kept) == [(i, "keep", 1.0, 1, "no rule") for i in "eadcb"]


def test_the_papers_rule_on_five_samples() -> None:
    assert rows_without_masks(plan(PAPER, FIVE)) == [
        ("e", "keep", 1.0, 1, "stable-easy"),
        ("a", "copy", 1.0, 3, "ambiguous-hard"),
        ("d", "weight", 0.5, 1, "hotspot-memorized"),
        ("c", "drop", 0.0, 0, "noisy-outlier"),
        ("b", "weight", 0.5, 1, "hotspot-memorized"),
    ]


def test_hotspots_of_weight_zero_are_dropped_and_noise_may_stay() -> None:
    arm = {"rule": "quadrants", "hotspot_weight": 0, "drop_noisy": False, "hard_copies": 1}
    assert plan(arm, FIVE)["action"].to_list() == ["keep", "keep", "drop", "keep", "drop"]


def test_ties_are_broken_by_the_second_score_then_by_the_id() -> None:
    # memorization ties c, d and b; difficulty puts c first; the id puts b before d.
    assert rows_without_masks(plan(top(0.4), FIVE)) == [
        ("e", "keep", 1.0, 1, "not chosen by memorization"),
        ("a", "keep", 1.0, 1, "not chosen by memorization"),
        ("d", "keep", 1.0, 1, "not chosen by memorization"),
        ("c", "drop", 0.0, 0, "rank 1 of the 2 chosen by memorization"),
        ("b", "drop", 0.0, 0, "rank 2 of the 2 chosen by memorization"),
    ]


def test_an_order_puts_the_highest_scores_first_and_keeps_all() -> None:
    arm = {"rule": "order", "score": "memorization", "tie_break": "difficulty", "fraction": 0.4}
    assert rows_without_masks(plan(arm, FIVE)) == [
        ("e", "keep", 1.0, 1, "not chosen by memorization"),
        ("a", "keep", 1.0, 1, "not chosen by memorization"),
        ("d", "keep", 1.0, 1, "not chosen by memorization"),
        ("c", "early", 1.0, 1, "rank 1 of the 2 chosen by memorization"),
        ("b", "early", 1.0, 1, "rank 2 of the 2 chosen by memorization"),
    ]
    dealt = shuffled_plan(plan(arm, FIVE).lazy(), seed=0).collect()
    assert sorted(dealt["action"]) == ["early", "early", "keep", "keep", "keep"]


def test_a_live_plan_says_every_number_of_its_rule_so_that_a_change_of_one_trains_again() -> None:
    """Stage retrain depends on the plan and not on the params of the arm."""
    rules = [{"fraction": f, "weight": w} for f in (0.05, 0.051) for w in (0.0, 0.125)]
    plans = [plan({"rule": "live", **rule}, FIVE) for rule in rules]
    assert {tuple(table["action"]) for table in plans} == {("live",) * 5}
    assert plans[0]["weight"].to_list() == [1.0] * 5
    every = plans + [shuffled_live_plan(table.lazy()).collect() for table in plans]
    assert len({table["reason"][0] for table in every}) == 8


def test_a_private_plan_says_every_number_of_its_rule() -> None:
    """For the same reason."""
    numbers = {"rule": "dp-sgd", "clip_norm": 1, "noise_multiplier": 2, "target_epsilon": None}
    private = [
        {**numbers, "delta": 0.01},
        {**numbers, "delta": 0.01, "clip_norm": 1.5},
        {**numbers, "delta": 0.01, "noise_multiplier": 0.5},
        {**numbers, "delta": 0.01, "noise_multiplier": None, "target_epsilon": 2},
        {**numbers, "delta": 0.02},
    ]
    plans = [plan(arm, FIVE) for arm in private]
    assert {tuple(table["action"]) for table in plans} == {("private",) * 5}
    assert len({table["reason"][0] for table in plans}) == 5


def test_an_arm_that_names_the_axis_reads_the_score_that_is_the_axis() -> None:
    top = {"rule": "top-fraction", "tie_break": "std", "fraction": 0.5, "weight": 0}
    config = InterveneConfig.model_validate(
        {
            "curated_arm": "auto",
            "recommend": None,
            "arms": {
                "by-axis": {**top, "score": "axis"},
                "by-iqr": {**top, "score": "iqr"},
                "weights": {"rule": "weight-by-score", "score": "axis"},
                "none": {"rule": "none"},
            },
        }
    )
    resolved = on_axis(config.arms, "std")
    assert {name: getattr(arm, "score", None) for name, arm in resolved.items()} == {
        "by-axis": "std", "by-iqr": "iqr", "weights": "std", "none": None,
    }  # fmt: skip


def test_the_top_may_be_weighted_down() -> None:
    chosen = plan(top(0.2, 0.25), FIVE).filter(pl.col("action") != "keep")
    assert rows_without_masks(chosen) == [
        ("c", "weight", 0.25, 1, "rank 1 of the 1 chosen by memorization")
    ]


def test_a_sample_without_the_score_is_chosen_last() -> None:
    scored = scored_of(
        [
            ("a", 9.0, None, "stable-easy"),
            ("b", 1.0, 0.25, "stable-easy"),
            ("c", 1.0, 0.5, "stable-easy"),
        ]
    )
    assert plan(top(0.67), scored)["action"].to_list() == ["keep", "drop", "drop"]


def test_a_random_plan_is_pinned() -> None:
    dropped = plan(at_random(0.4), FIVE).filter(pl.col("action") == "drop")
    assert rows_without_masks(dropped) == [
        ("d", "drop", 0.0, 0, "rank 2 of the 2 chosen at random"),
        ("b", "drop", 0.0, 0, "rank 1 of the 2 chosen at random"),
    ]


@given(scored=scored_tables, fraction=fractions, weight=st.sampled_from([0.0, 0.5]))
def test_the_budget_is_met_exactly(scored: pl.DataFrame, fraction: float, weight: float) -> None:
    for arm in (top(fraction, weight), at_random(fraction, weight)):
        changed = plan(arm, scored).filter(pl.col("weight") != 1)
        rounded = math.floor(fraction * scored.height + 0.5)
        assert changed.height == min(rounded, scored.height - 1)


@pytest.mark.parametrize("arm", [top(0.9), at_random(0.9)], ids=["top", "random"])
def test_rounding_never_drops_the_last_sample(arm: dict[str, object]) -> None:
    for size in (1, 2, 5):
        scored = FIVE.head(size)
        assert (plan(arm, scored)["action"] == "drop").sum() == size - 1


@given(scored=scored_tables, fraction=fractions)
def test_no_kept_sample_scores_higher_than_a_dropped_one(
    scored: pl.DataFrame, fraction: float
) -> None:
    ranked = plan(top(fraction), scored).join(scored, on="sample_id")
    keys = {
        action: [(m if m is not None else -1.0, d) for d, m in part.iter_rows()]
        for action in ("drop", "keep")
        for part in [ranked.filter(pl.col("action") == action).select("difficulty", "memorization")]
    }
    assert min(keys["drop"], default=(9.0, 9.0)) >= max(keys["keep"], default=(-9.0, -9.0))


@given(scored=scored_tables, arm=arms)
def test_a_plan_has_one_sound_row_for_every_sample(
    scored: pl.DataFrame, arm: dict[str, object]
) -> None:
    table = plan(arm, scored)
    assert table.schema == PLAN
    assert table["sample_id"].equals(scored["sample_id"])
    assert table.null_count().sum_horizontal().item() == 0
    assert (table["weight"] >= 0).all()
    assert (table["reason"].str.len_chars() > 0).all()
    dropped = table["action"] == "drop"
    assert dropped.equals(table["weight"] == 0)
    assert dropped.equals(table["copies"] == 0)


@given(scored=scored_tables, arm=arms, seed=st.integers(0, 2**16))
def test_row_order_does_not_matter(scored: pl.DataFrame, arm: dict[str, object], seed: int) -> None:
    turned = plan(arm, scored.sample(fraction=1, shuffle=True, seed=seed))
    assert turned.sort("sample_id").equals(plan(arm, scored).sort("sample_id"))


@given(scored=scored_tables, seed=st.integers(0, 3))
def test_a_random_plan_depends_on_ids_and_seed_alone(scored: pl.DataFrame, seed: int) -> None:
    blank = scored.with_columns(difficulty=0.0, memorization=0.0, quadrant=pl.lit("stable-easy"))
    assert plan(at_random(0.5), blank, seed).equals(plan(at_random(0.5), scored, seed))


def test_another_seed_draws_another_random_plan() -> None:
    scored = scored_of([(f"s{i:03d}", 1.0, 0.0, "stable-easy") for i in range(100)])
    first, second = (plan(at_random(0.5), scored, seed)["action"] for seed in (0, 1))
    assert 30 < (first == second).sum() < 70


@pytest.mark.parametrize("name", ["exposure", "quadrant", "sample_id"])
@pytest.mark.parametrize("key", ["score", "tie_break"])
def test_an_unknown_score_is_refused(key: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"expected a score .*\['difficulty', .* got '{name}'"):
        plan({**top(0.1), key: name}, FIVE)


# ---- the curated data set


def test_a_known_curated_data_set() -> None:
    canaries = {"c": "digits-1-00", "d": "digits-1-00"}
    rows = [(i, "train", canaries.get(i)) for i in "abcde"]
    corpus = corpus_of([*rows, ("v", "validation", None), ("w", "reserved", None)])
    dropping = {**PAPER, "hotspot_weight": 0.0}
    tables = curated(corpus, quadrants_of(FIVE), plan(dropping, FIVE))
    assert {name: table.schema for name, table in tables.items()} == {
        "train": CURATED, "validation": CURATED, "reserved": CURATED, "removed": REMOVED
    }  # fmt: skip
    assert rows_without_masks(tables["train"]) == [
        ("a", "text of a", 1.0, 3, "ambiguous-hard", "ambiguous-hard", "test:0", "k0"),
        ("e", "text of e", 1.0, 1, "stable-easy", "stable-easy", "test:0", "k0"),
    ]
    assert rows_without_masks(tables["validation"]) == [
        ("v", "text of v", 1.0, 1, None, "held out, not scored", "test:0", "k0")
    ]
    assert rows_without_masks(tables["reserved"]) == [
        ("w", "text of w", 1.0, 1, None, "text of a canary or its twin, not scored", "test:0", "k0")
    ]
    assert tables["removed"].rows() == [
        ("b", "text of b", "hotspot-memorized", "hotspot-memorized", "test:0", "k0")
    ]


@given(scored=scored_tables, arm=arms, planted=st.sets(st.integers(0, 11)))
def test_no_planted_row_is_curated_and_every_ordinary_row_is_once(
    scored: pl.DataFrame, arm: dict[str, object], planted: set[int]
) -> None:
    ids = scored["sample_id"].to_list()
    rows = [(s, "train", f"words-1-{i:02d}" if i in planted else None) for i, s in enumerate(ids)]
    corpus = corpus_of([*rows, ("v", "validation", None), ("w", "reserved", None)])
    tables = curated(corpus, quadrants_of(scored), plan(arm, scored))
    found = [i for table in tables.values() for i in table["sample_id"]]
    assert sorted(found) == sorted(corpus.filter(pl.col("canary_id").is_null())["sample_id"])


def test_no_text_of_a_canary_of_any_family_is_curated_but_as_reserved() -> None:
    level = {"repeats": (1, 3), "per_level": 2, "num_twins": 2}
    families = CanariesConfig.model_validate(
        {
            "digits": {"template": "Key {key} is", "key_digits": 3, "secret_digits": 3, **level},
            "words": {"prefix_words": 2, "secret_words": 2, **level},
            "natural": {"min_words": 2, "max_words": 9, **level},
        }
    )
    rows = rows_of([f"row {i % 35} of amber birch cedar delta" for i in range(40)])
    samples = samples_from(rows, max_samples=None, seed=0)
    canaries = make_canaries(families, [samples], seed=0)
    corpus = build_corpus(samples, canaries, validation_fraction=0.3, seed=0)
    scored = corpus.filter(pl.col("split") == "train").with_columns(quadrant=pl.lit("stable-easy"))
    tables = curated(corpus, quadrants_of(scored), plan(NONE, scored))
    texts = {name: set(table["text"]) for name, table in tables.items()}
    for name in ("train", "validation", "removed"):
        assert texts[name].isdisjoint(canaries["text"])
    assert texts["reserved"] == set(canaries.filter(pl.col("family") == "natural")["text"])
    assert sorted(t for table in tables.values() for t in table["text"]) == sorted(rows["text"])


def test_a_plan_that_lacks_a_sample_is_refused() -> None:
    corpus = corpus_of([(i, "train", None) for i in "abcdef"])
    with pytest.raises(
        DataError, match=r"expected a plan and a quadrant .* got 1 without, first f\."
    ):
        curated(corpus, quadrants_of(FIVE), plan(NONE, FIVE))


def test_a_near_copy_is_dropped_and_its_reason_names_the_kept_sample() -> None:
    texts = pl.DataFrame(
        {
            "sample_id": ["a", "b", "c", "d"],
            "text": ["one two three four", "quite another", "one two three four!", "quite another"],
        }
    )
    arm = DedupArm(rule="dedup", threshold=0.8, num_perm=64, shingle_chars=4)
    plan = cap_copies_plan(arm, texts.select("sample_id").lazy(), [texts], seed=0).collect()
    assert plan.schema == PLAN
    assert plan["action"].to_list() == ["keep", "keep", "drop", "drop"]
    assert plan["weight"].to_list() == [1.0, 1.0, 0.0, 0.0]
    assert plan["reason"].to_list()[2:] == [
        "near copy of a, similarity 0.938",
        "near copy of b, similarity 1.0",
    ]
    exact = arm.model_copy(update={"threshold": 1.0})
    plan = cap_copies_plan(exact, texts.select("sample_id").lazy(), [texts], seed=0).collect()
    assert plan["action"].to_list() == ["keep", "keep", "keep", "drop"]


def test_the_oracle_drops_what_is_planted_and_nothing_else() -> None:
    plan = oracle_plan(FIVE.lazy(), FIVE["sample_id"].head(2)).collect()
    assert plan.schema == PLAN
    assert plan["action"].to_list() == ["drop", "drop", "keep", "keep", "keep"]
    assert plan["copies"].to_list() == [0, 0, 1, 1, 1]
    assert plan["reason"].to_list() == ["planted"] * 2 + ["not dropped"] * 3


@given(
    ids=st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=2, unique=True), data=st.data()
)
def test_a_shuffled_plan_does_the_same_to_other_samples(
    ids: list[str], data: st.DataObject
) -> None:
    weights = data.draw(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(ids), max_size=len(ids))
    )
    actions = {0.0: "drop", 0.5: "weight", 1.0: "keep"}
    rows: list[tuple[Any, ...]] = [
        (i, actions[w], w, int(w > 0), "why", []) for i, w in zip(ids, weights, strict=True)
    ]
    plan = pl.DataFrame(rows, schema=PLAN, orient="row")
    dealt = shuffled_plan(plan.lazy(), seed=0).collect()
    assert dealt["sample_id"].to_list() == ids
    assert sorted(dealt["weight"]) == sorted(weights)
    assert dealt.select("action", "weight", "copies").n_unique() == len(set(weights))


def test_a_shuffled_plan_reaches_samples_that_the_plan_left_alone() -> None:
    ids = [f"s{i:03}" for i in range(200)]
    rows: list[tuple[Any, ...]] = [
        (i, *(("drop", 0.0, 0) if n < 20 else ("keep", 1.0, 1)), "why", [])
        for n, i in enumerate(ids)
    ]
    plan = pl.DataFrame(rows, schema=PLAN, orient="row")
    dropped = shuffled_plan(plan.lazy(), seed=0).collect().filter(pl.col("action") == "drop")
    assert dropped.height == 20
    assert len(set(dropped["sample_id"]) & set(ids[:20])) < 8


def by_score(name: str = "memorization") -> dict[str, object]:
    return {"rule": "weight-by-score", "score": name}


def test_a_unit_of_the_score_halves_the_weight_and_none_below_zero_changes_it() -> None:
    scores = [0.0, 1.0, 3.0, -2.0, None, math.nan, math.inf]
    scored = scored_of([(f"s{i}", 1.0, s, "stable-easy") for i, s in enumerate(scores)])
    assert plan(by_score(), scored).rows() == [
        ("s0", "keep", 1.0, 1, "memorization 0.0", []),
        ("s1", "weight", 0.5, 1, "memorization 1.0", []),
        ("s2", "weight", 0.25, 1, "memorization 3.0", []),
        ("s3", "keep", 1.0, 1, "memorization -2.0", []),
        ("s4", "keep", 1.0, 1, "no memorization", []),
        ("s5", "keep", 1.0, 1, "no memorization", []),
        ("s6", "drop", 0.0, 0, "memorization inf", []),
    ]
    with pytest.raises(ConfigError, match=r"expected a score of .* got 'quadrant'"):
        plan(by_score("quadrant"), scored)


def texts_of(texts: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame({"sample_id": [f"s{i:02d}" for i in range(len(texts))], "text": texts})


def capped(max_copies: int, texts: pl.DataFrame) -> pl.DataFrame:
    arm = CapCopiesArm(
        rule="cap-copies", max_copies=max_copies, threshold=0.8, num_perm=64, shingle_chars=4
    )
    return cap_copies_plan(arm, texts.select("sample_id").lazy(), [texts], seed=0).collect()


def test_a_cap_keeps_so_many_of_a_group_and_the_smallest_ids() -> None:
    texts = texts_of(["one two three"] * 3 + ["quite another"] * 2 + ["one two three"])
    assert capped(2, texts)["action"].to_list() == ["keep", "keep", "drop", "keep", "keep", "drop"]
    assert capped(2, texts)["reason"][5] == "near copy of s00, similarity 1.0"
    assert set(capped(4, texts)["action"]) == {"keep"}


@settings(max_examples=12)
@given(
    drawn=st.lists(st.sampled_from(["one two three", "four five six", "seven"]), min_size=1),
    cap=st.integers(1, 4),
)
def test_a_cap_leaves_as_many_of_each_text_as_it_says_and_a_cap_of_one_is_dedup(
    drawn: list[str], cap: int
) -> None:
    texts = texts_of(drawn)
    kept = capped(cap, texts).filter(pl.col("action") == "keep").join(texts, on="sample_id")
    assert {text: kept["text"].to_list().count(text) for text in drawn} == {
        text: min(cap, drawn.count(text)) for text in drawn
    }
    dedup = DedupArm(rule="dedup", threshold=0.8, num_perm=64, shingle_chars=4)
    assert capped(1, texts).equals(
        cap_copies_plan(dedup, texts.select("sample_id").lazy(), [texts], seed=0).collect()
    )
