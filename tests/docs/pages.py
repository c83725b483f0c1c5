"""The pages and what stands in them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.builders import REPOSITORY

PAGES: Final = (
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
# Each is a block of a page, below its own docstring.
EXAMPLES: Final = {
    path.read_text(encoding="utf-8").partition('"""\n\n')[2]: path
    for path in sorted((REPOSITORY / "examples").glob("record_*.py"))
}
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"`(gdc [a-z][^`]*)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {self.text.strip().splitlines()[0][:40]}"


def name_of(page: Path) -> str:
    """A page as the repository names it."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, *found.groups()) for found in _BLOCK.finditer(text)]


def inline_commands_of(page: Path) -> list[str]:
    """All that begins with ``gdc`` between single backticks."""
    return _INLINE.findall(_BLOCK.sub("", page.read_text(encoding="utf-8")).replace("\n", " "))


def blocks(language: str) -> list[Block]:
    """All fenced blocks of a language, of all pages."""
    return [block for page in PAGES for block in blocks_of(page) if block.language == language]


def commands_of(script: str) -> list[str]:
    """The lines of a shell script, each with what it continues on."""
    return [line for line in script.replace("\\\n", " ").splitlines() if line.strip()]
