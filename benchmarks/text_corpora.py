"""Corpora of real text, each the texts of something that this machine has."""

import gzip
import json
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from gdc.corpus.sources import python_docs

NUM_TEXTS, MIN_CHARS, MAX_CHARS = 800, 80, 200
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_REQUEST: Final = re.compile(r"^[.'].*$", re.MULTILINE)
_FONT: Final = re.compile(r"\\f(?:\[.*?\]|\(..|.)|\\&|\\s[-+]?\d")


def docs(_novels: Path | None) -> Iterator[str]:
    """CPython's documentation: help topics and docstrings."""
    return (str(row.text) for row in python_docs.read_rows())


def code(_novels: Path | None) -> Iterator[str]:
    """Source code of CPython's library."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8")


def man(_novels: Path | None) -> Iterator[str]:
    """English manual pages of this machine, without the requests of their markup."""
    for path in sorted(Path("/usr/share/man/man1").glob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            text = _FONT.sub("", _REQUEST.sub("", file.read()))
        yield text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\e", "\\")


def prose(novels: Path | None) -> Iterator[str]:
    """Paragraphs of novels, from the file that ``--novels`` names."""
    if novels is None:
        sys.exit("prose: expected --novels FILE, got none. Give JSON lines with a field text.")
    for line in novels.read_text(encoding="utf-8").splitlines():
        yield str(json.loads(line)["text"])


def readmes(_novels: Path | None) -> Iterator[str]:
    """Descriptions of the packages that are installed, most of them Markdown."""
    for package in sorted(distributions(), key=lambda package: package.name.lower()):
        # The headers of a package's metadata end at the first empty line, before its description.
        yield (package.read_text("METADATA") or "").partition("\n\n")[2]


def changelogs(_novels: Path | None) -> Iterator[str]:
    """What changed in the Debian packages of this machine."""
    for path in sorted(Path("/usr/share/doc").glob("*/changelog.Debian.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            yield file.read()


CORPORA: Final[Mapping[str, Callable[[Path | None], Iterable[str]]]] = {
    "docs": docs,
    "code": code,
    "man": man,
    "prose": prose,
    "readmes": readmes,
    "changelogs": changelogs,
}


def passages(
    texts: Iterable[str], num_texts: int = NUM_TEXTS, max_chars: int = MAX_CHARS
) -> list[str]:
    """``num_texts`` paragraphs of the texts, cut to ``max_chars``, chosen by their hash."""
    found = {
        paragraph.strip("\n")[:max_chars]
        for text in texts
        for paragraph in _BLANK_LINES.split(text)
        if len(paragraph.strip()) >= MIN_CHARS
    }
    return sorted(found, key=lambda text: blake2b(text.encode()).digest())[:num_texts]
