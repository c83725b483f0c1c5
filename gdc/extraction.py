"""Token records of canaries -> which secrets greedy decoding gives away."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.losses import TokenRecords
from gdc.schema import AUDIT


def secret_starts(
    prefix_ids: Sequence[Sequence[int]], text_ids: Sequence[Sequence[int]]
) -> NDArray[np.int64]:
    """Where the secret begins in the ids of each text: after what it shares with its prefix."""
    return np.array(
        [
            sum(
                1
                for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prefix, text, strict=False))
            )
            for prefix, text in zip(prefix_ids, text_ids, strict=True)
        ],
        dtype=np.int64,
    )


def audit_canaries(
    canaries: pl.DataFrame,
    records: TokenRecords,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> pl.DataFrame:
    """Loss of every secret and whether it is extracted.

    Greedy decoding from the prefix gives the secret exactly if and only if each of its tokens is
    the most likely one given the tokens before it, so one teacher-forced pass answers it.

    Args:
        canaries: ``CANARIES`` table.
        records: Token records of the canaries' texts, sequence i being row i.
        starts: Position of the first token of each secret.
        ends: Position after its last token.

    Returns:
        ``AUDIT`` table in the row order of ``canaries``.

    Source: Carlini et al. 2021, arXiv:2012.07805; 2023, arXiv:2202.07646.
    """
    is_secret = (records.position >= starts[records.sequence]) & (
        records.position < ends[records.sequence]
    )
    sequence, size = records.sequence[is_secret], canaries.height
    nll = np.bincount(sequence, weights=records.nll[is_secret], minlength=size)
    greedy = np.bincount(sequence, weights=records.is_greedy[is_secret], minlength=size)
    num_tokens = ends - starts
    return (
        canaries.select("canary_id", "family", "num_repeats")
        .with_columns(
            num_secret_tokens=pl.Series(num_tokens, dtype=pl.Int64),
            secret_nll=pl.Series(nll, dtype=pl.Float64),
            extracted=pl.Series(greedy == num_tokens, dtype=pl.Boolean),
        )
        .match_to_schema(AUDIT)
    )


def extraction_rates(audit: pl.DataFrame) -> dict[str, Any]:
    """Share of secrets extracted: of all planted canaries, and by family and repeat level.

    Level 0 are the twins that were never planted: what no memory can explain.
    """
    planted = audit.filter(pl.col("num_repeats") > 0)
    rates = audit.group_by("family", "num_repeats").agg(pl.col("extracted").mean())
    by_family: dict[str, dict[str, float]] = {}
    for family, level, rate in rates.sort("family", "num_repeats").iter_rows():
        by_family.setdefault(family, {})[str(level)] = rate
    overall: Mapping[str, Any] = {
        "extraction_rate": planted["extracted"].mean() if planted.height else None
    }
    return {**overall, "extraction": by_family}
