"""The source of a Python module -> a hash of it without comments, docstrings and layout."""

import ast
from hashlib import blake2b
from typing import Final

# Type comments, and the prefix of u"text".
_NO_MEANING: Final = {"type_comment", "type_ignores", "kind"}


def syntax_hash(source: bytes | ast.Module) -> bytes:
    """A hash, 16 bytes, of the syntax tree of a module; equal under every version of Python.

    Args:
        source: The content of the file, or its tree.

    Raises:
        SyntaxError: It is not Python.
    """
    tree = source if isinstance(source, ast.Module) else ast.parse(source)
    words: list[str] = []
    _add(tree, words)
    text = "\0".join(words)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _add(node: object, words: list[str]) -> None:
    """Add the words of a tree; those of trees that do not mean the same are not the same.

    Not ``ast.dump``, whose words for one tree are others in other versions of Python: a field that
    is empty or None, as one that a later version adds, has no word here.
    """
    if isinstance(node, ast.AST):
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(node, ast.JoinedStr):
                value = [part for part in node.values if not _is_empty_text(part)]
            if name not in _NO_MEANING and value is not None and value != []:
                words.append(name)
                _add(value, words)
        words.append(")")
    elif isinstance(node, list):
        words.append("[")
        for item in node:
            if not _is_text_alone(item):
                _add(item, words)
        words.append("]")
    else:
        # 1, 1.0 and True are equal, and mean something else.
        words.append(repr(node))


def _is_text_alone(node: object) -> bool:
    """Whether it is a docstring, or another text that nothing is done with."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_empty_text(node: ast.expr) -> bool:
    """Whether it is nothing in an f-string, which Python 3.12 has a node for."""
    return isinstance(node, ast.Constant) and node.value == ""
