"""Stage `curate`: the data of the chosen plan, marked where the plan is unproven."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest

from gdc.comparison.results import CuratedChoice
from gdc.schema import CORPUS, KEYS, PLAN, QUADRANT_TABLE
from gdc.stages import curate as stage
from gdc.workspace import files, paths, tables, tracking

ROWS = [
    ("a-0", "a", 1, "text a", 6, 3, "f:1", "train", None),
    ("b-0", "b", 1, "text b", 6, 3, "f:2", "train", None),
    ("c-0", "c", 1, "code 7", 6, 3, "canary", "train", "digits-1-00"),
    ("v-0", "v", 1, "held out", 8, 3, "f:3", "validation", None),
]


@pytest.mark.parametrize(
    ("is_shown", "proof", "name"),
    [
        pytest.param(True, "shown", "curated", id="a plan that is shown to work"),
        pytest.param(False, "unproven", "curated-unproven", id="a plan that is not"),
    ],
)
def test_the_chosen_plan_makes_the_data_which_say_whether_it_is_proven(
    is_shown: bool, proof: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Mock()

    @contextmanager
    def stage_run(*_: object) -> Iterator[Mock]:
        yield run

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    scored = ["a-0", "b-0", "c-0"]
    tables.write("corpus", pl.DataFrame(ROWS, schema=CORPUS, orient="row"))
    tables.write("keys", pl.DataFrame([("f:2", "b1"), ("f:1", "a1")], schema=KEYS, orient="row"))
    quadrants = [(sample_id, "stable-easy", None) for sample_id in scored]
    tables.write("quadrants", pl.DataFrame(quadrants, schema=QUADRANT_TABLE, orient="row"))
    drops = {"none": set(), "top": {"b-0", "c-0"}}
    tables.write_plans({arm: plan_of(scored, dropped) for arm, dropped in drops.items()})
    choice = CuratedChoice("top", "evidence", is_shown, "Said why.", ("more seeds",))
    files.write_json(paths.CHOICE, asdict(choice))
    stage.main()
    named = ["sample_id", "source", "key"]
    assert tables.read("curated/train").select(named).rows() == [("a-0", "f:1", "a1")]
    assert tables.read("curated/removed").select(named).rows() == [("b-0", "f:2", "b1")]
    assert tables.read("curated/validation").select(named).rows() == [("v-0", "f:3", None)]
    assert files.read_as(CuratedChoice, paths.ABOUT_CURATED) == choice
    run.set_tags.assert_called_once_with({"gdc.curated.arm": "top", "gdc.curated.proof": proof})
    run.log_dataset.assert_called_once_with(
        name, tables.TABLES["curated/train"][0], f"curated, {proof}"
    )


def plan_of(ids: list[str], dropped: set[str]) -> pl.LazyFrame:
    rows: list[tuple[object, ...]] = [
        (i, "drop", 0.0, 0, "why", []) if i in dropped else (i, "keep", 1.0, 1, "no rule", [])
        for i in ids
    ]
    return pl.DataFrame(rows, schema=PLAN, orient="row").lazy()
