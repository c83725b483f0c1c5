"""Every kind of plan on corpora of real text: what does it remove, and what does it cost?

python benchmarks/budgets.py
python benchmarks/budgets.py man --dry-run

Runs preset ``budgets-text`` in ``work/budgets-text-<corpus>`` for each corpus (source code of
CPython's library, English manual pages), and writes docs/results/budgets.md. What is up to date is
not run again, and a run that was killed goes on where it stood. What it costs is said first;
``--dry-run`` only says that. ``--tiny`` shows in minutes that every arm works, and writes no page.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from experiment import SOURCE, gdc
from machine import machine
from result_pages import note, noted, put, sentence
from ruamel.yaml import YAML
from text_corpora import code, man, passages

from gdc.statistics import markdown

PRESET: Final = "budgets-text"
CORPORA: Final[Mapping[str, tuple[str, Callable[[Path | None], Iterable[str]]]]] = {
    "code": ("Source code of CPython's library", code),
    "man": ("English manual pages", man),
}
NUM_TEXTS, MAX_CHARS = 2600, 80
# Measured, as the estimate of a run is of its trainings alone.
AUDIT_SECONDS: Final = 3
NUM_TINY_TEXTS: Final = 500
TINY: Final[Mapping[str, Mapping[str, Any]]] = {
    "training": {"epochs": 4},
    "model": {"hidden_size": 16},
    "retrain": {"seeds": [1]},
    "evaluate": {"num_members": 50},
}


def main() -> None:
    """Run the corpora that are named, or all; write the page of all that have a result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpora", nargs="*", help=f"of {', '.join(CORPORA)}; none: all")
    parser.add_argument("--dry-run", action="store_true", help="only say what a run costs")
    parser.add_argument("--tiny", action="store_true", help="a small run, and no page")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.corpora) - {*CORPORA}):
        parser.error(f"corpora: expected some of {sorted(CORPORA)}, got {unknown}")
    folders = [prepared(c, is_tiny=arguments.tiny) for c in arguments.corpora or CORPORA]
    for folder in folders:
        sys.stderr.write(f"{folder}:\n")
        gdc(folder, "run", "--dry-run")
        sys.stderr.write(f"audits: about {AUDIT_SECONDS} processor seconds a model\n")
    if arguments.dry_run:
        return
    for folder in folders:
        gdc(folder, "run")
        # What was up to date is what this code would make.
        note(folder, is_all=True)
        if arguments.tiny:
            sys.stdout.write(gdc(folder, "show", "--markdown", capture=True))
    if not arguments.tiny:
        sections = [section(c) for c in CORPORA if has_result(c)]
        put("make budgets-text", "\n".join(sections), code=[])


def folder_of(corpus: str, *, is_tiny: bool = False) -> Path:
    """The workspace of a corpus."""
    return SOURCE / "work" / f"{PRESET}-{corpus}{'-tiny' if is_tiny else ''}"


def prepared(corpus: str, *, is_tiny: bool) -> Path:
    """The workspace of a corpus with its texts and params."""
    folder = folder_of(corpus, is_tiny=is_tiny)
    folder.mkdir(parents=True, exist_ok=True)
    # A repository of its own: DVC works in no folder that git ignores.
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    _, read = CORPORA[corpus]
    texts = passages(read(None), NUM_TINY_TEXTS if is_tiny else NUM_TEXTS, MAX_CHARS)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    gdc(folder, "init", PRESET, "--force")
    if is_tiny:
        _make_tiny(folder / "params.yaml")
    return folder


def _make_tiny(path: Path) -> None:
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for section_name, values in TINY.items():
        params[section_name].update(values)
    for family in params["ingest"]["canaries"].values():
        family.update(repeats=[2], per_level=1)
    yaml.dump(params, path)


def has_result(corpus: str) -> bool:
    """Whether its run ended."""
    return (folder_of(corpus) / "reports" / "report.json").exists()


def section(corpus: str) -> str:
    """The tables of one corpus."""
    name, _ = CORPORA[corpus]
    folder = folder_of(corpus)
    tables = gdc(folder, "show", "--markdown", capture=True)
    about = f"{machine()}. {sentence(noted(folder))}".strip()
    return f"## {name}\n\n{about}\n\n{tables.strip()}\n\n{changed_rows(folder)}"


def changed_rows(folder: Path) -> str:
    """What each plan changes; of an arm that weighs anew after each pass, the mean over seeds."""
    report = json.loads((folder / "reports" / "report.json").read_text(encoding="utf-8"))
    names = ("num_changed", "num_dropped", "num_masked", "num_weighted", "num_masked_tokens")
    rows = [[arm["arm"], *(f"{arm[name]:,}" for name in names)] for arm in report["arms"]]
    heading = [
        "arm", "rows changed", "dropped", "masked", "weighted at a time", "tokens without loss"
    ]  # fmt: skip
    return markdown.table(heading, rows)


if __name__ == "__main__":
    main()
