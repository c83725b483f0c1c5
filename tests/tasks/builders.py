"""Toy workspaces of three stages that copy files, for tests of what runs them."""

import subprocess
from pathlib import Path

from dvc.repo import Repo

# Writes its inputs to its output; an input that says so makes it fail.
TOY_STAGE = """
import sys
from pathlib import Path

target, *inputs = map(Path, sys.argv[1:])
with open("work/started.txt", "a") as started:
    started.write(f"{target.stem}\\n")
text = "".join(path.read_text() for path in inputs)
for word, code in (("mistake", 2), ("outage", 75)):
    if word in text:
        sys.exit((sys.stderr.write(f"error: there was a {word}\\n"), code)[1])
if "bug" in text:
    raise RuntimeError("boom")
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text(text)
"""
TOY_GRAPH = """
stages:
  manifest:
    cmd: python toy.py data/manifest.txt source.txt
    always_changed: true
    outs:
      - data/manifest.txt
  retrain:
    matrix:
      arm: [none, paper]
    cmd: python toy.py data/${item.arm}.txt data/manifest.txt ${item.arm}.txt
    deps:
      - data/manifest.txt
      - ${item.arm}.txt
    outs:
      - data/${item.arm}.txt
  report:
    cmd: python toy.py data/report.txt data/none.txt data/paper.txt
    deps:
      - data/none.txt
      - data/paper.txt
    outs:
      - data/report.txt
"""


def make_toy(folder: Path) -> None:
    (folder / "toy.py").write_text(TOY_STAGE)
    (folder / "dvc.yaml").write_text(TOY_GRAPH)
    for name in ("source", "none", "paper"):
        (folder / f"{name}.txt").write_text(f"{name}\n")
    (folder / ".gitignore").write_text("/data\n/work\n")
    (folder / "work").mkdir()
    git(folder, "init", "--initial-branch=main")
    init_dvc(folder)
    commit_all(folder)


def init_dvc(folder: Path, *, no_scm: bool = False) -> None:
    """As `dvc init`, which as a program of its own imports for a second."""
    Repo.init(str(folder), no_scm=no_scm).close()


def commit_all(folder: Path) -> None:
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--message=Start")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def ignore(_line: str) -> None:
    """A log that nobody reads."""
