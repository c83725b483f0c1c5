"""A file with what a person decided about samples -> the plan of an arm."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import polars as pl

from gdc.errors import ConfigError, DataError
from gdc.schema import PLAN

ACTIONS: Final = ("keep", "drop", "mask")
LISTED: Final = pl.Schema({"sample_id": pl.String, "action": pl.String})


def read_listed(path: Path, *, name: str) -> pl.DataFrame:
    """Read JSON Lines, ``{"sample_id": "...", "action": "drop"}`` each.

    Args:
        path: The file.
        name: The parameter that names it.

    Returns:
        ``LISTED`` table in the order of the file.

    Raises:
        ConfigError: There is no such file.
        DataError: A line is not of this form, or a sample stands in two of them.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}: expected a text file that can be read, got {str(path)!r} "
            f"({getattr(error, 'strerror', None) or error}). reports/report.html writes one: mark "
            "texts, then download the marks as a plan."
        ) from None
    rows = [_row(line, f"{path}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]
    twice = [sample for sample, count in Counter(i for i, _ in rows).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: expected each sample once, got {len(twice)} more often, first {twice[0]!r}. "
            "Leave one line of each."
        )
    return pl.DataFrame(rows, schema=LISTED, orient="row")


def listed_plan(
    scored: pl.LazyFrame, listed: pl.DataFrame, spans: pl.DataFrame, *, name: str
) -> pl.LazyFrame:
    """Do with each sample what is listed; the others are kept.

    Args:
        scored: Table with the ``sample_id`` of every training sample.
        listed: ``LISTED`` table.
        spans: ``SPANS`` table; ``mask`` masks those of the sample.
        name: The file, for messages.

    Returns:
        ``PLAN`` table in the order of ``scored``.

    Raises:
        DataError: A listed sample is no training sample, or has no span to mask.
    """
    known = scored.select("sample_id").collect(engine="streaming")
    masked = spans.group_by("sample_id", maintain_order=True).agg(masked=pl.struct("start", "end"))
    _require(
        listed.join(known, on="sample_id", how="anti"),
        f"{name}: expected ids of the samples that are planned",
        "The file is of another corpus, or ids are cut off.",
    )
    _require(
        listed.filter(pl.col("action") == "mask").join(masked, on="sample_id", how="anti"),
        f"{name}: expected a memorized span (spans.parquet) in every sample to mask",
        "Keep or drop what has none.",
    )
    action = pl.col("action").fill_null("keep")
    drop = action == "drop"
    listed_spans = pl.when(action == "mask").then("masked").otherwise(pl.lit([]))
    reason = pl.when(pl.col("action").is_null()).then(pl.lit("not listed"))
    return (
        scored.select("sample_id")
        .join(listed.lazy(), on="sample_id", how="left", maintain_order="left")
        .join(masked.lazy(), on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=action,
            weight=pl.when(drop).then(0.0).otherwise(1.0),
            copies=pl.when(drop).then(pl.lit(0, pl.Int64)).otherwise(pl.lit(1, pl.Int64)),
            reason=reason.otherwise(pl.lit("listed")),
            masked=listed_spans.fill_null([]),
        )
        .match_to_schema(PLAN)
    )


def _require(wrong: pl.DataFrame, expected: str, remedy: str) -> None:
    if wrong.height:
        raise DataError(
            f"{expected}, got {wrong.height} that are not, first {wrong['sample_id'][0]!r}. "
            f"{remedy}"
        )


def _row(line: str, where: str) -> tuple[str, str]:
    try:
        row: Any = json.loads(line)  # of the user's, checked here
        sample_id, action = row["sample_id"], row["action"]
    except (ValueError, KeyError, TypeError, RecursionError):
        sample_id = action = None
    if not isinstance(sample_id, str) or action not in ACTIONS:
        raise DataError(
            f'{where}: expected {{"sample_id": "...", "action": "drop"}} with an action of '
            f"{', '.join(ACTIONS)}, got {line[:80]!r}."
        )
    return sample_id, action
