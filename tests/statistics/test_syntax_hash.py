"""Laws of the hash of a module: what it does counts, how it is written down does not."""

import pytest

from gdc.statistics.syntax_hash import syntax_hash

MODULE = '''"""What it is for."""

LIMIT = 1  # in rows


class Table:
    """Rows."""

    rows: int = 0
    """How many."""

    def double(self, *, by: float = 2.0) -> str:
        """Twice as many."""
        return f"{self.rows * by:.1f}" + "a" "b"
'''
OTHERWISE_WRITTEN = """
# What it is for.
LIMIT=1
class Table:
    rows: int = (
        0
    )
    def double(
        self, *,
        by: float = 2.0,
    ) -> str:

        return f'{self.rows * by:.1f}' + u"ab"
"""


def test_comments_docstrings_and_layout_do_not_count() -> None:
    assert syntax_hash(MODULE.encode()) == syntax_hash(OTHERWISE_WRITTEN.encode())


@pytest.mark.parametrize(
    ("written", "edited"),
    [
        ("LIMIT = 1", "LIMIT = 2"),
        ("LIMIT = 1", "LIMIT = 1.0"),
        ("LIMIT = 1", "LIMIT = True"),
        ("LIMIT = 1", "LIMIT = '1'"),
        ("LIMIT = 1", "LIMIT = None"),
        ("LIMIT = 1", "OTHER = 1"),
        ("self.rows * by", "self.rows / by"),
        ("self.rows * by", "by * self.rows"),
        (":.1f", ":.2f"),
        ("by: float = 2.0", "by: float"),
        ("*, by", "by"),
        ('"a" "b"', '"a" + "b"'),
        ('"a" "b"', 'b"ab"'),
    ],
)
def test_what_a_module_does_counts(written: str, edited: str) -> None:
    assert written in MODULE
    assert syntax_hash(MODULE.encode()) != syntax_hash(MODULE.replace(written, edited).encode())


def test_a_name_left_out_of_a_list_counts() -> None:
    assert syntax_hash(b"{**a, 'b': c}") != syntax_hash(b"{'b': c, **a}")
    assert syntax_hash(b"def f(*, a, b=1): pass") != syntax_hash(b"def f(*, a=1, b): pass")


def test_the_hash_is_the_same_under_every_version_of_python() -> None:
    # As Python 3.11, 3.12 and 3.13 have it.
    assert syntax_hash(MODULE.encode()).hex() == "5f3d913c6f0c48cb764cb7052a3b7f60"


def test_what_is_not_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        syntax_hash(b"def f(:")
