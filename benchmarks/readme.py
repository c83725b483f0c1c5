"""What a script has measured -> the README, in the place of what it wrote there before."""

from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
END = "<!-- until here -->\n"


def put(command: str, text: str) -> None:
    """Write ``text`` between the marks of ``command``, such as ``make bench``."""
    page = README.read_text(encoding="utf-8")
    README.write_text(replaced(page, command, text), encoding="utf-8")


def replaced(page: str, command: str, text: str) -> str:
    """``page`` with ``text`` between the marks of ``command``.

    Raises:
        ValueError: The page has no such marks.
    """
    begin = f"<!-- written by {command} -->\n"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(END)
    if not (first and last):
        raise ValueError(f"README: expected the lines {begin!r} and {END!r}, got not both.")
    return f"{before}{begin}\n{text}\n{END}{after}"
