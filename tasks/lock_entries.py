"""DVC's record of a stage -> dvc.lock: its entry is put in its place, all others stay as they are.

DVC reads and writes the entries of all stages whenever one has ended: half a second of processor
time where there are forty, and over a run it grows with the square of their number.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dvc.dvcfile import Lockfile
    from dvc.stage import PipelineStage

_HEAD: Final = "schema: '2.0'\nstages:\n"
# As DVC writes it: after the head nothing but the entries, which are indented.
_ONLY_ENTRIES: Final = re.compile(rf"{re.escape(_HEAD)}(  .*\n)+")
_ENTRY_START: Final = re.compile(r"(?m)^(?=  \S)")
# Written where params.yaml has an alias; each is there once in a file.
_ANCHOR: Final = re.compile(r"[&*]id\d")


def install() -> None:
    """Have the DVC of this process write dvc.lock so."""
    from dvc.dvcfile import Lockfile  # noqa: PLC0415 - half a second of who only imports us

    dump_all = Lockfile.dump_stages

    def dump_stages(lock: "Lockfile", stages: "Sequence[PipelineStage]", **options: Any) -> None:  # noqa: ANN401 - DVC's own
        path = Path(lock.path)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        entries = [_entry(stage, **options) for stage in stages]
        if not _ONLY_ENTRIES.fullmatch(text) or _ANCHOR.search("".join([text, *entries])):
            dump_all(lock, stages, **options)
        elif (changed := _with_entries(text, entries)) != text:
            _tell(lock)
            path.write_text(changed, encoding="utf-8")
            lock.repo.scm_context.track_file(lock.relpath)

    Lockfile.dump_stages = dump_stages


def _entry(stage: "PipelineStage", **options: Any) -> str:  # noqa: ANN401 - DVC's own
    from dvc.stage.serialize import to_lockfile  # noqa: PLC0415
    from dvc.utils.serialize import dumps_yaml  # noqa: PLC0415

    text: str = dumps_yaml({"stages": to_lockfile(stage, **options)})
    return text.removeprefix("stages:\n")


def _with_entries(text: str, entries: Sequence[str]) -> str:
    """The text of dvc.lock with these entries in the place of those of the same stages."""
    known = [*filter(None, _ENTRY_START.split(text.removeprefix(_HEAD)))]
    by_name = {entry.partition("\n")[0]: entry for entry in [*known, *entries]}
    return _HEAD + "".join(by_name.values())


def _tell(lock: "Lockfile") -> None:
    from dvc.dvcfile import logger  # noqa: PLC0415

    logger.info("Updating lock file '%s'", lock.relpath)
