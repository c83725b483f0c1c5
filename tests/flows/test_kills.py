"""A run of the pipeline that is killed, at any moment; `make kills` does it hundreds of times."""

import random
import shutil
from pathlib import Path

import pytest

from tests.flows.builders import dvc
from tests.flows.killing import Trial, forget, results

pytestmark = pytest.mark.slow


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(
    first_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "workspace"
    shutil.copytree(first_run, folder, symlinks=True)
    forget(folder, ["train@0", "retrain@mask-spans-1", "report"])
    trial = Trial(folder, random.Random(0), longest=15.0)  # noqa: S311 - no secret
    kills = trial.kill_often(3)
    assert [kill.faults for kill in kills] == [()] * 3
    assert trial.finish(results(first_run)) == []
    assert dvc(folder, "status").split() == ["manifest:", "always", "changed"]
