"""`gdc run` -> the flow, or where nothing has changed no flow: it would take seconds to start."""

import sys
from pathlib import Path
from typing import Final

from flows.program import as_run, only_run_here
from gdc.errors import GdcError
from gdc.stages import manifest
from gdc.workspace import code_digests, dvc_files, paths
from gdc.workspace.mlflow_store import require_answer
from tasks import guard
from tasks.graph import changed_targets
from tasks.stages import StageFailedError, is_for_people, reproduce

# Only after it is it known whether the source or the code changed.
FIRST: Final = "manifest"


def run(max_workers: int | None = None, *, publish: bool = False, ray: str | None = None) -> None:
    """Run the flow in this folder, if anything has changed; see ``flows.curate.run``."""
    with as_run():
        require_answer()
        has_manifest = dvc_files.LOCK.exists() and (first_is_current() or run_first())
        changed = changed_targets() if has_manifest else frozenset({FIRST})
        if not changed and not publish and not paths.UNRECORDED.exists():
            sys.stderr.write("Nothing changed since the last run: no stage to run but manifest.\n")
            return
        from flows import curate  # noqa: PLC0415 - only here is Prefect needed

        known = None if FIRST in changed else sorted(changed)
        curate.run(max_workers, publish=publish, ray=ray, changed=known)


def first_is_current() -> bool:
    """Whether ``manifest`` would write what is there: then DVC need not be started for it.

    Where it fails, it fails again in the flow, which records it.
    """
    # A package that lies in the workspace takes the place of ours in stages.
    if Path("gdc").is_dir() and Path("gdc").resolve() != code_digests.PACKAGE:
        return False
    with only_run_here():
        try:
            return manifest.is_current()
        except (GdcError, OSError):
            return False


def run_first(start: guard.Start = guard.start) -> bool:
    """Run ``manifest``, which needs no flow; returns whether it ended well.

    Where it did not, the flow runs it again, and records its failure.
    """
    with only_run_here():
        try:
            reproduce(FIRST, None, show_line, start=start)
        except StageFailedError:
            return False
    return True


def show_line(line: str) -> None:
    """Show what the stage tells people."""
    if is_for_people(line):
        sys.stderr.write(f"{FIRST}: {line}\n")
