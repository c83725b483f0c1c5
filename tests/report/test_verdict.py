"""The four sentences of a run against a report small enough to count by hand."""

from dataclasses import replace

import polars as pl

from gdc.report import build
from gdc.report.verdict import RunVerdict, verdict
from gdc.statistics.bootstrap import Measured
from tests.comparison.builders import arm_audits, around
from tests.report.builders import (
    GAPS,
    HALF,
    ORDINARY,
    calibration_of,
    card_of,
    params_of,
    plan_of,
    tables_of,
)

CALIBRATION = calibration_of(
    card_of("memorization", HALF, "predicts memorization here"), is_validated=True
)


def verdict_of(**tables: object) -> RunVerdict:
    return verdict(build.build_report(replace(tables_of(), **tables), params_of()))  # type: ignore[arg-type]  # any field


def test_distinct_ordinary_texts_are_found_and_their_causes_counted() -> None:
    found = verdict_of(calibration=CALIBRATION)
    assert found.found == (
        "Score memorization (validated by 8 memorized secrets planted here) puts 4 distinct "
        "ordinary texts above the threshold. With copies that is 4 of 8 training rows, and with 1 "
        "planted row of 1 canary it is 5."
    )
    assert found.cause == (
        "1 may hold a secret, 2 have near copies, 1 show no cause in text or copies."
    )
    assert (found.num_texts, found.axis, found.is_validated) == (4, "memorization", True)
    assert found.causes == {"secret": 1, "near-copies": 2, "none": 1}


def test_half_models_confirm_the_texts_in_the_top_decile_of_their_gap() -> None:
    asked = verdict_of(gaps=GAPS)
    # f has no gap, so three texts are asked; 0.9 x 4 lies between the two highest gaps.
    assert asked.num_confirmed == 1
    assert asked.precision is not None
    assert asked.precision.value == 1 / 3
    assert (
        "it is 5. 2 other models, each trained on half of the texts, confirm 1 of 3 as "
        "memorized (33.3 % ["
    ) in asked.found


def test_distinct_texts_are_tied_to_rows_only_where_these_are_more() -> None:
    copied = tables_of(ORDINARY)
    corpus = copied.corpus.with_columns(content_id=pl.col("content_id").replace("d", "c"))
    built = build.build_report(replace(copied, corpus=corpus), params_of())
    assert verdict(built).found.endswith(
        "puts 3 distinct ordinary texts above the threshold. With copies that is 4 of 6 training "
        "rows."
    )
    plain = build.build_report(copied, params_of())
    assert verdict(plain).found.endswith("puts 4 distinct ordinary texts above the threshold.")


def worked_with(**actions: str) -> str:
    """What is said of a plan that is shown to work and does this to samples."""
    shown = replace(
        arm_audits(around(0.125), around(0.5)),
        random="random",
        extraction_against_random=Measured(-0.5, -0.75, -0.25, 3),
        extraction_change=Measured(-0.5, -0.75, -0.25, 3),
        perplexity_against_random=Measured(1.0, 0.75, 1.25, 3),
    )
    tables = tables_of()
    plans = {**tables.plans, "paper": plan_of(tables.scores["sample_id"].to_list(), **actions)}
    return verdict_of(plans=plans, arm_audits={"none": shown, "paper": shown}).worked


def test_a_plan_that_works_says_what_it_does_to_the_planted_rows_themselves() -> None:
    assert worked_with(g="drop", f="drop", c="weight").endswith(
        "(3 seeds). Of 2 planted rows this plan drops 2, of 6 ordinary ones it drops 1, "
        "down-weights 1: the planted secrets show that it finds such rows, not that what it misses "
        "is gone."
    )
    assert "Of 2 planted rows this plan masks spans of 2, of 6 ordinary ones it changes none: " in (
        worked_with(g="mask")
    )
    assert worked_with(f="drop").endswith("(3 seeds).")


def test_a_plan_that_is_not_shown_is_called_unproven_with_what_to_do_next() -> None:
    built = verdict_of()
    assert (built.arm, built.is_shown) == ("paper", False)
    assert built.worked == (
        "Unproven: data/curated is by arm paper (intervene.curated_arm), which was not evaluated."
    )
    assert built.next.startswith("To decide, retrain an arm that acts at random")
    assert [heading for heading, _ in built.lines] == ["Found", "Cause", "Worked?", "Next"]
