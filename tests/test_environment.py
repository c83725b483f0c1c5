"""What is read off the machine and the environment."""

import os

import pytest

from gdc.environment import workers


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [workers(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]
