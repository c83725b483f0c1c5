"""leaderboard.json: what it holds, and that it is read back or refused."""

import json
from typing import Any

import pytest

from gdc.errors import DataError
from gdc.leaderboard.board import Leaderboard


def test_a_leaderboard_is_read_back_from_its_json(board: Leaderboard) -> None:
    text = json.dumps(board.to_json(), allow_nan=False)
    content = json.loads(text)
    assert content["schema_version"] == 2
    assert content["scores"][0]["mean"]["spearman"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert content["scores"][-1]["mean"]["spearman"] is None
    assert content["epsilon_curve"][0]["quantile"] == 0.005
    again = Leaderboard.from_json(content)
    assert again == board
    assert json.dumps(again.to_json()) == text


@pytest.mark.parametrize("version", [None, 1, 3])
def test_a_leaderboard_of_another_version_is_refused(
    board: Leaderboard, version: int | None
) -> None:
    content = {**board.to_json(), "schema_version": version}
    with pytest.raises(DataError, match=f"schema_version 2, got {version}: .* gdc leaderboard"):
        Leaderboard.from_json(content)


def test_a_damaged_leaderboard_is_refused_by_the_name_of_the_field(board: Leaderboard) -> None:
    content: dict[str, Any] = board.to_json()
    del content["scores"][1]["peak"]["auroc"]["low"]
    with pytest.raises(DataError, match=r"scores\.1\.peak\.auroc\..*low: Field required"):
        Leaderboard.from_json(content)
