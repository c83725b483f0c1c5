"""Stage -> one digest of all gdc modules that it reaches, so that DVC notices a change of code."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent.parent
# A pattern, as parsing all files would take most of a second of a run with nothing to do.
_IMPORT: Final = re.compile(
    r"^[ \t]*(?:import (?P<module>[\w.]+)|from (?P<source>[\w.]+) import (?P<names>\([^)]*\)|.*))",
    re.MULTILINE,
)
# Of the modules in ``stages/`` those that are no stage, or one that DVC never skips.
_NEVER_SKIPPED: Final = {"fitting", "ground_truth", "manifest", "runner"}
# The folder of files that a module reads, and does not import.
_READER: Final = "report/build.py"
_READ: Final = "report/templates"


def code_digests(package: Path = _PACKAGE) -> dict[str, str]:
    """For every stage that DVC may skip, by its name, a digest of the files it reaches.

    Args:
        package: Folder of the package, called as the package is.
    """
    files_in = sorted((package / "stages").glob("[!_]*.py"))
    stages = [file for file in files_in if file.stem not in _NEVER_SKIPPED]
    digest_of = cache(lambda file: blake2b(file.read_bytes(), digest_size=16).digest())
    digests = {}
    for stage, files in zip(stages, reached(stages, package), strict=True):
        digest = blake2b(digest_size=8)
        for file in sorted(files):
            digest.update(file.relative_to(package).as_posix().encode() + digest_of(file))
        digests[stage.stem] = digest.hexdigest()
    return digests


def reached(modules: Iterable[Path], package: Path = _PACKAGE) -> list[set[Path]]:
    """For every module its file and those of the package that it imports or reads.

    At the top of a file or inside a function, directly or through others; not the packages that a
    dotted name only passes through.
    """
    needs = cache(lambda file: frozenset(_needed(package, file)))
    found = []
    for module in modules:
        todo, files = [module], set[Path]()
        while todo:
            file = todo.pop()
            if file not in files:
                files.add(file)
                todo += needs(file)
        found.append(files)
    return found


def _needed(package: Path, file: Path) -> Iterator[Path]:
    """Files of the package that a file of it imports or reads."""
    if file.suffix != ".py":
        return
    for found in _IMPORT.finditer(file.read_text(encoding="utf-8")):
        source = found["module"] or found["source"]
        names = re.findall(r"\w+", found["names"] or "")
        for name in (source, *(f"{source}.{name}" for name in names)):
            yield from _files_of(package, name)
    if file == package / _READER:
        yield from (path for path in (package / _READ).rglob("*") if path.is_file())


def _files_of(package: Path, name: str) -> Iterator[Path]:
    """The file of a module, by its dotted name; none for what is no module of the package."""
    first, *rest = name.split(".")
    if first == package.name and rest:
        path = package.joinpath(*rest)
        candidates = (path.with_suffix(".py"), path / "__init__.py")
        yield from (file for file in candidates if file.exists())
