"""The four sentences of a run against a report small enough to count by hand."""

from dataclasses import replace

from gdc.report import build
from gdc.report.verdict import RunVerdict, verdict
from tests.report.builders import GAPS, HALF, calibration_of, card_of, params_of, tables_of

CALIBRATION = calibration_of(
    card_of("memorization", HALF, "predicts memorization here"), is_validated=True
)


def verdict_of(**tables: object) -> RunVerdict:
    return verdict(build.build_report(replace(tables_of(), **tables), params_of()))  # type: ignore[arg-type]  # any field


def test_distinct_ordinary_texts_are_found_and_their_causes_counted() -> None:
    found = verdict_of(calibration=CALIBRATION)
    assert found.found == (
        "Score memorization (validated by secrets planted here) puts 4 distinct ordinary texts "
        "above the threshold."
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
        "above the threshold. 2 other models, each trained on half of the texts, confirm 1 of 3 as "
        "memorized (33.3 % ["
    ) in asked.found


def test_a_plan_that_is_not_shown_is_called_unproven_with_what_to_do_next() -> None:
    built = verdict_of()
    assert (built.arm, built.is_shown) == ("paper", False)
    assert built.worked == (
        "Unproven: data/curated is by arm paper (intervene.curated_arm), which was not evaluated."
    )
    assert built.next.startswith("To decide, retrain an arm that acts at random")
    assert [heading for heading, _ in built.lines] == ["Found", "Cause", "Worked?", "Next"]
