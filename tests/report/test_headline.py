"""The numbers of each arm that decide, as MLflow and DVC get them."""

from dataclasses import replace

from gdc.report import build
from gdc.report.headline import arm_numbers, note, with_ends
from gdc.statistics.bootstrap import Measured
from tests.comparison.builders import arm_audits, around
from tests.report.builders import params_of, tables_of


def test_each_arm_has_its_numbers_with_both_ends_and_what_is_unknown_is_absent() -> None:
    audits = {
        "none": arm_audits(around(0.5), around(0.5)),
        "paper": arm_audits(around(0.25), around(0.5), perplexity_ratio=around(1.125)),
    }
    report = build.build_report(replace(tables_of(), arm_audits=audits), params_of())
    numbers = arm_numbers(report)
    assert list(numbers) == ["none", "paper"]
    paper = numbers["paper"]
    assert [paper[f"extraction{end}"] for end in ("", "_low", "_high")] == [0.25, 0.125, 0.5]
    assert paper["perplexity_ratio"] == 1.125
    assert paper["samples_changed"] == 3
    assert "perplexity_ratio" not in numbers["none"]


def test_without_audits_the_means_remain() -> None:
    numbers = arm_numbers(build.build_report(tables_of(), params_of()))
    assert numbers["paper"]["extraction"] == 0.25
    assert "extraction_low" not in numbers["paper"]
    assert with_ends("x", None) == {}
    assert with_ends("x", Measured(2.0, 1.0, 3.0, 2)) == {"x": 2.0, "x_low": 1.0, "x_high": 3.0}


def test_the_note_is_the_verdict_and_where_to_read_on() -> None:
    text = note(build.build_report(tables_of(), params_of()), {"report": "/w/report.html"})
    assert text.startswith("**Found** Score memorization (not validated here) puts 4 ")
    assert "**Worked?** " in text
    assert text.endswith("* report: `/w/report.html`")
