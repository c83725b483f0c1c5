"""A stage's name -> one run of it by DVC, in this terminal."""

import os
from pathlib import Path
from typing import Final

from flows.program import as_run, put_right
from gdc.environment import EXIT_CODE_VARIABLE
from gdc.errors import STAGE_FAILED, ConfigError
from gdc.workspace import dvc, dvc_files, project
from tasks import guard

_OF_DVC: Final = 255


def run(target: str) -> int:
    """Run one stage, or one item of it such as ``retrain@none-1``, if its inputs changed.

    Returns:
        0, the stage's own where it said why it failed, 1 where it did not, or that of a signal.

    Raises:
        ConfigError: dvc.yaml has no such stage.
    """
    names = list(project.read_yaml(project.GRAPH)["stages"])
    stage = target.partition("@")[0]
    if stage not in names:
        raise ConfigError(f"stage: expected one of {', '.join(names)}, got {target!r}.")
    targets = [target]
    if stage in project.edited_stages():
        # It brings the digests of the code up to date.
        targets.insert(0, "manifest")
    put_right()
    file = Path(f"work/exit-code-{os.getpid()}").absolute()
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    environment = dvc.environment() | {EXIT_CODE_VARIABLE: str(file)}
    with as_run():
        try:
            code = guard.run(dvc.command("repro", "--single-item", *targets), environment)
        finally:
            dvc_files.keep_copy()
    # DVC ends with 255 whatever the stage's exit code was.
    return _told_code(file) if code == _OF_DVC else code


def _told_code(file: Path) -> int:
    try:
        return int(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return STAGE_FAILED
    finally:
        file.unlink(missing_ok=True)
