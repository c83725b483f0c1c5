"""Text of a script, and the code that made it -> a page of docs/results, in place of the old text.

A folder that keeps results says itself which code made them (``note``).
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "docs/results"
PAGES: Final[Mapping[str, Path]] = {
    "make bench": RESULTS / "speed.md",
    "benchmarks/operators.py": RESULTS / "speed.md",
    "benchmarks/shapes.py": RESULTS / "speed.md",
    "benchmarks/cells.py": RESULTS / "speed.md",
    "benchmarks/texts.py": RESULTS / "speed.md",
    "benchmarks/filters.py": RESULTS / "speed.md",
    "benchmarks/gpu.py": RESULTS / "gpu.md",
    "benchmarks/memory.py": RESULTS / "scale.md",
    "make scale": RESULTS / "scale.md",
    "make kills": RESULTS / "campaigns.md",
    "make fuzz": RESULTS / "campaigns.md",
    "benchmarks/score_corpora.py page": RESULTS / "corpora.md",
    "benchmarks/told_truth.py": RESULTS / "corpora.md",
    "make leaderboard": RESULTS / "leaderboard.md",
    "make budgets-text": RESULTS / "budgets.md",
    "benchmarks/theorems.py": RESULTS / "theorems.md",
    "benchmarks/membership.py": RESULTS / "membership.md",
}
"""The page of each command that writes its tables."""
END: Final = "<!-- until here -->\n"
NOTES: Final = "code.txt"
"""The file of a folder of results that says which code made them."""
UNKNOWN: Final = "not known"


def put(command: str, text: str, code: Sequence[str] | None = None) -> None:
    """Write ``text`` between the marks of ``command``, such as ``make bench``, on its page.

    ``code`` are the versions of the code that the text is of; None: today's.
    """
    path = PAGES[command]
    page = path.read_text(encoding="utf-8")
    about = sentence([version()] if code is None else code)
    text = f"{text}\n{about}" if about else text
    path.write_text(replaced(page, command, text), encoding="utf-8")


def replaced(page: str, command: str, text: str) -> str:
    """``page`` with ``text`` between the marks of ``command``.

    Raises:
        ValueError: The page has no such marks.
    """
    begin = f"<!-- written by {command} -->\n"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(END)
    if not (first and last):
        raise ValueError(f"page: expected the lines {begin!r} and {END!r}, got at most one.")
    return f"{before}{begin}\n{text}\n{END}{after}"


# ---- the code that made it


def version(root: Path = ROOT) -> str | None:
    """The commit, and whether files differ from it; None outside of git.

    Pages do not count, as each script writes its own and others go on.
    """
    commit = _git(root, "rev-parse", "--short=12", "--verify", "HEAD")
    if commit is None:
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return f"{commit} with changes" if changed else commit


def note(folder: Path, *, is_all: bool = False) -> None:
    """Say that today's code makes what a folder holds: all of it, or what is added from now on."""
    before = noted(folder) or ([UNKNOWN] if any(folder.iterdir()) else [])
    made = dict.fromkeys([*([] if is_all else before), version() or UNKNOWN])
    (folder / NOTES).write_text("".join(f"{name}\n" for name in made), encoding="utf-8")


def noted(folder: Path) -> list[str]:
    """What ``note`` said of the folder, the first first; nothing where it was never called."""
    path = folder / NOTES
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def sentence(versions: Sequence[str | None]) -> str:
    """What a page says of the code; empty where nothing is known of it."""
    known = [name if name == UNKNOWN else f"`{name}`" for name in versions if name is not None]
    return f"Code: {', '.join(known)}.\n" if known else ""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
