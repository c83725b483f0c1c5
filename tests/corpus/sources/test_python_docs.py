"""The documentation of Python itself as a source."""

import sys
import sysconfig

import polars as pl
import pytest

from gdc.config import PythonLibrarySource
from gdc.corpus.sources import (
    fingerprint,
    read_source,
)
from gdc.errors import DataError
from tests.corpus.sources.builders import PYTHON_DOCS, read, write_lines


@pytest.mark.slow
def test_python_docs_are_thousands_of_distinct_texts() -> None:
    found = read_source(PYTHON_DOCS, max_chars=100_000, seed=0)
    assert found.bad_rows.is_empty()
    assert found.rows["text"].n_unique() > 8000
    assert found.rows["source"][0] == "topics:assert:1"
    named = "json/decoder.py:JSONDecoder.decode"
    [docstring] = found.rows.filter(pl.col("source") == named)["text"]
    assert docstring.startswith("Return the Python representation of ``s``")


MODULE = b'''"""Of b."""
class A:
    """Of A."""
    async def f(self):
        """Of f."""
'''
NESTED = b'''if True:
    def g():
        """
        Of g:
          more
        """
'''
LIBRARY = {
    "b.py": MODULE,
    "a/deep.py": NESTED,
    "a/bare.py": b'def f():\n    ""\n',
    "old.py": b"print 1\n",
    "tests/b.py": b'"""Not read."""',
    "site-packages/c.py": b'"""Not read."""',
    "note.txt": b"Not read.",
}


@pytest.mark.parametrize("names", [list(LIBRARY), list(reversed(LIBRARY))])
def test_docstrings_are_named_and_ordered_whatever_the_order_on_disk(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "lib")
    for name in names:
        write_lines(f"lib/{name}", LIBRARY[name].splitlines())
    found = read_source(PYTHON_DOCS, max_chars=100_000, seed=0)
    assert found.rows.filter(~pl.col("source").str.starts_with("topics:")).rows() == [
        ("Of g:\n  more", "a/deep.py:g"),
        ("Of b.", "b.py:module"),
        ("Of A.", "b.py:A"),
        ("Of f.", "b.py:A.f"),
    ]
    assert found.bad_rows.rows() == [("old.py", "not valid Python: SyntaxError")]
    assert fingerprint(PYTHON_DOCS)["library"] == "eafac2aadd6f9f224ad628b4054e3ed2"


def test_paragraphs_of_comments_and_docstrings_are_rows_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "lib")
    module = b'# By me.\n# Copyright of me.\n#\n# Use it.\n\n"""One.\n\nTwo.\n"""\n# Not read.\n'
    write_lines("lib/c.py", module.splitlines())
    write_lines("lib/old.py", LIBRARY["old.py"].splitlines())
    source = PythonLibrarySource(kind="python-library")
    found = read_source(source, max_chars=100_000, seed=0)
    assert found.rows.filter(~pl.col("source").str.starts_with("topics:")).rows() == [
        ("By me.\nCopyright of me.", "c.py:comment:1"),
        ("Use it.", "c.py:comment:2"),
        ("One.", "c.py:module:1"),
        ("Two.", "c.py:module:2"),
    ]
    assert found.bad_rows.rows() == [("old.py", "not valid Python: SyntaxError")]
    assert fingerprint(source)["library"] == fingerprint(PYTHON_DOCS)["library"]
    topics = [
        read_source(one, max_chars=100_000, seed=0).rows.filter(
            pl.col("source").str.starts_with("topics:")
        )
        for one in (source, PYTHON_DOCS)
    ]
    assert topics[0].equals(topics[1])


def test_a_python_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "lib")
    with pytest.raises(DataError, match=r"expected the standard library's source in lib, got no"):
        fingerprint(PYTHON_DOCS)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"expected pydoc_data\.topics in this Python, got none"):
        read(PYTHON_DOCS)
