"""The running Python's own documentation -> rows: help topics, comments and docstrings."""

import ast
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import Final

from gdc.corpus.sources.files import SourceFile, hash_files, opened
from gdc.corpus.sources.rows import Row
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject

_SKIPPED_FOLDERS: Final = frozenset(
    {
        "__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests",
        "turtledemo",
    }
)  # fmt: skip
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def content() -> JsonObject:
    """The Python version and one hash over the files that the texts come from."""
    hashes = hash_files(_library_files())
    listing = "".join(f"{name} {digest}\n" for name, digest in hashes.items())
    return {
        "python": platform.python_version(),
        "library": blake2b(listing.encode(), digest_size=16).hexdigest(),
    }


def read_rows() -> Iterator[Row]:
    """Paragraphs of the help topics, then docstrings of the standard library.

    Raises:
        DataError: This Python comes without one of them.
    """
    yield from _topics()
    for file in _library_files():
        yield from _docstrings(file)


def read_paragraphs() -> Iterator[Row]:
    """Paragraphs of the help topics, of the comments that modules begin with, and of docstrings.

    Raises:
        DataError: This Python comes without topics or without the library's source.
    """
    yield from _topics()
    for file in _library_files():
        yield from _head_comments(file)
        for row in _docstrings(file):
            yield from [row] if row.reason else _paragraphs(row.source, str(row.text))


def _topics() -> Iterator[Row]:
    try:
        from pydoc_data.topics import topics  # noqa: PLC0415 - some Pythons come without it
    except ImportError:
        raise DataError(
            "ingest.source: expected pydoc_data.topics in this Python, got none. Use a complete "
            "Python, or another ingest.source.kind."
        ) from None
    for key in sorted(topics):
        yield from _paragraphs(f"topics:{key}", topics[key])


def _paragraphs(source: str, text: str) -> Iterator[Row]:
    paragraphs = filter(None, map(str.strip, _BLANK_LINES.split(text)))
    for number, paragraph in enumerate(paragraphs, start=1):
        yield Row(f"{source}:{number}", paragraph)


def _library_files() -> list[SourceFile]:
    root = Path(sysconfig.get_path("stdlib"))
    files: list[SourceFile] = []
    for folder, subfolders, names in os.walk(root):
        # In place: os.walk then does not enter them.
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
        paths = [Path(folder, name) for name in names if name.endswith(".py")]
        files += [SourceFile(path.relative_to(root).as_posix(), path) for path in paths]
    if not files:
        raise DataError(
            f"ingest.source: expected the standard library's source in {root}, got no *.py. Use a "
            "complete Python, or another ingest.source.kind."
        )
    return sorted(files)


def _head_comments(file: SourceFile) -> Iterator[Row]:
    """Licences, authors and the like: the comments before a module's first statement."""
    with opened(file.path) as opened_file:
        # What is no UTF-8 is no valid Python, of which the docstrings tell.
        lines = opened_file.read().decode("utf-8", errors="replace").splitlines()
    is_comment = (line.startswith("#") or not line.strip() for line in lines)
    comments = [line.lstrip("#").strip() for line in lines[: _num_leading(is_comment)]]
    yield from _paragraphs(f"{file.name}:comment", "\n".join(comments))


def _num_leading(values: Iterable[bool]) -> int:
    return sum(1 for _ in takewhile(bool, values))


def _docstrings(file: SourceFile) -> Iterator[Row]:
    try:
        with opened(file.path) as opened_file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own code
            module = ast.parse(opened_file.read())
    except (SyntaxError, ValueError) as error:
        yield Row(file.name, reason=f"not valid Python: {type(error).__name__}")
        return
    for name, node in _documented(module, ""):
        docstring = ast.get_docstring(node)
        if docstring and docstring.strip():
            yield Row(f"{file.name}:{name or 'module'}", docstring)


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, _Documented]]:
    if isinstance(node, _Documented):
        yield name, node
    statements = (child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
    for child in statements:
        own_name = getattr(child, "name", None) if isinstance(child, _Documented) else None
        yield from _documented(child, ".".join(filter(None, (name, own_name))))
