"""The model of report.json: read back, refused, described."""

from dataclasses import replace
from pathlib import Path

import pytest

from gdc.comparison.results import AllAttacks
from gdc.errors import DataError
from gdc.report import build, page
from gdc.report.model import Report, read_report, report_schema, to_json
from gdc.report.page import Pictures
from gdc.workspace import files
from tests.comparison.builders import arm_audits, around
from tests.report.builders import (
    HALF,
    calibration_of,
    card_of,
    page_data_of,
    params_of,
    tables_of,
)


def full_report() -> Report:
    """A report with every part."""
    audits = {
        arm: arm_audits(
            extracted=around(extracted), auc=around(0.5), perplexity_ratio=around(ratio)
        )
        for arm, extracted, ratio in (("none", 0.5, 1.0), ("paper", 0.25, 1.5))
    }
    card = card_of("memorization", HALF, "not shown")
    made = replace(
        tables_of(),
        arm_audits=audits,
        calibration=calibration_of(card, is_validated=True),
        attacks=AllAttacks({}, {}, []),
    )
    target = {"max_extraction": 0.5, "max_perplexity_increase": 70.0}
    return build.build_report(made, params_of(target=target))


def test_the_report_survives_json_and_then_gives_the_same_page(tmp_path: Path) -> None:
    report = full_report()
    files.write_json(tmp_path / "report.json", to_json(report))
    read_back = read_report(tmp_path / "report.json")
    assert read_back == report
    assert read_back.recommendation is not None
    assert [point.arm for point in read_back.pareto_front] == ["none", "paper"]
    data = page_data_of(tables_of(), params_of())
    # JSON has the arms by name, which is their order here.
    pages = [page.render_html(numbers, Pictures(), data) for numbers in (read_back, report)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("version", "got"),
    [
        (None, "one of an older version"),
        (0, "version 0"),
        (2, "version 2"),
        ("x" * 99, f"version {'x' * 20}"),
    ],
)
def test_a_report_of_another_version_is_refused(tmp_path: Path, version: object, got: str) -> None:
    content = to_json(full_report()) | {"schema_version": version}
    if version is None:
        del content["schema_version"]
    files.write_json(tmp_path / "report.json", content)
    with pytest.raises(DataError, match=rf"version 1, got {got}\. Make it again"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("arms", [{"arm": "none"}], r"arms\.0\.num_dropped"),
        ("hotspots", None, "hotspots"),
        ("definitions", {"stable-easy": "x"}, "definitions"),
        ("quadrants", {"axis": "x"}, r"quadrants\.difficulty_threshold"),
        ("evidence", {}, "evidence"),
    ],
)
def test_a_damaged_report_names_the_key(
    tmp_path: Path, key: str, value: object, where: str
) -> None:
    files.write_json(tmp_path / "report.json", to_json(full_report()) | {key: value})
    with pytest.raises(DataError, match=rf"report\.json: {where}: .*Make it again: gdc run\.$"):
        read_report(tmp_path / "report.json")


def test_quadrants_without_a_count_for_each_are_refused(tmp_path: Path) -> None:
    content = to_json(full_report())
    del content["quadrants"]["counts"]["noisy-outlier"]
    files.write_json(tmp_path / "report.json", content)
    with pytest.raises(DataError, match=r"expected a value for every quadrant, .*noisy-outlier"):
        read_report(tmp_path / "report.json")


def test_the_schema_describes_every_key_of_a_report() -> None:
    schema = report_schema()
    assert set(schema["properties"]) == set(to_json(full_report()))
    assert schema["properties"]["schema_version"]["const"] == 1
    assert set(schema["$defs"]["Measured"]["properties"]) == {"value", "low", "high", "num_seeds"}
