"""Arms and claims as Markdown, from a report as it is read back from JSON."""

from typing import Any

from gdc import console


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
