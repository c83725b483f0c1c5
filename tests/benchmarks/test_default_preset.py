"""The page on the default preset says of each run what its report says."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.default_preset import confirmed_in_all, removed_share, render, seed_of
from gdc.report import build
from gdc.report.model import Report
from tests.builders import REPOSITORY
from tests.comparison.builders import arm_audits, measured
from tests.report.builders import GAPS, params_of, tables_of


def report_with(left: float) -> Report:
    """Arm ``paper``, which leaves this share of the secrets, against half of them."""
    ends = (left - 0.5, -0.6, -0.1)
    audits = {
        "none": arm_audits(measured(0.5, 0.4, 0.6)),
        "paper": arm_audits(
            measured(left, 0.0, 0.2),
            random="random",
            extraction_change=measured(*ends),
            extraction_against_random=measured(*ends),
            perplexity_against_random=measured(1.0, 0.9, 1.1),
        ),
    }
    return build.build_report(replace(tables_of(), arm_audits=audits), params_of())


def test_a_plan_that_removes_enough_reaches_the_bar_and_one_that_leaves_more_does_not() -> None:
    reports = [(0, report_with(0.1)), (7, report_with(0.2))]
    assert [removed_share(report, "paper") for _, report in reports] == [
        pytest.approx(0.8),
        pytest.approx(0.6),
    ]
    rows = render(reports).splitlines()
    worked = [row for row in rows if "| paper | yes |" in row]
    assert worked == [
        "| 0 | paper | yes | 80 % | -40.0 [-60.0, -10.0] | 1.000 [0.900, 1.100] | yes |",
        "| 7 | paper | yes | 60 % | -30.0 [-60.0, -10.0] | 1.000 [0.900, 1.100] | no |",
    ]


def test_lists_of_all_runs_are_trusted_as_far_as_half_models_confirm_them() -> None:
    built = build.build_report(replace(tables_of(), gaps=GAPS), params_of())
    assert confirmed_in_all([built, built, report_with(0.1)]).startswith(
        "Of all texts listed 2 of 6 are confirmed, 33.3 % (by chance 10 %): "
    )


def test_the_seed_is_read_from_the_folder_of_a_run(tmp_path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("seed: 0 ", "seed: 3 ", 1))
    assert seed_of(tmp_path) == 3
