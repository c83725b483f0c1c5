"""Files of the user's inside folders that the pipeline wrote -> a place where no run deletes them.

DVC deletes a whole folder before the stage that writes it runs again.
"""
# DVC takes a moment to import, and `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import os
import shutil
from collections.abc import Iterator
from hashlib import md5
from itertools import count
from pathlib import Path
from typing import Final

from gdc.filesystem.durable import make_folder
from gdc.workspace import dvc_files
from gdc.workspace.outputs import LOCK, locked_outs

ASIDE: Final = Path("work/set-aside")
_SHOWN: Final = 3
_FOLDER: Final = ".dir"


def set_aside() -> str | None:
    """Move what dvc.lock does not list out of the folders that it does list, hidden files apart.

    A folder that lacks a file of the list is one that a stage was stopped in; DVC had emptied it
    before, and what is there now is of that stage.

    Returns:
        A sentence about it; None: nothing was moved, as where a stage is writing now.

    Raises:
        DataError: There is no place to move a file to.
    """
    with dvc_files.between_stages() as no_stage_runs:
        found = _foreign_files() if no_stage_runs else []
        moved = _move(found) if found else []
    if not moved:
        return None
    shown = ", ".join(f"{path} (now {place})" for path, place in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN:,} more" if len(moved) > _SHOWN else ""
    return (
        f"{shown}{more}: expected no more in a folder that the pipeline writes than {LOCK} lists "
        "there, as a run deletes it. Keep files of yours elsewhere."
    )


def _foreign_files() -> list[Path]:
    folders = [*_locked_folders()]
    cache = _cache() if folders else None
    if cache is None:
        return []
    lists = [(folder, _listed(cache, digest)) for folder, digest in folders]
    # Of a stage that was renamed dvc.lock keeps what it wrote under its former name.
    known = {folder / name for folder, names in lists for name in names or ()}
    unknown = {folder for folder, names in lists if names is None}
    found = set[Path]()
    for folder, names in lists:
        there = {*_visible(folder)}
        if folder not in unknown and there.issuperset(folder / name for name in names or ()):
            found |= there - known
    return sorted(found)


def _locked_folders() -> Iterator[tuple[Path, str]]:
    """The folders here that stages have written, with the hash of the list of their files."""
    for out in locked_outs():
        folder, digest = Path(out["path"]), out.get("md5") or ""
        is_here = not folder.is_absolute() and ".." not in folder.parts
        # Of a link to a folder DVC deletes the link alone.
        if digest.endswith(_FOLDER) and is_here and folder.is_dir() and not folder.is_symlink():
            yield folder, digest


def _listed(cache: Path, digest: str) -> list[str] | None:
    """The files of a folder; None: the list is on another machine, or damaged."""
    listing = cache / "files" / "md5" / digest[:2] / digest[2:]
    content = listing.read_bytes() if listing.exists() else b""
    # DVC's choice; it guards against damage, not against an attacker.
    if md5(content, usedforsecurity=False).hexdigest() != digest.removesuffix(_FOLDER):
        return None
    return [entry["relpath"] for entry in json.loads(content)]


def _visible(folder: Path) -> Iterator[Path]:
    """Files and links, in all folders below."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in [*names, *links] if not name.startswith("."))


def _cache() -> Path | None:
    """DVC's cache of this workspace; None: DVC's settings do not say, and DVC says so itself."""
    from dvc.config import Config
    from dvc.exceptions import DvcException

    own = dvc_files.own_folder()
    try:
        return Path(Config(str(own))["cache"].get("dir") or own / "cache")
    except DvcException:
        return None


def _move(found: list[Path]) -> list[tuple[Path, Path]]:
    """Move files into a new folder, in which nothing is in the way of their paths."""
    folders = (ASIDE / str(number) for number in count(1))
    folder = next(path for path in folders if not os.path.lexists(path))
    moved = [(path, folder / path) for path in found]
    for path, place in moved:
        make_folder(place.parent)
        # It may lie on another disk.
        shutil.move(path, place)
    return moved
