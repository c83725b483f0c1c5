"""Laws of the digests of code: an edit changes those of the stages that it may change."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gdc.errors import ConfigError
from gdc.statistics.syntax_hash import syntax_hash
from gdc.workspace import code_digests as digests
from gdc.workspace.code_digests import code_digests
from tests.builders import REPOSITORY

KNOWN = code_digests()
ALL = set(KNOWN)


@pytest.fixture(scope="module")
def parse_once() -> Callable[[Path], tuple[str, list[str]]]:
    """Reads a file as it is; of equal content it knows what it has read."""
    parse = digests._parse
    known: dict[tuple[str, bytes], tuple[str, list[str]]] = {}

    def read(file: Path) -> tuple[str, list[str]]:
        key = file.suffix, file.read_bytes()
        if key not in known:
            known[key] = parse(file)
        return known[key]

    return read


@pytest.fixture(autouse=True)
def _parse_once(
    parse_once: Callable[[Path], tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly all files of a copy are those of our package: to parse all takes half a second."""
    monkeypatch.setattr(digests, "_parse", parse_once)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of our package."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(REPOSITORY / "gdc", tmp_path / "gdc", ignore=ignored))


@pytest.fixture
def small_package(tmp_path: Path) -> Path:
    """Two stages, which share one module."""
    files = {
        "stages/train.py": "from gdc import schema\n",
        "stages/report.py": "from gdc import schema\nfrom gdc.report import page\n",
        "report/page.py": "",
        "report/templates/report.html": "<html></html>",
        "schema.py": "TRACE = 1\n",
    }
    for name, text in files.items():
        file = tmp_path / "gdc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "gdc"


def test_a_copy_of_the_package_has_the_digests_of_the_package(package: Path) -> None:
    assert code_digests(package) == KNOWN


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {stage for stage in before if before[stage] != after[stage]}


def append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("stages/train.py", {"train"}),
        ("mapping/quadrants.py", {"calibrate", "intervene", "partition", "report"}),
        ("schema.py", ALL),
        ("errors.py", ALL),
        ("cli/audits.py", set()),
    ],
)
def test_an_edit_changes_the_digests_of_what_reaches_it(
    edited: str, stages: set[str], package: Path
) -> None:
    append(package / edited, "EDITED = 1\n")
    assert changed(KNOWN, code_digests(package)) == stages


def test_the_digest_of_one_stage_is_that_of_all_and_knows_what_is_never_skipped(
    package: Path,
) -> None:
    assert digests.code_digest("train", package) == KNOWN["train"]
    before = digests.code_digest("ground_truth", package)
    append(package / "training/recipe.py", "EDITED = 1\n")
    assert digests.code_digest("ground_truth", package) != before


def test_a_template_counts_by_its_bytes(package: Path) -> None:
    append(package / "report/templates/report.html", "<!-- edited -->")
    assert changed(KNOWN, code_digests(package)) == {"report"}


def test_a_comment_or_a_docstring_anywhere_runs_no_stage(package: Path) -> None:
    for file in package.rglob("*.py"):
        written = file.read_text(encoding="utf-8")
        file.write_text(
            f'"""Edited."""\n# Edited.\n\n{written}\n"""The end."""\n', encoding="utf-8"
        )
    assert code_digests(package) == KNOWN


def test_a_module_that_a_function_imports_counts(package: Path) -> None:
    (package / "mapping/added.py").write_text("ADDED = 1\n", encoding="utf-8")
    assert code_digests(package) == KNOWN
    lazily = "\n\ndef add():\n    from gdc.mapping import (\n        added as other,\n    )\n"
    append(package / "mapping/quadrants.py", lazily)
    with_import = code_digests(package)
    (package / "mapping/added.py").write_text("ADDED = 2\n", encoding="utf-8")
    stages = {"calibrate", "intervene", "partition", "report"}
    assert changed(with_import, code_digests(package)) == stages


def test_a_module_that_is_not_python_is_named(package: Path) -> None:
    (package / "schema.py").write_text("A = 1\ndef f(:\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"schema\.py:2: expected Python, got invalid syntax"):
        code_digests(package)


# ---- the cache


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, as they are."""
    names: list[str] = []
    parse = digests._parse

    def listing(file: Path) -> tuple[str, list[str]]:
        names.append(file.name)
        return parse(file)

    monkeypatch.setattr(digests, "_parse", listing)
    monkeypatch.setattr(digests, "_CLOCK_SECONDS", 0)
    return names


def test_with_a_cache_nothing_is_read_again(
    small_package: Path, tmp_path: Path, parsed: list[str]
) -> None:
    cache_file = tmp_path / "work/cache"
    first = code_digests(small_package, cache_file)
    assert {"schema.py", "train.py", "report.html"} <= set(parsed)
    parsed.clear()
    assert code_digests(small_package, cache_file) == first
    assert parsed == []
    assert list(cache_file.parent.iterdir()) == [cache_file]


def test_with_a_cache_an_edit_is_seen(
    small_package: Path, tmp_path: Path, parsed: list[str]
) -> None:
    cache_file, file = tmp_path / "cache", small_package / "report/page.py"
    append(file, "EDITED = 1\n")
    before = code_digests(small_package, cache_file)
    parsed.clear()
    # As long as it was.
    file.write_text(file.read_text(encoding="utf-8")[:-2] + "2\n", encoding="utf-8")
    assert changed(before, code_digests(small_package, cache_file)) == {"report"}
    assert parsed == ["page.py"]


def test_a_file_that_was_written_just_now_is_not_kept(
    small_package: Path, tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_CLOCK_SECONDS", 3600)
    started = time.time()
    code_digests(small_package, tmp_path / "cache")
    parsed.clear()
    code_digests(small_package, tmp_path / "cache")
    assert time.time() - started < 3600
    assert "schema.py" in parsed


@pytest.mark.parametrize("damage", ["", "{}", "cut", "edited", "folder"])
def test_a_damaged_cache_is_not_believed(
    damage: str, small_package: Path, tmp_path: Path, parsed: list[str]
) -> None:
    cache_file = tmp_path / "cache"
    expected = code_digests(small_package, cache_file)
    whole = cache_file.read_text(encoding="utf-8")
    if damage == "folder":
        cache_file.unlink()
        cache_file.mkdir()
    else:
        digest = syntax_hash((small_package / "schema.py").read_bytes()).hex()
        edited = whole.replace(digest, "0" * len(digest))
        assert edited != whole
        texts = {"cut": whole[: len(whole) // 2], "edited": edited}
        cache_file.write_text(texts.get(damage, damage), encoding="utf-8")
    parsed.clear()
    assert code_digests(small_package, cache_file) == expected
    assert "schema.py" in parsed


def test_a_cache_of_another_package_is_not_believed(small_package: Path, tmp_path: Path) -> None:
    expected = code_digests(small_package, tmp_path / "cache")
    other = Path(shutil.copytree(small_package, tmp_path / "other/gdc"))
    append(other / "schema.py", "EDITED = 1\n")
    assert changed(expected, code_digests(other, tmp_path / "cache")) == {"train", "report"}
