"""Names of files that are not read, by reason -> what is kept of them, and one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

_NUM_NAMED: Final = 3


def summarize(names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Count the names of each reason and keep the first few; a folder that is skipped is one."""
    return {
        reason: {"num_files": len(of_reason), "first": sorted(of_reason)[:_NUM_NAMED]}
        for reason, of_reason in sorted(names.items())
    }


def num_unread(unread: Mapping[str, Any]) -> int:
    """Number of files in a summary."""
    return sum(counted["num_files"] for counted in unread.values())


def sentence(unread: Mapping[str, Any]) -> str | None:
    """A summary in one sentence; None where every file is read."""
    if not unread:
        return None
    num = num_unread(unread)
    reasons = "; ".join(_of_reason(reason, counted) for reason, counted in unread.items())
    return f"Not read: {num:,} file{'' if num == 1 else 's'} of the source: {reasons}."


def _of_reason(reason: str, counted: Mapping[str, Any]) -> str:
    more = ", ..." if counted["num_files"] > len(counted["first"]) else ""
    return f"{counted['num_files']:,} {reason} ({', '.join(counted['first'])}{more})"
