"""A stage's name -> one run of it by DVC, in this terminal."""

import sys
from typing import Final

from flows.program import as_run
from gdc.errors import STAGE_FAILED, ConfigError
from gdc.workspace import dvc, dvc_files, foreign_files, project
from tasks import guard

_OF_DVC: Final = 255


def run(target: str) -> int:
    """Run one stage, or one item of it such as ``retrain@none-1``, if its inputs changed.

    Returns:
        0, 1 where the stage failed, or that of a signal.

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
    for told in filter(None, (dvc_files.repair(), foreign_files.set_aside())):
        sys.stderr.write(f"{told}\n")
    with as_run():
        try:
            code = guard.run(dvc.command("repro", "--single-item", *targets), dvc.environment())
        finally:
            dvc_files.keep_copy()
    # DVC ends with 255 whatever the stage's exit code was.
    return STAGE_FAILED if code == _OF_DVC else code
