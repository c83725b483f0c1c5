"""One stage by its name: the exit code that it ends with."""

import shutil
import sys
from pathlib import Path

import pytest

from flows import single_stage
from gdc.errors import EXIT_CODES
from gdc.workspace import dvc
from tests.builders import REPOSITORY

# A stage, and what runs it as DVC does: its end is 255, whatever that of the stage was.
STAGE = """
from gdc.errors import DataError, TransientError
from gdc.stages import runner

def main():
    raise {error}("for a reason")

runner._require_known_code = lambda: None
runner.run(main)
"""
HIDES = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]]); sys.exit(255)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param("DataError", 2, id="what is to be mended"),
        pytest.param("TransientError", 75, id="what may work later"),
        pytest.param("KeyError", 1, id="what was not foreseen"),
    ],
)
def test_a_stage_ends_with_the_exit_code_of_its_own_error(
    error: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    program = [sys.executable, "-c", HIDES, STAGE.format(error=error)]
    monkeypatch.setattr(dvc, "command", lambda *_: program)
    assert single_stage.run("score") == code
    assert code in EXIT_CODES
    assert list(Path("work").glob("exit-code*")) == []
