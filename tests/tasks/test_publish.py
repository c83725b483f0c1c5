"""What is published, what is refused, and the gate of a model."""

from dataclasses import replace
from pathlib import Path

import pytest

from gdc.errors import ConfigError
from tasks import publish
from tests.comparison.builders import arm_result
from tests.tasks.builders import git


@pytest.mark.parametrize(
    ("ratio", "difference", "objection"),
    [
        pytest.param(1.0, -0.2, None, id="less leakage at no cost"),
        pytest.param(1.05, 0.0, None, id="both exactly at their limits"),
        pytest.param(1.06, -0.2, "paper costs utility: perplexity x1.060, ", id="cost"),
        pytest.param(1.0, 0.01, "paper leaks more: extraction +0.010", id="leak"),
        pytest.param(1.0, None, "paper was not compared", id="no canaries"),
    ],
)
def test_the_gate(ratio: float | None, difference: float | None, objection: str | None) -> None:
    result = replace(arm_result("paper"), perplexity_ratio=ratio, extraction_difference=difference)
    said = publish.objection(result)
    assert (said is None) == (objection is None)
    assert objection is None or (said is not None and said.startswith(objection))


def test_the_lock_is_committed_beside_the_checkout(toy: Path) -> None:
    head = git(toy, "rev-parse", "HEAD")
    (toy / "toy.py").write_text("work in progress")
    git(toy, "add", "toy.py")
    (toy / "dvc.lock").write_text("first")
    before = git(toy, "status", "--porcelain")
    commit = publish.commit_lock("curation/2026-01-02")
    assert git(toy, "diff-tree", "-r", "--name-only", "--no-commit-id", commit) == "dvc.lock"
    assert git(toy, "show", "curation/2026-01-02:dvc.lock") == "first"
    assert git(toy, "rev-parse", "HEAD", f"{commit}^").split() == [head, head]
    assert git(toy, "status", "--porcelain") == before
    assert publish.commit_lock("curation/2026-01-02") == commit
    (toy / "dvc.lock").write_text("second")
    assert git(toy, "rev-parse", f"{publish.commit_lock('curation/2026-01-02')}^") == commit


def test_a_lock_is_committed_with_the_code_of_the_day_s_last_commit(toy: Path) -> None:
    (toy / "dvc.lock").write_text("first")
    first = publish.commit_lock("curation/2026-01-02")
    (toy / "toy.py").write_text("of the afternoon")
    git(toy, "add", "toy.py")
    git(toy, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--message=Edit")
    (toy / "dvc.lock").write_text("second")
    second = publish.commit_lock("curation/2026-01-02")
    assert git(toy, "show", f"{second}:toy.py") == "of the afternoon"
    assert git(toy, "show", f"{second}:dvc.lock") == "second"
    head = git(toy, "rev-parse", "HEAD")
    assert git(toy, "rev-parse", f"{second}^1", f"{second}^2").split() == [first, head]
    assert publish.commit_lock("curation/2026-01-02") == second


@pytest.mark.parametrize("command", [("status",), ("add", "--all")])
@pytest.mark.parametrize("name", ["toy.py", "params.yaml", "gdc/new.py"])
def test_a_lock_is_not_published_beside_other_code(
    toy: Path, name: str, command: tuple[str, ...]
) -> None:
    (toy / "dvc.lock").write_text("may differ")
    (toy / "notes.txt").write_text("may be new")
    publish.require_committed()
    (toy / name).parent.mkdir(exist_ok=True)
    (toy / name).write_text("edited")
    git(toy, *command)
    with pytest.raises(ConfigError, match=f"as committed, got changes in .*{name}.*Commit or undo"):
        publish.require_committed()


@pytest.mark.usefixtures("toy")
def test_a_workspace_without_a_remote_is_not_published() -> None:
    with pytest.raises(ConfigError, match="expected a default DVC remote, got none"):
        publish.require_publishable()
