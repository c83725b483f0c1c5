"""Stage -> one digest of all gdc modules that it reaches, so that DVC notices a change of code.

A module counts by what it does: an edit of a comment, a docstring or the layout runs no stage.
"""

import ast
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from gdc.errors import ConfigError
from gdc.statistics.syntax_hash import syntax_hash

PACKAGE: Final = Path(__file__).resolve().parent.parent
# Of the modules in ``stages/`` those that are no stage, or one that DVC never skips.
_NEVER_SKIPPED: Final = {"fitting", "ground_truth", "manifest", "runner"}
# The folder of files that a module reads, and does not import.
_READER: Final = "report/page.py"
_READ: Final = "report/templates"
# What decides on the content of the cache.
_RULES: Final = (Path(__file__), PACKAGE / "statistics/syntax_hash.py")
# So coarse are the clocks of some file systems: a file may change again and keep its time.
_CLOCK_SECONDS: Final = 2
# Of a file: its stamp, its digest, and the dotted names that it imports.
_Known = tuple[list[int], str, list[str]]


def code_digests(package: Path = PACKAGE, cache_file: Path | None = None) -> dict[str, str]:
    """For every stage that DVC may skip, by its name, a digest of the files it reaches.

    Args:
        package: Folder of the package, called as the package is.
        cache_file: What keeps what is known of the modules; None: all are parsed. Where it is
            damaged, or of other modules than these, it is made anew.

    Raises:
        ConfigError: A module is not Python.
    """
    files_in = sorted((package / "stages").glob("[!_]*.py"))
    modules = _Modules(package, cache_file)
    skipped = [stage for stage in files_in if stage.stem not in _NEVER_SKIPPED]
    digests = {stage.stem: modules.reached_digest(stage) for stage in skipped}
    modules.save()
    return digests


def code_digest(stage: str, package: Path = PACKAGE, cache_file: Path | None = None) -> str:
    """The same digest of one module of ``stages/``, whether DVC may skip it or not."""
    modules = _Modules(package, cache_file)
    digest = modules.reached_digest(package / "stages" / f"{stage}.py")
    modules.save()
    return digest


def reached(modules: Iterable[Path], package: Path = PACKAGE) -> list[set[Path]]:
    """For every module its file and those of the package that it imports or reads.

    At the top of a file or inside a function, directly or through others; not the packages that a
    dotted name only passes through.
    """
    known = _Modules(package, None)
    return [known.reached(module) for module in modules]


class _Modules:
    """The files of a package; each is read once, or never where a cache knows it."""

    def __init__(self, package: Path, cache_file: Path | None) -> None:
        self._package, self._cache = package, cache_file
        self._stats = {
            Path(entry.path): entry.stat()
            for folder, _, _ in os.walk(package)
            for entry in os.scandir(folder)
            if entry.is_file() and not entry.name.endswith(".pyc")
        }
        self._modules = {_dotted(package, path): path for path in self._stats}
        self._known = self._load()
        self._is_new = False
        self._needs = cache(lambda file: list(self._needed(file)))

    def reached(self, module: Path) -> set[Path]:
        todo, found = [module], set[Path]()
        while todo:
            file = todo.pop()
            if file not in found:
                found.add(file)
                todo += self._needs(file)
        return found

    def reached_digest(self, module: Path) -> str:
        digest = blake2b(digest_size=8)
        for file in sorted(self.reached(module)):
            name = file.relative_to(self._package).as_posix()
            digest.update(f"{name} {self._read(file)[1]}\n".encode())
        return digest.hexdigest()

    def save(self) -> None:
        """Keep what is known of files that a change would give another stamp."""
        if self._cache is None or not self._is_new:
            return
        settled = (time.time() - _CLOCK_SECONDS) * 1e9
        kept = {name: known for name, known in self._known.items() if max(known[0][1:3]) < settled}
        body = json.dumps(kept).encode()
        # Only a convenience: a folder that cannot be written costs a second.
        with suppress(OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            # Under a name of its own, as stages that run side by side may write it.
            name = f".{self._cache.name}."
            with tempfile.NamedTemporaryFile(
                dir=self._cache.parent, prefix=name, suffix=".tmp", delete=False
            ) as file:
                file.write(self._seal(body) + b"\n" + body)
            Path(file.name).replace(self._cache)

    def _load(self) -> dict[str, _Known]:
        if self._cache is None:
            return {}
        with suppress(OSError):
            seal, _, body = self._cache.read_bytes().partition(b"\n")
            if seal == self._seal(body):
                known: dict[str, _Known] = json.loads(body)
                return known
        return {}

    def _seal(self, body: bytes) -> bytes:
        """What a cache begins with that is whole, and of this package and these rules."""
        digest = blake2b(body + str(self._package.absolute()).encode(), digest_size=16)
        for path in _RULES:
            digest.update(path.read_bytes())
        return digest.hexdigest().encode()

    def _read(self, file: Path) -> _Known:
        name, stat = file.relative_to(self._package).as_posix(), self._stats[file]
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = (stamp, *_parse(file))
            self._known[name], self._is_new = known, True
        return known

    def _needed(self, file: Path) -> Iterator[Path]:
        """Files of the package that a file of it imports or reads."""
        for name in self._read(file)[2]:
            if name in self._modules:
                yield self._modules[name]
        if file == self._package / _READER:
            read = self._package / _READ
            yield from (path for path in self._stats if read in path.parents)


def _dotted(package: Path, file: Path) -> str:
    """The name under which a module is imported; of the package itself and other files none is."""
    path = file.relative_to(package.parent)
    if path.suffix != ".py" or (file.parent == package and file.stem == "__init__"):
        return ""
    return ".".join((path.parent if file.stem == "__init__" else path.with_suffix("")).parts)


def _parse(file: Path) -> tuple[str, list[str]]:
    """The digest of a file and what it may import; of a file that is no module its bytes count."""
    content = file.read_bytes()
    if file.suffix != ".py":
        return blake2b(content, digest_size=16).hexdigest(), []
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ConfigError(
            f"{file}:{line}: expected Python, got {error.args[0]}. Correct the module."
        ) from None
    return syntax_hash(tree).hex(), sorted(set(_imported(tree)))


def _imported(tree: ast.Module) -> Iterator[str]:
    """The dotted names of modules, and of what may be one, that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
