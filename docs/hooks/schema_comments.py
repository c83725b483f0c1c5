"""A module of schemas -> what its comments say of each table and column."""

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docs.hooks.wording import as_markdown


@dataclass(frozen=True)
class Comments:
    """What the comments of a schema say of the table and of each column."""

    text: str
    columns: Mapping[str, str]


def schema_comments(path: Path) -> dict[str, Comments]:
    """For each ``pl.Schema`` of a module, in order, its comments."""
    source = path.read_text(encoding="utf-8")
    comments, alone = comment_lines(source)
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        if ast.unparse(node.value.func) != "pl.Schema" or not isinstance(node.target, ast.Name):
            continue
        columns = {}
        keys = node.value.args[0]
        if not isinstance(keys, ast.Dict):
            raise TypeError(f"{path}: expected a dict of columns in {node.target.id}")
        for key in keys.keys:
            # A schema on one line has no comments of its columns.
            if isinstance(key, ast.Constant) and key.lineno > node.lineno:
                beside = comments.get(key.lineno, "") if key.lineno not in alone else ""
                told = [above(key.lineno, comments, alone), beside]
                columns[str(key.value)] = as_markdown(" ".join(filter(None, told)))
        text = as_markdown(above(node.lineno, comments, alone))
        found[node.target.id] = Comments(text, columns)
    return found


def comment_lines(source: str) -> tuple[dict[int, str], set[int]]:
    """The comment of each line that has one, and the lines that hold nothing else."""
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line[: token.start[1]].strip() == "":
                alone.add(token.start[0])
    return comments, alone


def above(line: int, comments: Mapping[int, str], alone: set[int]) -> str:
    """The comment lines directly above a line."""
    first = line
    while first - 1 in alone:
        first -= 1
    return " ".join(comments[number] for number in range(first, line))
