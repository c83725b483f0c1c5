"""What is published, what is refused, and the gate of a model."""

from pathlib import Path

import pytest

from gdc.errors import ConfigError
from tasks import publish
from tests.comparison.builders import arm_audits, measured
from tests.tasks.builders import git

LESS = (-0.2, -0.4, 0.0)
EQUAL = (1.0, 0.95, 1.05)


@pytest.mark.parametrize(
    ("ratio", "change", "objection"),
    [
        pytest.param(EQUAL, LESS, None, id="both worse ends exactly at their limits"),
        pytest.param(EQUAL, (0.0, 0.0, 0.0), None, id="nothing leaks, before or after"),
        pytest.param(
            (1.0, 0.95, 1.051), LESS,
            "paper is not shown to cost at most x1.05: perplexity x1.000 [0.950, 1.051]",
            id="no cost on average, but one within the interval",
        ),
        pytest.param(
            EQUAL, (-0.1, -0.3, 0.01),
            "paper is not shown to leak no more: extraction -10.0 points [-30.0, +1.0]",
            id="less leakage on average, but more within the interval",
        ),
        pytest.param(EQUAL, None, "paper was not compared: no arm keeps", id="no canaries"),
    ],
)  # fmt: skip
def test_the_gate_judges_by_the_worse_end_of_each_interval(
    ratio: tuple[float, float, float],
    change: tuple[float, float, float] | None,
    objection: str | None,
) -> None:
    audits = arm_audits(
        perplexity_ratio=measured(*ratio),
        extraction_change=None if change is None else measured(*change),
    )
    said = publish.objection("paper", audits)
    assert (said is None) == (objection is None)
    assert objection is None or (said is not None and said.startswith(objection))


def test_an_arm_that_was_not_evaluated_passes_no_gate() -> None:
    assert str(publish.objection("paper", None)).startswith("paper was not compared")


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


def test_a_lock_is_committed_with_the_code_of_the_last_commit_of_the_day(toy: Path) -> None:
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
