"""Compare the outputs of two finished workspaces: equal bytes, or equal values under new names.

    python benchmarks/compare_workspaces.py OLD NEW [--allow-wording]

Compares every file below data/ and metrics/, and reports/report.json. A file whose bytes differ is
compared by its values, column by column or key by key, after the names of OLD are replaced by
those of NEW. Exit code 1: a file differs or is missing. With --allow-wording, sentences in JSON may
differ.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, Literal

import polars as pl

from gdc.statistics import markdown

Status = Literal["equal bytes", "equal values", "reworded", "not compared", "differs", "missing"]
STATUSES: Final[Sequence[Status]] = (
    "equal bytes", "equal values", "reworded", "not compared", "differs", "missing",
)  # fmt: skip
BAD: Final = ("differs", "missing")

# Names in OLD -> names in NEW; files by pattern.
RENAMED_FILES: Final[Mapping[str, str]] = {
    "data/probes.parquet": "data/canary_memorization.parquet",
}
RENAMED_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "data/scores*.parquet": {"twin_ids": "duplicate_ids"},
}
RENAMED_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "reports/report.json": {
        "evidence": "arm_audits",
        "onion": "next_layer",
        "front": "pareto_front",
        "claims": "paper_claims",
        "asked": "queried",
        "of_control": "control_samples",
        "twin_ids": "duplicate_ids",
        "epsilon": "epsilon_bound",
    },
}
ADDED_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "data/corpus.json": frozenset({"num_unread_files", "unread"}),
    "reports/report.json": frozenset({"schema_version", "unread"}),
}
# How a difference in a sentence begins.
WORDING: Final = "wording of "
# Files that have to differ between two versions, with the reason.
NOT_COMPARED: Final[Mapping[str, str]] = {
    "data/code.json": "digests of the code",
}


@dataclass(frozen=True)
class Comparison:
    """What was found for one file, by its path in the old workspace."""

    path: str
    status: Status
    note: str = ""


def main() -> None:
    """Print what is equal, differs or is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--allow-wording", action="store_true", help="sentences may differ")
    given = parser.parse_args()
    comparisons = compare(given.old, given.new)
    sys.stdout.write(page(comparisons))
    if not is_equal(comparisons, allow_wording=given.allow_wording):
        sys.exit(1)


def is_equal(comparisons: Sequence[Comparison], *, allow_wording: bool) -> bool:
    """Whether there are files, and none of them differs or is missing."""
    bad = BAD if allow_wording else (*BAD, "reworded")
    return bool(comparisons) and not any(found.status in bad for found in comparisons)


def compare(old: Path, new: Path) -> list[Comparison]:
    """Compare every file of either workspace."""
    old_paths, new_paths = set(paths_of(old)), set(paths_of(new))
    found = [compare_file(old, new, path) for path in sorted(old_paths)]
    expected = {counterpart(path, new) for path in old_paths}
    return found + [
        Comparison(path, "missing", "only in NEW") for path in sorted(new_paths - expected)
    ]


def paths_of(workspace: Path) -> Iterator[str]:
    """The files that are compared, relative to the workspace."""
    for folder in ("data", "metrics"):
        for path in (workspace / folder).rglob("*"):
            if path.is_file():
                yield path.relative_to(workspace).as_posix()
    report = "reports/report.json"
    if (workspace / report).is_file():
        yield report


def counterpart(path: str, new: Path) -> str:
    """Path in the new workspace of a file of the old one."""
    renamed = RENAMED_FILES.get(path)
    return renamed if renamed and (new / renamed).is_file() else path


def compare_file(old: Path, new: Path, path: str) -> Comparison:
    """Compare one file of the old workspace with its counterpart."""
    if path in NOT_COMPARED:
        return Comparison(path, "not compared", NOT_COMPARED[path])
    new_path = counterpart(path, new)
    ours, theirs = old / path, new / new_path
    renamed = [] if new_path == path else [f"now {new_path}"]
    if not theirs.is_file():
        return Comparison(path, "missing", f"expected {new_path} in NEW")
    if ours.read_bytes() == theirs.read_bytes():
        return Comparison(path, "equal bytes", "; ".join(renamed))
    if ours.suffix == ".parquet":
        differences = table_differences(pl.read_parquet(ours), pl.read_parquet(theirs), path)
    elif ours.suffix == ".json":
        differences = json_differences(
            json.loads(ours.read_text("utf-8")), json.loads(theirs.read_text("utf-8")), path
        )
    else:
        differences = ["bytes"]
    return Comparison(path, status_of(differences), "; ".join([*renamed, *short(differences)]))


def status_of(differences: Sequence[str]) -> Status:
    """What the differences of two files amount to."""
    if not differences:
        return "equal values"
    return "reworded" if all(name.startswith(WORDING) for name in differences) else "differs"


def table_differences(old: pl.DataFrame, new: pl.DataFrame, path: str) -> list[str]:
    """Names of the columns that differ in presence, position, type or a value."""
    names = names_of(RENAMED_COLUMNS, path)
    old = old.rename({name: names[name] for name in old.columns if names.get(name) in new.columns})
    if old.columns != new.columns:
        missing = [f"column {name} is missing" for name in old.columns if name not in new.columns]
        added = [f"column {name} is new" for name in new.columns if name not in old.columns]
        return [*missing, *added] or ["order of columns"]
    if old.height != new.height:
        return [f"{old.height} and {new.height} rows"]
    return [
        f"column {name}"
        for name in old.columns
        if old[name].dtype != new[name].dtype or not old[name].equals(new[name])
    ]


def json_differences(old: object, new: object, path: str, key: str = "") -> list[str]:
    """Keys under which two JSON values differ, with the old names replaced by the new ones."""
    if isinstance(old, dict) and isinstance(new, dict):
        return object_differences(old, new, path, key)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [
            difference
            for number, (one, other) in pairs
            for difference in json_differences(one, other, path, f"{key}.{number}")
        ]
    # 1 and 1.0 and True are equal to Python.
    if type(old) is type(new) and old == new:
        return []
    is_sentence = isinstance(old, str) and isinstance(new, str) and " " in old and " " in new
    return [f"{WORDING}{key.lstrip('.')}" if is_sentence else f"value of {key.lstrip('.')}"]


def object_differences(
    old: Mapping[str, object], new: Mapping[str, object], path: str, key: str
) -> list[str]:
    """``json_differences`` of two objects; keys that are known to be new may be added."""
    names = names_of(RENAMED_KEYS, path)
    old = {names[name] if names.get(name) in new else name: value for name, value in old.items()}
    added = new.keys() - old.keys() - ADDED_KEYS.get(path, frozenset())
    missing = old.keys() - new.keys()
    differences = [f"key {f'{key}.{name}'.lstrip('.')} is missing" for name in missing]
    differences += [f"key {f'{key}.{name}'.lstrip('.')} is new" for name in added]
    for name in old:
        if name in new:
            differences += json_differences(old[name], new[name], path, f"{key}.{name}")
    return sorted(differences)


def page(comparisons: Sequence[Comparison]) -> str:
    """A table of folders and one of the files that are not equal byte by byte."""
    folders = sorted({folder_of(found.path) for found in comparisons})
    counts = Counter((folder_of(found.path), found.status) for found in comparisons)
    rows = [[folder, *[str(counts[folder, status]) for status in STATUSES]] for folder in folders]
    totals = [str(sum(counts[folder, status] for folder in folders)) for status in STATUSES]
    text = markdown.table(["folder", *STATUSES], [*rows, ["**all**", *totals]])
    others = [
        [found.path, found.status, found.note]
        for found in comparisons
        if found.note or found.status != "equal bytes"
    ]
    return f"{text}\n{markdown.table(['file', 'status', 'note'], others)}" if others else text


def folder_of(path: str) -> str:
    """``data/trace`` for all files of the traces, ``data`` for a file in it."""
    return "/".join(path.split("/")[:-1][:2])


def short(differences: Sequence[str], limit: int = 5) -> list[str]:
    """The first few differences and the number of the others."""
    others = len(differences) - limit
    return [*differences[:limit], *([f"and {others} more"] if others > 0 else [])]


def names_of(renamed: Mapping[str, Mapping[str, str]], path: str) -> dict[str, str]:
    """Old names -> new names of all patterns that the path matches."""
    return {
        old: new
        for pattern, names in renamed.items()
        if fnmatch(path, pattern)
        for old, new in names.items()
    }


if __name__ == "__main__":
    main()
