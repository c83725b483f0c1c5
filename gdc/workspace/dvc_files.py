"""Repairs the files of DVC that a kill can leave half written.

These are dvc.lock and DVC's list of path locks, which DVC writes in place. It writes its cache
under temporary names, and its databases recover by themselves.
"""
# DVC takes a second to import, and `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gdc.errors import TransientError
from gdc.filesystem.durable import new_file
from gdc.workspace.files import parse_yaml

LOCK: Final = Path("dvc.lock")
COPY: Final = Path("work/dvc.lock.copy")
# DVC holds its lock for seconds while it writes. Held longer, it is still running, not killed.
WAIT_SECONDS: Final = 10.0
_CONFLICT: Final = re.compile(rb"(?m)^(<{7}|={7}|>{7})( |\r?$)")


def keep_copy() -> None:
    """Keep a copy of dvc.lock for ``repair``, unless it is damaged."""
    content = _content(LOCK)
    if content is None or content == _content(COPY) or not _is_whole(content):
        return
    COPY.parent.mkdir(exist_ok=True)
    # Cells that end at the same time would use the same temporary file.
    with suppress(Timeout), _locked(COPY.with_suffix(".lock")), new_file(COPY) as temporary:
        temporary.write_bytes(content)


def read_lock() -> bytes:
    """Read dvc.lock while no DVC process writes it.

    Raises:
        TransientError: Another DVC process holds its lock for longer than a write takes.
    """
    try:
        with _locked(_folder() / "lock"):
            return LOCK.read_bytes()
    except Timeout:
        raise TransientError(
            f"{LOCK}: expected DVC to end its write within {WAIT_SECONDS:g} s, got none. Look for "
            "a DVC that hangs, and run again."
        ) from None


def repair() -> str | None:
    """Repair DVC's files that were cut off in the middle of a write.

    A damaged dvc.lock is kept under another name.

    Returns:
        A sentence about the repair of dvc.lock; None: it was not damaged.
    """
    _repair_path_locks()
    if _damaged() is None:
        return None
    try:
        with _locked(_folder() / "lock"):
            # It may have been being written when we looked.
            if (content := _damaged()) is None:
                return None
            aside = _restore_copy()
    except Timeout:
        return None  # DVC itself waits for this lock, and reports it
    done = "The last whole copy is back in its place" if LOCK.exists() else "There is no whole copy"
    return _describe(content, f"{done}; what was there is now {aside}")


def damage() -> str | None:
    """What ``repair`` would mend of dvc.lock, in its words; None: nothing. All stays as it is."""
    if _damaged() is None:
        return None
    with suppress(Timeout), _locked(_folder() / "lock"):
        if (content := _damaged()) is not None:
            does = "puts the last whole copy back in its place" if _whole_copy() else "has no copy"
            return _describe(content, f"`gdc run` {does}, and keeps what is there now")
    return None


def _damaged() -> bytes | None:
    """The content of dvc.lock where DVC cannot read it."""
    content = _content(LOCK)
    if content is None or content == _content(COPY) or _is_whole(content):
        return None
    return content


@contextmanager
def between_stages() -> Iterator[bool]:
    """Keep DVC from starting or recording a stage meanwhile; False: one runs, and goes on."""
    with ExitStack() as held:
        try:
            held.enter_context(_locked(_folder() / "lock"))
        except Timeout:
            yield False
        else:
            yield not _is_stage_running()


def own_folder() -> Path:
    """DVC's folder, in the nearest folder above that has one."""
    here = Path.cwd()
    roots = (folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir())
    return next(roots, here) / ".dvc"


def _restore_copy() -> Path:
    """Replace dvc.lock by its copy; return the new path of the damaged file."""
    names = (Path(f"{LOCK}.damaged-{number}") for number in count(1))
    aside = next(path for path in names if not path.exists())
    shutil.copyfile(LOCK, aside)
    if (copy := _whole_copy()) is not None:
        with new_file(LOCK) as temporary:
            temporary.write_bytes(copy)
    else:
        LOCK.unlink()
    return aside


def _whole_copy() -> bytes | None:
    copy = _content(COPY)
    return None if copy is None or not _is_whole(copy) else copy


def _describe(content: bytes, done: str) -> str:
    is_conflict = _CONFLICT.search(content) is not None
    got = (
        "the conflict marks of a git merge"
        if is_conflict
        else "a file that it cannot read, as a kill in the middle of a write leaves it"
    )
    end = " Then end the merge: git add dvc.lock." if is_conflict else ""
    return (
        f"{LOCK}: expected DVC's record of the stages, got {got}. {done}. What the record "
        f"lacks is taken from DVC's cache, or run again.{end}"
    )


def _repair_path_locks() -> None:
    """Remove DVC's list of path locks, unless a running DVC process holds one of them.

    DVC cannot read a list that was cut off. It also honours the locks of a dead process whose
    number another program has now, as happens after a restart of a container.
    """
    path = _folder() / "rwlock"
    with suppress(Timeout, FileNotFoundError), _locked(path.with_name("rwlock.lock")):
        if not _is_stage_running():
            path.unlink()


def _claimants(content: bytes) -> set[int]:
    """Return the process numbers in DVC's list; none if the list was cut off."""
    try:
        claims = json.loads(content)
        readers = [info for infos in claims.get("read", {}).values() for info in infos]
        return {int(info["pid"]) for info in [*readers, *claims.get("write", {}).values()]}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def _is_dvc(number: int) -> bool:
    import psutil

    try:
        process = psutil.Process(number)
        # One that a fork server started has only its name.
        words = [process.name(), *process.cmdline()]
        return "dvc" in {Path(word).name for word in words}
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_whole(content: bytes) -> bool:
    """Whether DVC can read this content as a dvc.lock."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(content.decode(), LOCK))
    except (ValueError, RecursionError, Invalid):
        return False
    return True


def _is_stage_running() -> bool:
    """Whether a DVC process, whoever started it, runs a stage here."""
    content = _content(_folder() / "rwlock")
    return content is not None and any(_is_dvc(number) for number in _claimants(content))


def _folder() -> Path:
    """Return DVC's folder for temporary files."""
    return own_folder() / "tmp"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, of the kind that DVC uses."""
    if not path.parent.is_dir():
        # Without a .dvc folder no DVC process can write.
        yield
        return
    with FileLock(path, timeout=WAIT_SECONDS):
        yield


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
