"""A plan that a person wrote: the listed is done, the rest kept, what cannot be is refused."""

import json
from pathlib import Path

import polars as pl
import pytest

from gdc.curation.listed import LISTED, listed_plan, read_listed
from gdc.errors import ConfigError, DataError
from gdc.schema import PLAN, SPANS
from tests.curation.builders import FIVE

SPAN_OF_D = pl.DataFrame([("d", 2, 6, 2, 1.0)], schema=SPANS, orient="row")


def plan_of(**actions: str) -> pl.DataFrame:
    """The plan of the samples a to e with these actions."""
    listed = pl.DataFrame(list(actions.items()), schema=LISTED, orient="row")
    return listed_plan(FIVE.lazy(), listed, SPAN_OF_D, name="plan.jsonl").collect()


def written(path: Path, *lines: object) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def test_what_is_listed_is_done_and_the_rest_is_kept() -> None:
    plan = plan_of(a="drop", d="mask", b="keep")
    assert plan.schema == PLAN
    assert plan.rows() == [
        ("e", "keep", 1.0, 1, "not listed", []),
        ("a", "drop", 0.0, 0, "listed", []),
        ("d", "mask", 1.0, 1, "listed", [{"start": 2, "end": 6}]),
        ("c", "keep", 1.0, 1, "not listed", []),
        ("b", "keep", 1.0, 1, "listed", []),
    ]


def test_samples_that_are_not_there_or_have_no_span_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"plan\.jsonl: expected ids of .*got 1 .*first 'x'"):
        plan_of(x="drop", a="drop")
    with pytest.raises(DataError, match=r"expected a memorized span .*got 1 .*first 'a'"):
        plan_of(a="mask", d="mask")


def test_a_file_is_read_in_its_order_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    rows = [{"sample_id": "b", "action": "drop"}, {"sample_id": "a", "action": "keep", "why": "x"}]
    path = written(tmp_path / "plan.jsonl", rows[0], "", rows[1])
    assert read_listed(path, name="file").rows() == [("b", "drop"), ("a", "keep")]


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", '"drop"', '{"sample_id": 1, "action": "drop"}',
     '{"sample_id": "a"}', '{"sample_id": "a", "action": "copy"}', "[" * 10_000],
)  # fmt: skip
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "plan.jsonl", {"sample_id": "a", "action": "drop"}, line)
    with pytest.raises(
        DataError, match=r"plan\.jsonl:2: expected .*keep, drop, mask, got"
    ) as found:
        read_listed(path, name="file")
    assert len(str(found.value)) < 400


def test_a_missing_file_and_a_sample_in_two_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"arms\.x\.file: expected a text file .*No such file"):
        read_listed(tmp_path / "none.jsonl", name="arms.x.file")
    twice = [{"sample_id": "a", "action": action} for action in ("drop", "keep")]
    with pytest.raises(DataError, match=r"expected each sample once, got 1 more often, first 'a'"):
        read_listed(written(tmp_path / "plan.jsonl", *twice), name="file")
