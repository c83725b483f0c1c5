"""The pages of `gdc ui`: all texts on disk, the report and the runs under one address."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gdc.commands.pages import create_app
from gdc.report.page_data import PageFrame
from gdc.report.sample_table import JOINED, sample_table
from gdc.report.texts_on_disk import Query, TextsOnDisk
from gdc.workspace import files, paths
from tests.builders import trace_of, write_trace
from tests.report.builders import EVIL, SAMPLES, params_of, revised_by, tables_of

ARMS = {"none": 0, "paper": 0}
FRAME = PageFrame("memorization", 3, {"memorization": 0.15}, ARMS, 100, show_text=True)


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextsOnDisk:
    """The texts of ``tables_of`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    made = tables_of(text=EVIL)
    paths.SAMPLES.parent.mkdir()
    joined = {name: getattr(made, name).lazy() for name in JOINED}
    arms = {
        arm: made.plans.get(arm, made.plans["none"]).lazy() for arm in params_of().intervene.arms
    }
    sample_table(joined, arms, {}).sink_parquet(paths.SAMPLES)
    return TextsOnDisk(paths.SAMPLES, FRAME)


def asked(**more: object) -> Query:
    base = Query("difficulty", "memorization", sort="memorization")
    return replace(base, **more)  # type: ignore[arg-type]  # fields by name


def ids(texts: TextsOnDisk, **more: object) -> list[str]:
    found = texts.listed(asked(**more))
    assert found.total == len(found.rows)
    return [row.key for row in found.rows]


def test_texts_are_filtered_searched_boxed_and_sorted(texts: TextsOnDisk) -> None:
    assert ids(texts) == ["f-0", "e-0", "c-0", "d-0", "b-0", "a-0"]
    assert ids(texts, down=False) == ["a-0", "b-0", "c-0", "d-0", "e-0", "f-0"]
    assert ids(texts, quadrant="hotspot-memorized", sort="difficulty") == ["c-0", "d-0", "e-0"]
    assert ids(texts, cause="near-copies") == ["c-0", "d-0"]
    assert ids(texts, arm="paper", action="weight") == ["c-0", "d-0"]
    assert ids(texts, search="ONERROR", source="FILE:E") == ["e-0"]
    assert ids(texts, search="E-0") == ["e-0"]
    assert ids(texts, box=(1.0, 2.0, 0.2, 0.3)) == ["e-0", "d-0"]
    assert ids(texts, canaries=True)[:2] == ["f-0", "g-0"]
    assert texts.listed(asked(first=5)).rows[0].key == "a-0"


@pytest.mark.usefixtures("texts")
def test_what_the_runs_of_an_arm_did_is_filtered_by_and_told() -> None:
    made = tables_of()
    joined = {name: getattr(made, name).lazy() for name in JOINED}
    revised = {"paper": revised_by({"b-0": 4, "c-0": 3}, {"b-0": 3})}
    plans = {arm: made.plans["none"].lazy() for arm in ARMS}
    of_runs = replace(FRAME, arms={"none": 0, "paper": 2})
    # The table of an older version says nothing of them.
    assert TextsOnDisk(paths.SAMPLES, of_runs).opened("b-0").revised == {}
    sample_table(joined, plans, revised).sink_parquet(paths.SAMPLES)
    told = TextsOnDisk(paths.SAMPLES, of_runs)
    assert ids(told, arm="paper", action="weight") == ["c-0", "b-0"]
    assert told.opened("b-0").actions == {"none": "keep", "paper": "weight"}
    assert told.opened("b-0").revised == {"paper": (3, 2)}
    assert told.opened("a-0").revised == {"paper": (None, 0)}


def test_without_texts_none_is_shown_or_searched(texts: TextsOnDisk) -> None:
    hidden = TextsOnDisk(paths.SAMPLES, replace(FRAME, show_text=False))
    assert [row.text for row in hidden.listed(asked()).rows] == [None] * 6
    assert ids(hidden, search="onerror") == []
    assert texts.opened("e-0").text == f"{EVIL} e-0"


def test_every_text_lies_in_one_cell_of_the_map(texts: TextsOnDisk) -> None:
    cells = texts.density(asked())
    assert sum(map(sum, cells.counts)) == 6
    # The highest and hardest is f.
    assert cells.counts[-1][-1] == 1
    assert (len(cells.y), len(cells.x)) == (len(cells.counts), len(cells.counts[0]))


@pytest.fixture
def client(texts: TextsOnDisk) -> Iterator[TestClient]:
    assert texts.num_texts == len(SAMPLES) - 2
    params = params_of()
    files.write_json(paths.PARAMS, params.model_dump(mode="json"))
    made = tables_of()
    files.write_json(paths.QUADRANTS_SUMMARY, made.quadrants_summary.to_json())
    files.write_json(paths.SCORES_SUMMARY, made.scores_summary.to_json())
    curves = {row[0]: [3.0, 1.0] for row in SAMPLES}
    write_trace(params.train.seeds[0], trace_of(curves, mode=params.score.mode))
    paths.PAGE.parent.mkdir()
    paths.PAGE.write_text("the report", encoding="utf-8")
    # Nobody listens at port 9 of this machine.
    app = create_app("http://127.0.0.1:9", "#/experiments/1/runs")
    with TestClient(app, base_url="http://localhost:5000") as opened:
        yield opened


def test_report_texts_and_runs_stand_under_one_address(client: TestClient) -> None:
    assert client.get("/gdc/report.html").text == "the report"
    page = client.get("/gdc/texts").text
    assert 'href="../#/experiments/1/runs"' in page
    assert "connect-src 'self'" in page
    assert (
        client.get("/gdc/api/texts?sort=memorization&quadrant=noisy-outlier").json()["total"] == 1
    )
    assert client.get("/gdc/api/text?sample_id=e-0").json()["curve"] == [3.0, 1.0]
    assert client.get("/gdc/api/download/ids?quadrant=stable-easy").text == "a-0\n"
    (line,) = client.get("/gdc/api/download/jsonl?quadrant=stable-easy").text.splitlines()
    assert json.loads(line)["text"] == f"{EVIL} a-0"
    assert client.get("/ajax-api/2.0/mlflow/experiments/search").status_code == 503


@pytest.mark.parametrize(
    "place",
    ["texts?sort=nothing", "map?across=x", "texts?arm=nobody", "text?sample_id=x",
     "texts?left=a&right=1&low=0&high=1"],
)  # fmt: skip
def test_unknown_names_are_refused_with_a_message(client: TestClient, place: str) -> None:
    answer = client.get(f"/gdc/api/{place}")
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]


def test_a_page_of_another_name_reads_nothing(client: TestClient) -> None:
    for place in ("/gdc/report.html", "/gdc/api/texts", "/"):
        assert client.get(place, headers={"host": "evil.example"}).status_code == 400


def test_before_a_run_the_pages_say_what_is_missing(client: TestClient) -> None:
    paths.SAMPLES.unlink()
    paths.PAGE.unlink()
    assert "gdc run makes it" in client.get("/gdc/api/texts").json()["error"]
    assert client.get("/gdc/report.html").status_code == 404
