"""Files of the user's inside folders that the pipeline wrote -> a place where no run deletes them.

DVC deletes a whole folder before the stage that writes it runs again.
"""

import configparser
import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from gdc.filesystem.durable import make_folder
from gdc.filesystem.json_values import JsonObject
from gdc.workspace import dvc_files, files
from gdc.workspace.outputs import LOCK

ASIDE: Final = Path("work/set-aside")
_SHOWN: Final = 3
_FOLDER: Final = ".dir"


def set_aside() -> str | None:
    """Move what dvc.lock does not list out of the folders that it does list, hidden files apart.

    A folder that lacks a file of the list is one that a stage was stopped in; DVC had emptied it
    before, and what is there now is of that stage.

    Returns:
        A sentence about it; None: nothing was moved, as where a stage is writing now.
    """
    if dvc_files.is_stage_running():
        return None
    moved = [(path, _move(path)) for path in _foreign_files()]
    if not moved:
        return None
    shown = ", ".join(f"{path} (now {place})" for path, place in moved[:_SHOWN])
    more = f" and {len(moved) - _SHOWN:,} more" if len(moved) > _SHOWN else ""
    return (
        f"{shown}{more}: expected no more in a folder that the pipeline writes than {LOCK} lists "
        "there, as a run deletes it. Keep files of yours elsewhere."
    )


def _foreign_files() -> list[Path]:
    cache = _cache()
    found = []
    for folder, digest in _locked_folders():
        listing = cache / "files" / "md5" / digest[:2] / digest[2:]
        # Of a folder whose list is on another machine nothing is known.
        if folder.is_dir() and listing.exists():
            known = {entry["relpath"] for entry in json.loads(listing.read_bytes())}
            there = {path.relative_to(folder).as_posix(): path for path in _visible(folder)}
            if known <= there.keys():
                found += [there[name] for name in there.keys() - known]
    return sorted(found)


def _locked_folders() -> Iterator[tuple[Path, str]]:
    """The folders that stages have written, with the hash of the list of their files."""
    lock: JsonObject = files.parse_yaml(files.read_text(LOCK), LOCK) if LOCK.exists() else {}
    for stage in (lock.get("stages") or {}).values():
        for out in stage.get("outs") or ():
            if (digest := out.get("md5") or "").endswith(_FOLDER):
                yield Path(out["path"]), digest


def _visible(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _cache() -> Path:
    """DVC's cache of this workspace."""
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    return Path(".dvc", config.get("cache", "dir", fallback="cache"))


def _move(path: Path) -> Path:
    names = (ASIDE / path.with_name(f"{path.name}{end}") for end in _endings())
    place = next(name for name in names if not os.path.lexists(name))
    make_folder(place.parent)
    path.rename(place)
    return place


def _endings() -> Iterator[str]:
    yield ""
    yield from (f".{number}" for number in count(1))
