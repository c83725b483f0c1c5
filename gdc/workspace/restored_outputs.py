"""What DVC took from its cache for a target -> files that are not what their hash says.

DVC believes that a file of its cache still is what it was when it was stored.
"""
# DVC takes a second to import, and `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import shutil
from collections.abc import Iterator
from hashlib import file_digest, md5
from pathlib import Path
from typing import Final

from gdc.filesystem.json_values import JsonObject
from gdc.workspace import dvc_files, files

_FOLDER: Final = ".dir"  # ends the hash of a folder, whose object lists the files in it


def remove_damaged(target: str) -> list[Path]:
    """Remove outputs of a target that are not what dvc.lock says, and the objects they came from.

    Running the target again then makes them anew.

    Returns:
        The outputs that were removed.

    Raises:
        TransientError: Another DVC process holds dvc.lock for longer than a write takes.
    """
    lock = files.parse_yaml(dvc_files.read_lock().decode(), dvc_files.LOCK)
    stages = lock.get("stages") or {}
    removed = []
    for out in stages.get(target, {}).get("outs") or ():
        damaged = list(_damaged_hashes(out))
        if damaged:
            path = Path(out["path"])
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for name in {*damaged, out["md5"]}:
                _object(name).unlink(missing_ok=True)
            removed.append(path)
    return removed


def _damaged_hashes(out: JsonObject) -> Iterator[str]:
    """Hashes of the files of an output that have another content, or are missing."""
    path, name = Path(out["path"]), str(out.get("md5", ""))
    if not name.endswith(_FOLDER):
        if name and _hash(path) != name:
            yield name
        return
    listing = _object(name)
    if not listing.exists():
        return  # the workspace may use another cache
    if _hash(listing) != name.removesuffix(_FOLDER):
        yield name
        return
    for entry in json.loads(listing.read_bytes()):
        if _hash(path / entry["relpath"]) != entry["md5"]:
            yield entry["md5"]


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            # DVC's choice; it guards against damage, not against an attacker.
            return file_digest(file, lambda: md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return None


def _object(name: str) -> Path:
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(repo.cache.local.oid_to_path(name))
