"""Docstrings -> Markdown."""

import inspect
import re
from typing import Final

GENERATED: Final = "*This page is generated from the code when the site is built.*"


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return as_markdown(" ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split()))


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", first_paragraph(docstring))[0]


def as_markdown(text: str) -> str:
    """Double backticks become Markdown's single ones; what looks like HTML is escaped."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(
        f"`{part.strip('`')}`" if part.startswith("`") else part.replace("<", "&lt;")
        for part in parts
    )


def fenced(text: str) -> str:
    """A docstring whose blocks after ``::`` become fenced code."""
    lines: list[str] = []
    is_open = False
    for line in text.splitlines():
        if is_open and line and not line.startswith(" "):
            is_open = False
            lines.insert(len(lines) - 1, "```")
        if line.endswith("::") and not is_open:
            is_open = True
            lines += [as_markdown(line.removesuffix(":")), "", "```text"]
        elif not (is_open and lines[-1] == "```text" and not line):
            lines.append(line.removeprefix("    ") if is_open else as_markdown(line))
    return "\n".join([*lines, "```"] if is_open else lines)


def documented(docstring: str | None) -> str:
    """A docstring of Google's style: its sections become bold words and lists."""
    lines = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line in {"Args:", "Returns:", "Raises:", "Attributes:"}:
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif entry := re.fullmatch(r"    (\w+): (.+)", line):
            lines.append(f"- `{entry[1]}`: {as_markdown(entry[2])}")
        else:
            lines.append(as_markdown(line.strip()))
    return "\n".join(lines)


def argument_lines(docstring: str | None) -> dict[str, str]:
    """What a docstring's list of attributes says of each, on one line."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(docstring or "").splitlines():
        if entry := re.fullmatch(r"    (\w+): (.+)", line):
            name, found[entry[1]] = entry[1], entry[2]
        elif name and line.startswith("        "):
            found[name] += f" {line.strip()}"
    return {name: as_markdown(text) for name, text in found.items()}
