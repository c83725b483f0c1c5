"""Names of files that a source does not read, by reason -> a summary, and one sentence."""

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict

from gdc.errors import without_controls

_NUM_NAMED: Final = 3


class UnreadFiles(TypedDict):
    """Files that are not read for one reason: their number and the first names."""

    num_files: int
    first: list[str]


def summarize(names: Mapping[str, Sequence[str]]) -> dict[str, UnreadFiles]:
    """Count the names of each reason and keep the first few; a skipped folder counts as one."""
    return {
        reason: UnreadFiles(num_files=len(files), first=sorted(files)[:_NUM_NAMED])
        for reason, files in sorted(names.items())
    }


def num_unread(unread: Mapping[str, UnreadFiles]) -> int:
    """Number of files in a summary."""
    return sum(counted["num_files"] for counted in unread.values())


def sentence(unread: Mapping[str, UnreadFiles]) -> str | None:
    """A summary in one sentence; None where every file is read."""
    if not unread:
        return None
    num = num_unread(unread)
    reasons = "; ".join(_reason_clause(reason, counted) for reason, counted in unread.items())
    told = f"Not read: {num:,} file{'' if num == 1 else 's'} of the source: {reasons}."
    # Names of files that somebody else has made.
    return without_controls(told)


def _reason_clause(reason: str, counted: UnreadFiles) -> str:
    more = ", ..." if counted["num_files"] > len(counted["first"]) else ""
    return f"{counted['num_files']:,} {reason} ({', '.join(counted['first'])}{more})"
