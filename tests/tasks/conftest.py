"""Fixtures of the toy workspace."""

import shutil
from pathlib import Path

import pytest

from tests.tasks.builders import make_toy


@pytest.fixture(scope="session")
def pristine_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_toy(folder)
    return folder


@pytest.fixture
def toy(pristine_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the toy workspace, as the current folder."""
    shutil.copytree(pristine_toy, tmp_path / "toy")
    monkeypatch.chdir(tmp_path / "toy")
    return tmp_path / "toy"
