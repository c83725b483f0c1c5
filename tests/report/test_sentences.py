"""What the report says in words: the axis, and warnings, each once."""

from dataclasses import replace

import pytest
from markupsafe import escape
from plotly.offline import get_plotlyjs

from gdc.comparison.results import AllAttacks, CanaryLeakage
from gdc.mapping.spans import nothing_recorded
from gdc.report.model import MemorizationOverTime
from gdc.report.sentences import tell_profile
from gdc.schema import Verdict
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.wording import decimals, interval
from tests.builders import params_with
from tests.comparison.builders import arm_audits, canary_measures
from tests.report.builders import (
    EVIL,
    HALF,
    SAMPLES,
    calibration_of,
    card_of,
    metrics_of,
    page_of,
    params_of,
    report_of,
    tables_of,
)


def test_warnings_are_gathered_once_each() -> None:
    samples = [row for row in SAMPLES if row[3] != "ambiguous-hard"]
    assert report_of(tables_of(samples, num_quarantined=3), params_of())["warnings"] == [
        "said twice",
        "Quadrant ambiguous-hard is empty.",
        "Planted rows are 28.6 % of the 7 training rows, more than 5 %: what is measured may be of "
        "canaries more than of the corpus. Plant fewer (per_level, repeats), or add text.",
        "3 bad rows left out: data/quarantine.parquet says why.",
        "2 seeds: too few to say much about other seeds.",
    ]


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([1], "1 seed: too few to say much about other seeds."),
        ([1, 2], "2 seeds: too few to say much about other seeds."),
        ([1, 2, 3], None),
    ],
)
def test_few_seeds_are_said_to_be_few(seeds: list[int], sentence: str | None) -> None:
    metrics = {(arm, s): metrics_of(50.0, 0.5) for arm in ("none", "paper") for s in seeds}
    built = report_of(replace(tables_of(), metrics=metrics), params_of(seeds=seeds))
    assert [w for w in built["warnings"] if "seed" in w] == ([sentence] if sentence else [])
    assert (sentence or ", then averaged.") in built["comparison"]


def test_an_arm_that_changes_nothing_and_guessed_twins_are_warned_of() -> None:
    tables = tables_of()
    guessed = metrics_of(50.0, 0.5).model_copy(
        update={"extraction": {"digits": {"0": 0.25, "2": 0.5}}}
    )
    tables = replace(
        tables,
        plans={**tables.plans, "paper": tables.plans["none"]},
        metrics={**tables.metrics, ("paper", 1): guessed, ("paper", 2): guessed},
    )
    warnings = report_of(tables, params_of())["warnings"]
    assert "Arm paper changes no sample: its differences are noise." in warnings
    assert any("paper: up to 25 % of never-planted twins" in warning for warning in warnings)


def test_that_no_token_loss_was_recorded_is_warned_of() -> None:
    table, summary = nothing_recorded()
    tables = replace(tables_of(), spans=table, spans_summary=summary)
    assert summary.warnings[0] in report_of(tables, params_of())["warnings"]
    assert "<u>" not in page_of(tables, params_of()).replace(get_plotlyjs(), "")


@pytest.mark.parametrize(
    ("auroc", "verdict", "sentence", "warns"),
    [
        pytest.param(
            HALF, "not shown",
            "Axis memorization is not shown to predict memorization here: AUROC 0.50 [0.25, 0.75] "
            "of 8 memorized against 7 other canaries.", True, id="not shown",
        ),
        pytest.param(
            (0.25, 0.0, 0.5), "does not",
            "Axis memorization does not predict memorization here: AUROC 0.25 [0.00, 0.50] of "
            "8 memorized against 7 other canaries.", True, id="does not",
        ),
        pytest.param(
            (0.75, 0.625, 1.0), "predicts memorization here",
            "Axis memorization predicts memorization here: AUROC 0.75 [0.62, 1.00] of "
            "8 memorized against 7 other canaries.", False, id="predicts",
        ),
        pytest.param(
            None, "not shown",
            "Axis memorization is not shown to predict memorization here: No canary is above the "
            "cut.", True, id="no answer",
        ),
    ],
)  # fmt: skip
def test_the_page_says_what_the_axis_is_worth(
    auroc: tuple[float, float, float] | None, verdict: Verdict, sentence: str, *, warns: bool
) -> None:
    cards = [card_of("iqr", HALF, "not shown"), card_of("memorization", auroc, verdict)]
    tables = replace(tables_of(), calibration=calibration_of(*cards, is_validated=True))
    built = report_of(tables, params_of())
    assert built["calibration"]["verdict"] == sentence
    assert built["calibration"]["why"] == "partition.axis names memorization. auto would take iqr."
    assert (sentence in built["warnings"]) == warns
    page = page_of(tables, params_of()).replace(get_plotlyjs(), "")
    assert str(escape(sentence)) in page
    assert '<td class="name">memorization (axis)</td>' in page
    assert f"<td>{verdict}<span" in page
    assert EVIL not in page
    assert 'it has no twins</td><td class="num">-</td><td class="num">-</td>' in page


def test_with_auto_the_page_says_why_and_does_not_warn_twice() -> None:
    card = card_of("memorization", HALF, "not shown")
    tables = replace(tables_of(), calibration=calibration_of(card, is_validated=False))
    partition = params_with().partition.model_dump(mode="json") | {"axis": "auto"}
    params = params_of().model_copy(
        update={"partition": params_with(partition=partition).partition}
    )
    built = report_of(tables, params)
    assert built["calibration"]["why"] == "partition.axis is auto. iqr is best."
    assert built["calibration"]["verdict"] not in built["warnings"]


def test_what_makes_the_audits_doubtful_is_warned_of() -> None:
    canaries = CanaryLeakage(canary_measures(), canary_measures(), 3, [])
    tables = replace(
        tables_of(),
        arm_audits={"none": arm_audits(canaries=canaries)},
        attacks=AllAttacks({}, {}, ["length"]),
    )
    built = report_of(tables, params_of())
    assert [w for w in built["warnings"] if "length" in w or "bits" in w] == [
        "length alone tells members from held-out texts: membership attacks may see how the texts "
        "differ and not what a model remembers.",
        "Fitted exposures more than 15 bits beyond what the twins resolve (none 3) count as 15: a "
        "fit says no more there.",
    ]


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        pytest.param(
            Estimate(0.1, -0.1, 0.3),
            "Training on a sample lowers its own loss by {} nats per token at the first look after "
            "it, and by {} at the end.",
            id="parallel trends",
        ),
        pytest.param(
            Estimate(0.2, 0.1, 0.3),
            "Not to be trusted here: the losses of samples fell differently from those of others "
            "before they were trained on ({}).",
            id="other trends",
        ),
    ],
)
def test_a_profile_is_told_where_it_can_be_trusted(before: Estimate, sentence: str) -> None:
    now, left = Estimate(2, 1.9, 2.1), Estimate(0.5, 0.4, 0.6)
    profile = MemorizationOverTime(
        samples="all", num_texts=9, before=before, instantaneous=now, residual=left
    )
    shown = [interval(found, decimals) for found in ((now, left) if before.low < 0 else (before,))]
    assert tell_profile([profile]) == sentence.format(*shown)
    unknown = profile.model_copy(update={"residual": None})
    assert tell_profile([unknown]).startswith("Too few samples were first trained on between")
