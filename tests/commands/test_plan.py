"""What a plan does, counted by hand."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest

from gdc import cli
from gdc.commands.plan import Reason, curated_arm, summarize_plan
from gdc.comparison.results import CuratedChoice
from gdc.errors import ConfigError, SchemaError
from gdc.schema import PLAN
from gdc.workspace import files, paths, tables
from tests.builders import REPOSITORY, params_with

ROWS = [
    ("keep", 1.0, "no memorized span"),
    ("keep", 1.0, "no memorized span"),
    ("keep", 1.0, "no memorized span"),
    ("drop", 0.0, "near copy of 0123456789abcdef-0, similarity 0.91"),
    ("drop", 0.0, "near copy of fedcba9876543210-12, similarity 1.0"),
    ("weight", 0.5, "rank 12 of the 50 chosen"),
]


def write_plan(arm: str) -> None:
    table = pl.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(len(ROWS))],
            "action": [action for action, _, _ in ROWS],
            "weight": [weight for _, weight, _ in ROWS],
            "copies": 1,
            "reason": [reason for _, _, reason in ROWS],
            "masked": [[] for _ in ROWS],
        },
        schema=PLAN,
    )
    tables.write_plans({arm: table})


@pytest.fixture
def arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The arm of params.yaml whose plan makes the curated data; the current folder is empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / paths.PARAMS).write_text((REPOSITORY / paths.PARAMS).read_text(encoding="utf-8"))
    choice = CuratedChoice("paper", "evidence", is_shown=False, sentence="", remedies=())
    files.write_json(paths.CHOICE, asdict(choice))
    return "paper"


def test_the_arm_that_made_the_curated_data_is_named_by_the_parameters_or_by_the_last_run(
    arm: str,
) -> None:
    intervene = params_with().intervene
    named, auto = (
        params_with(intervene=intervene.model_dump(mode="json") | {"curated_arm": chosen})
        for chosen in ("none", "auto")
    )
    assert (curated_arm(named), curated_arm(auto)) == ("none", arm)
    paths.CHOICE.unlink()
    with pytest.raises(SchemaError, match=r"data/choice\.json"):
        curated_arm(auto)


def test_samples_are_counted_by_action_and_by_reason_without_its_numbers(arm: str) -> None:
    write_plan(arm)
    summary = summarize_plan(params_with())
    assert (summary.arm, summary.num_samples) == (arm, 6)
    assert list(summary.actions.items()) == [("keep", 3), ("drop", 2), ("weight", 1)]
    assert summary.reasons == (
        Reason("keep", "no memorized span", 3),
        Reason("drop", "near copy of …, similarity …", 2),
        Reason("weight", "rank … of the … chosen", 1),
    )


def test_an_unknown_arm_and_a_missing_plan_are_refused(arm: str) -> None:
    with pytest.raises(ConfigError, match=rf"^arm: expected one of .*{arm}.*, got 'nope'\.$"):
        summarize_plan(params_with(), "nope")
    with pytest.raises(SchemaError, match=r"gdc run"):
        summarize_plan(params_with())


@pytest.mark.parametrize("is_json", [True, False])
def test_the_command_prints_a_table_or_json(
    arm: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_json: bool,
) -> None:
    write_plan(arm)
    monkeypatch.setattr(sys, "argv", ["gdc", "plan", *(["--json"] if is_json else [])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    output = capsys.readouterr().out
    if is_json:
        summary = json.loads(output)
        assert summary["actions"] == {"keep": 3, "drop": 2, "weight": 1}
        assert summary["reasons"][1] == {
            "action": "drop", "reason": "near copy of …, similarity …", "num_samples": 2,
        }  # fmt: skip
    else:
        assert f"Plan of arm {arm}" in output
        assert "3 keep, 2 drop, 1 weight" in output
