"""Counts and lists of samples against tables small enough to count by hand."""

import json
from dataclasses import replace

import polars as pl
import pytest

from gdc.errors import DataError
from gdc.mapping.causes import REMEDIES
from gdc.report.sample_table import JOINED, revising_seeds, sample_table, scores_of
from tests.builders import params_with
from tests.report.builders import (
    ORDINARY,
    SAMPLES,
    page_of,
    params_of,
    report_of,
    revised_by,
    tables_of,
)


def test_rows_of_the_corpus_are_counted_with_canaries_apart() -> None:
    tables = tables_of([*ORDINARY, ("a-1", 2.0, 0.0, "stable-easy", None), *SAMPLES[6:]])
    assert report_of(tables, params_of())["corpus"] == {
        "num_samples": 9,
        "num_train": 7,
        "num_validation": 1,
        "num_reserved": 1,
        "num_exact_copies": 1,
        "num_canary_rows": 2,
        "num_quarantined": 0,
        "num_left_out": 0,
        "unread": {},
    }


def test_of_an_arm_whose_runs_choose_weights_the_table_says_what_they_did_with_each_sample() -> (
    None
):
    made = tables_of()
    joined = {name: getattr(made, name).lazy() for name in JOINED}
    plans = {"none": made.plans["none"].lazy(), "by-run": made.plans["none"].lazy()}
    revised = {"by-run": revised_by({"b-0": 4, "c-0": 3}, {"b-0": 3}, {})}
    table = sample_table(joined, plans, revised).collect()
    assert table.columns[-4:] == [
        "action_none", "action_by_run", "first_changed_by_run", "num_seeds_by_run"
    ]  # fmt: skip
    assert {row[0]: row[1:] for row in table.select("sample_id", *table.columns[-3:]).rows()} == {
        **{row[0]: ("keep", None, 0) for row in SAMPLES},
        "b-0": ("weight", 3, 2),
        "c-0": ("weight", 3, 1),
        "y-0": (None, None, None),
        "z-0": (None, None, None),
    }
    assert table["sample_id"].to_list() == made.corpus["sample_id"].to_list()
    # They are no scores.
    assert scores_of(table.lazy()) == ["difficulty", "memorization", "num_copies"]


def test_the_runs_that_choose_weights_are_the_retrained_ones_of_live_arms() -> None:
    live = {"rule": "live", "fraction": 0.25, "weight": 0.5}
    arms = {
        "none": {"rule": "none"}, "live": live, "by-chance": {"rule": "shuffled", "of": "live"},
        "planned": live, "paper": {"rule": "none"},
    }  # fmt: skip
    base = params_of().model_dump(mode="json")
    params = params_with(
        intervene=base["intervene"] | {"arms": arms, "curated_arm": "none", "recommend": None},
        retrain=base["retrain"] | {"arms": ["none", "live", "by-chance"], "seeds": [1, 2]},
    )
    assert revising_seeds(params) == {
        "none": (), "live": (1, 2), "by-chance": (1, 2), "planned": (), "paper": ()
    }  # fmt: skip


def test_hotspots_come_first_then_by_score_then_the_easier_and_no_canary_is_listed() -> None:
    hotspots = report_of(tables_of(), params_of())["hotspots"]
    assert [row["sample_id"] for row in hotspots] == ["e-0", "d-0", "c-0", "f-0"]
    assert hotspots[0] == {
        "sample_id": "e-0",
        "source": "file:e-0",
        "difficulty": 1.0,
        "score": 0.3,
        "quadrant": "hotspot-memorized",
        "stability": None,
        "num_copies": 1,
        "cause": "secret",
        "duplicate_ids": [],
        "spans": [],
        "text": "text of e-0",
    }
    assert [row["duplicate_ids"] for row in hotspots[1:]] == [["c-0", "d-1"], ["d-0"], []]


def test_causes_are_counted_by_precedence_without_canaries_and_bring_their_remedy() -> None:
    causes = report_of(tables_of(), params_of(num_hotspots=1))["causes"]
    assert [tuple(row.values()) for row in causes] == [
        ("secret", 1, 1, REMEDIES["secret"]),
        ("exact-copies", 0, 0, REMEDIES["exact-copies"]),
        ("near-copies", 2, 2, REMEDIES["near-copies"]),
        ("template", 1, 0, REMEDIES["template"]),
        ("none", 2, 1, REMEDIES["none"]),
    ]


def test_the_hotspot_list_has_the_length_asked_for() -> None:
    hotspots = report_of(tables_of(), params_of(num_hotspots=2))["hotspots"]
    assert [row["sample_id"] for row in hotspots] == ["e-0", "d-0"]


def test_planted_rows_are_counted_in_every_quadrant() -> None:
    assert report_of(tables_of(), params_of())["canaries_by_quadrant"] == {
        "digits/2": {
            "stable-easy": 1,
            "ambiguous-hard": 0,
            "hotspot-memorized": 1,
            "noisy-outlier": 0,
        }
    }


def test_possible_secrets_and_copies_are_listed_in_every_quadrant_and_each_text_once() -> None:
    mail = "Write to jane.roe@mail.org."
    tables = tables_of()
    # a-0 (stable-easy), b-0 (ambiguous-hard) and f-0 (noisy-outlier) have one text, c-0 another.
    same = pl.col("sample_id").is_in(["a-0", "b-0", "f-0", "g-0"])
    corpus = tables.corpus.with_columns(
        text=pl.when(same).then(pl.lit(mail)).otherwise("text"),
        content_id=pl.when(same).then(pl.lit("mail")).otherwise("content_id"),
        num_copies=pl.when(same).then(3).otherwise("num_copies"),
    )
    secret = same | (pl.col("sample_id") == "c-0")
    scores = tables.scores.with_columns(
        cause=pl.when(secret).then(pl.lit("secret")).otherwise(pl.lit("none"))
    )
    built = report_of(replace(tables, corpus=corpus, scores=scores), params_of())
    lies = {"stable-easy": 1, "ambiguous-hard": 1, "noisy-outlier": 1}
    rows = {name: built[name]["listed"] for name in ("secrets", "copies")}
    assert [(row["sample_id"], row["num_copies"]) for row in rows["secrets"]] == [
        ("f-0", 3), ("c-0", 1)
    ]  # fmt: skip
    assert rows["secrets"][0]["kinds"] == ["e-mail"]
    assert rows["secrets"][0]["quadrants"] == lies
    assert [(row["sample_id"], row["quadrants"]) for row in rows["copies"]] == [("a-0", lies)]
    one = report_of(replace(tables, corpus=corpus, scores=scores), params_of(num_hotspots=1))
    assert (one["secrets"]["num_texts"], len(one["secrets"]["listed"])) == (2, 1)
    private = replace(tables, corpus=corpus, scores=scores), params_of(show_text=False)
    assert "jane.roe" not in page_of(*private) + json.dumps(report_of(*private))


def test_samples_that_differ_between_tables_are_refused() -> None:
    tables = tables_of()
    with pytest.raises(DataError, match=r"expected the same samples .* 8 scored, 7 with.* gdc run"):
        report_of(replace(tables, quadrants=tables.quadrants[1:]), params_of())


def test_a_planted_canary_that_no_table_knows_is_refused() -> None:
    tables = tables_of()
    with pytest.raises(DataError, match=r"got 2 that are not, first digits-1"):
        report_of(replace(tables, canaries=tables.canaries[:1]), params_of())


def test_row_order_of_the_corpus_does_not_matter() -> None:
    tables = tables_of()
    shuffled = replace(tables, corpus=tables.corpus.sample(fraction=1, shuffle=True, seed=1))
    assert report_of(shuffled, params_of()) == report_of(tables, params_of())
