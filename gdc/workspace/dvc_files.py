"""Files that DVC writes in place and a kill cuts off -> files that DVC goes on with.

What DVC caches it writes under another name first, and its databases keep themselves whole.
"""
# DVC takes a second to import, and `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gdc.errors import TransientError
from gdc.filesystem.durable import new_file
from gdc.workspace.files import parse_yaml

LOCK: Final = Path("dvc.lock")
COPY: Final = Path("work/dvc.lock.copy")
# A DVC that writes holds its lock for seconds; one that holds it longer is not cut off.
WAIT_SECONDS: Final = 10.0
_CONFLICT: Final = re.compile(rb"(?m)^(<{7}|={7}|>{7})( |\r?$)")


def keep_copy() -> None:
    """Copy dvc.lock beside, for ``mend``; one that is not whole is left out."""
    content = _content(LOCK)
    if content is None or content == _content(COPY) or not _is_whole(content):
        return
    COPY.parent.mkdir(exist_ok=True)
    # Two cells that end at the same time would take each other's temporary file.
    with suppress(Timeout), _held(COPY.with_suffix(".lock")), new_file(COPY) as temporary:
        temporary.write_bytes(content)


def read_lock() -> bytes:
    """The content of dvc.lock, read while no DVC writes it.

    Raises:
        TransientError: A DVC has held its lock for longer than a write takes.
    """
    try:
        with _held(_folder() / "lock"):
            return LOCK.read_bytes()
    except Timeout:
        raise TransientError(
            f"{LOCK}: expected DVC to end its write within {WAIT_SECONDS:g} s, got none. Look for "
            "a DVC that hangs, and run again."
        ) from None


def mend() -> str | None:
    """Put right what was cut off in the middle of a write; what stood in dvc.lock is kept.

    Returns:
        What was done to dvc.lock; None where it is whole.
    """
    _mend_rwlock()
    content = _content(LOCK)
    if content is None or content == _content(COPY) or _is_whole(content):
        return None
    try:
        with _held(_folder() / "lock"):
            content = _content(LOCK)
            # It was being written, and is whole since its writer let go.
            if content is None or _is_whole(content):
                return None
            return _told(content, _put_back())
    except Timeout:
        return None  # DVC waits for it too


def _put_back() -> Path:
    """Put the copy in the place of dvc.lock; returns where that is now."""
    names = (Path(f"{LOCK}.damaged-{number}") for number in count(1))
    aside = next(path for path in names if not path.exists())
    shutil.copyfile(LOCK, aside)
    if (copy := _content(COPY)) is not None and _is_whole(copy):
        with new_file(LOCK) as temporary:
            temporary.write_bytes(copy)
    else:
        LOCK.unlink()
    return aside


def _told(content: bytes, aside: Path) -> str:
    is_conflict = _CONFLICT.search(content) is not None
    got = (
        "the conflict marks of a git merge"
        if is_conflict
        else "a file that it cannot read, as a kill in the middle of a write leaves it"
    )
    done = "The last whole copy is back in its place" if LOCK.exists() else "There is no whole copy"
    end = " Then end the merge: git add dvc.lock." if is_conflict else ""
    return (
        f"{LOCK}: expected DVC's record of the stages, got {got}. {done}; what was there is now "
        f"{aside}. What the record lacks is taken from DVC's cache, or run again.{end}"
    )


def _mend_rwlock() -> None:
    """Remove DVC's list of who reads and writes which path, unless a running DVC stands in it.

    DVC refuses a list that was cut off, and believes a claim whose process number is in use, though
    another program may have it by now, as in a container that was started again.
    """
    path = _folder() / "rwlock"
    with suppress(Timeout, FileNotFoundError), _held(path.with_name("rwlock.lock")):
        if not any(_is_dvc(number) for number in _claimants(path.read_bytes())):
            path.unlink()


def _claimants(content: bytes) -> set[int]:
    """Numbers of the processes in DVC's list; none where it was cut off."""
    try:
        claims = json.loads(content)
        readers = [info for infos in claims.get("read", {}).values() for info in infos]
        return {int(info["pid"]) for info in [*readers, *claims.get("write", {}).values()]}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def _is_dvc(number: int) -> bool:
    import psutil

    try:
        return "dvc" in {Path(word).name for word in psutil.Process(number).cmdline()}
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_whole(content: bytes) -> bool:
    """Whether DVC takes this for its record of the stages."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), LOCK))
    except (ValueError, RecursionError, Invalid):
        return False
    return True


def _folder() -> Path:
    """DVC's folder for its own short-lived files; the nearest above, as DVC looks for it."""
    here = Path.cwd()
    roots = (folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir())
    return next(roots, here) / ".dvc" / "tmp"


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock file; DVC's own are of the same kind."""
    if not path.parent.is_dir():
        # Where there is no DVC, nobody writes.
        yield
        return
    with FileLock(path, timeout=WAIT_SECONDS):
        yield


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
