"""Arms and claims as Markdown, from a report as it is read back from JSON."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.report import console


def interval(value: float) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": value * 2, "num_seeds": 3}


def level(num_repeats: int, extracted: float) -> dict[str, Any]:
    return {"family": "words", "num_repeats": num_repeats, "extracted": interval(extracted)}


def arm(extracted: float, change: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "canaries": {
            "planted": {"extracted": interval(extracted), "exposure": interval(2.0)},
            "twins": {"extracted": interval(0.0)},
            "levels": [level(0, 0.0), level(1, extracted), level(4, 1.0)],
        },
        "samples": {"attack": "loss", "auc": interval(0.5)},
        "extraction_change": change,
        "extraction_against_random": None,
        "perplexity_ratio": interval(1.0),
        "perplexity_against_random": change,
        "rare_perplexity_ratio": None,
    }


def test_arms_come_in_the_order_of_the_params_with_every_interval() -> None:
    report = {
        "arms": [{"arm": "none"}, {"arm": "half"}],
        "evidence": {"half": arm(0.25, interval(-0.25)), "none": arm(0.5, None)},
        "claims": [],
    }
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


def test_without_planted_canaries_there_is_no_table_of_them() -> None:
    none = arm(0.5, None)
    none["canaries"]["levels"] = []
    report = {"arms": [{"arm": "none"}], "evidence": {"none": none}, "claims": []}
    assert len(console.markdown(report).splitlines()) == 3


def test_a_claim_stands_beside_what_was_measured() -> None:
    claim = {
        "claim": "leakage falls by 30 %",
        "arm": "half",
        "paper": 0.7,
        "measured": interval(0.6),
        "verdict": "not decided",
    }
    report = {"arms": [{"arm": "half"}], "evidence": {"half": arm(0.25, None)}, "claims": [claim]}
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
