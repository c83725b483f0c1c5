"""Arms and claims as Markdown, and texts as a terminal may show them."""

import unicodedata
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.comparison.results import ArmAudits, CanaryLeakage, CanaryLevel, CheckedClaim
from gdc.report import build, console
from gdc.report.model import Report
from gdc.statistics.bootstrap import Measured
from tests.comparison.builders import (
    arm_audits,
    arm_result,
    around,
    canary_measures,
    level,
)
from tests.report.builders import params_of, tables_of


def audits_of(extracted: float, change: Measured | None) -> ArmAudits:
    levels = [level(0, 0.0), level(1, extracted), level(4, 1.0)]
    return audits_with(extracted, change, levels)


def audits_with(extracted: float, change: Measured | None, levels: list[CanaryLevel]) -> ArmAudits:
    planted = canary_measures(extracted=around(extracted), exposure=around(2.0))
    twins = canary_measures(extracted=around(0.0))
    return arm_audits(
        canaries=CanaryLeakage(planted, twins, 0, levels),
        auc=around(0.5),
        extraction_change=change,
        perplexity_ratio=around(1.0),
        perplexity_against_random=change,
    )


def report_with(arms: Mapping[str, ArmAudits], *claims: CheckedClaim) -> Report:
    """A report of these arms, in this order; its audits stand by name, as in JSON."""
    return build.build_report(tables_of(), params_of()).model_copy(
        update={
            "arms": [arm_result(arm) for arm in arms],
            "arm_audits": dict(sorted(arms.items())),
            "paper_claims": list(claims),
        }
    )


def test_arms_come_in_the_order_of_the_params_with_every_interval() -> None:
    report = report_with({"none": audits_of(0.5, None), "half": audits_of(0.25, around(-0.25))})
    header, _, none, half, _, repeats, _, *by_repeats = console.markdown(report).splitlines()
    assert "AUC of loss" in header
    assert none == (
        "| none | 50 % [25 %, 100 %] | 0 % [0 %, 0 %] | - | - | 2 [1, 4] | 0.5 [0.25, 1] "
        "| 1 [0.5, 2] | - | - |"
    )
    assert half.startswith("| half | 25 % [12.5 %, 50 %] | 0 % [0 %, 0 %] | -25.0 [-12.5, -50.0] |")
    assert half.endswith("| 1 [0.5, 2] | -0.25 [-0.125, -0.5] | - |")
    assert repeats == "| extraction of canaries planted | words, 1 | words, 4 |"
    assert by_repeats == [
        "| none | 50 % [25 %, 100 %] | 100 % [50 %, 200 %] |",
        "| half | 25 % [12.5 %, 50 %] | 100 % [50 %, 200 %] |",
    ]


def test_the_epsilon_of_a_private_arm_stands_beside_its_name() -> None:
    report = report_with({"none": audits_of(0.5, None), "dp": audits_of(0.0, around(-0.5))})
    none, private = report.arms
    known = report.model_copy(update={"arms": [none, replace(private, privacy_epsilon=7.98)]})
    lines = console.markdown(known).splitlines()
    assert lines[2].startswith("| none |")
    assert lines[3].startswith("| dp, epsilon 7.98 |")


def test_without_planted_canaries_there_is_no_table_of_them() -> None:
    report = report_with({"none": audits_with(0.5, None, [])})
    assert len(console.markdown(report).splitlines()) == 3


def test_a_claim_stands_beside_what_was_measured() -> None:
    claim = CheckedClaim("leakage falls by 30 %", "half", 0.7, around(0.6), "not decided")
    report = report_with({"half": audits_of(0.25, None)}, claim)
    last = console.markdown(report).splitlines()[-1]
    assert last == "| leakage falls by 30 % | half | 0.7 | 0.6 [0.3, 1.2] | not decided |"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", id="Persian, non-joiner"),
        pytest.param("\u0915\u094d\u200d\u0937", id="Hindi, joiner behind a mark"),
        pytest.param("\U0001f468\u200d\U0001f469\u200d\U0001f467", id="a family of emoji"),
        pytest.param("\u2764\ufe0f\u200d\U0001f525", id="joiner behind a variant"),
        pytest.param("Donau\u00addampf", id="soft hyphen"),
    ],
)
def test_what_joins_letters_is_kept(text: str) -> None:
    assert console.plain(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("a\x1b[2Jb\x9bc\x7f", "a?[2Jb?c?", id="terminal escapes"),
        pytest.param("a\u202eb\u2066c\u200f", "a?b?c?", id="turns of direction"),
        pytest.param("a\u202e\u200db", "a??b", id="a joiner behind one"),
        pytest.param("\u200da b\u200d \u200c c\u00ad", "?a b? ? c?", id="joiners of nothing"),
        pytest.param("a\u200b\ufeffb", "a??b", id="blanks of no width"),
        pytest.param("x" * 119 + "\u200dyz", "x" * 119 + "…", id="a joiner after the cut"),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(text: str, shown: str) -> None:
    assert console.plain(text) == shown.replace("?", "\N{REPLACEMENT CHARACTER}")


@given(text=st.text(st.characters(categories=["C", "L", "M", "Z", "S"]), max_size=300))
def test_a_shown_text_is_one_short_line_without_controls(text: str) -> None:
    shown = console.plain(text)
    assert len(shown) <= console.TEXT_CHARS
    controls = {c for c in shown if unicodedata.category(c)[0] == "C"}
    assert controls <= {"\u200c", "\u200d", "\u00ad"}
