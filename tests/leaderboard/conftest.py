"""The leaderboard that several test files look at, built once."""

import pytest

from gdc.leaderboard.board import Leaderboard
from tests.leaderboard.builders import make_board


@pytest.fixture(scope="session")
def board() -> Leaderboard:
    return make_board()
