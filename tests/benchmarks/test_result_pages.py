"""A page says which commit its numbers are of, as far as that was kept."""

from pathlib import Path

import pytest

from benchmarks import result_pages
from benchmarks.result_pages import UNKNOWN, note, noted, sentence, version
from tests.tasks.builders import commit_all, git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit with code and a page."""
    (tmp_path / "docs").mkdir()
    for name in ("code.py", "docs/page.md"):
        (tmp_path / name).write_text("first", encoding="utf-8")
    git(tmp_path, "init", "-q")
    commit_all(tmp_path)
    return tmp_path


def test_the_version_is_the_commit_and_whether_code_differs_from_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")[:12]
    # Scripts write pages, and leave files of their own.
    (repository / "docs/page.md").write_text("written", encoding="utf-8")
    (repository / "left.json").write_text("{}", encoding="utf-8")
    assert version(repository) == commit
    (repository / "code.py").write_text("changed", encoding="utf-8")
    assert version(repository) == f"{commit} with changes"


def test_outside_of_git_there_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert version(tmp_path) is None


def test_a_folder_keeps_all_versions_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "a"):
        monkeypatch.setattr(result_pages, "version", lambda name=name: name)
        note(tmp_path)
    assert noted(tmp_path) == ["a", "b"]
    note(tmp_path, is_all=True)
    assert noted(tmp_path) == ["a"]


def test_of_results_that_are_older_than_the_note_the_version_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_pages, "version", lambda: "b")
    (tmp_path / "half_0.npy").touch()
    assert noted(tmp_path) == []
    note(tmp_path)
    assert noted(tmp_path) == [UNKNOWN, "b"]
    assert sentence(noted(tmp_path)) == "Code: not known, `b`.\n"


@pytest.mark.parametrize(
    ("code", "written"),
    [
        pytest.param(None, "numbers\n\nCode: `today`.\n", id="what was just measured"),
        pytest.param(["a", "b"], "numbers\n\nCode: `a`, `b`.\n", id="what was kept"),
        pytest.param([], "numbers\n", id="nothing is invented"),
    ],
)
def test_a_page_names_the_code_below_the_numbers(
    code: list[str] | None, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- written by x -->\n<!-- until here -->\n", encoding="utf-8")
    monkeypatch.setattr(result_pages, "PAGES", {"x": page})
    monkeypatch.setattr(result_pages, "version", lambda: "today")
    result_pages.put("x", "numbers\n", code)
    text = page.read_text(encoding="utf-8")
    assert text == f"<!-- written by x -->\n\n{written}\n<!-- until here -->\n"
