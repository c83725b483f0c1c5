"""What DVC took from its cache for a target -> outputs whose objects are not what their hash says.

DVC believes that a file of its cache still is what it was when it was stored.
"""
# DVC takes a second to import, and `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import file_digest, md5
from pathlib import Path
from typing import Final

from gdc.workspace import dvc_files, files

_FOLDER: Final = ".dir"  # ends the hash of a folder, whose object lists the files in it


def remove_damaged(target: str) -> list[Path]:
    """Remove outputs of a target that came from damaged objects of the cache, and these objects.

    Running the target again then makes them anew.

    Returns:
        The outputs that were removed.

    Raises:
        TransientError: Another DVC process holds dvc.lock for longer than a write takes.
    """
    lock = files.parse_yaml(dvc_files.read_lock().decode(), dvc_files.LOCK)
    stages = lock.get("stages") or {}
    removed, object_of = [], _place_of_objects()
    for out in stages.get(target, {}).get("outs") or ():
        damaged = list(_damaged_objects(str(out.get("md5", "")), object_of))
        if damaged:
            path = Path(out["path"])
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for name in damaged:
                object_of(name).unlink()
            removed.append(path)
    return removed


def _damaged_objects(name: str, object_of: Callable[[str], Path]) -> Iterator[str]:
    """The hashes, of an output and of the files in it, whose objects have another content."""
    if not name or not object_of(name).exists():
        return  # not in the cache, or the workspace uses another one
    if _hash(object_of(name)) != name.removesuffix(_FOLDER):
        yield name
    elif name.endswith(_FOLDER):
        for entry in json.loads(object_of(name).read_bytes()):
            yield from _damaged_objects(entry["md5"], object_of)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        # DVC's choice; it guards against damage, not against an attacker.
        return file_digest(file, lambda: md5(usedforsecurity=False)).hexdigest()


def _place_of_objects() -> Callable[[str], Path]:
    """Where the cache of this workspace holds, or would hold, the object of a hash."""
    from dvc.repo import Repo

    with Repo() as repo:
        cache = repo.cache.local
    return lambda name: Path(cache.oid_to_path(name))
