"""Token records of texts -> which secrets a model gives away, and how far they stand out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.discoverable import similarity
from gdc.exposure import sampled_exposure
from gdc.schema import AUDIT
from gdc.token_records import TokenRecords


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


@dataclass(frozen=True)
class Secrets:
    """The part of each text that is asked for: positions ``starts`` to before ``ends``, int64.

    ``records`` are those of the whole texts, sequence i being text i.
    """

    records: TokenRecords
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each secret."""
        return self.ends - self.starts

    @property
    def nll(self) -> NDArray[np.float64]:
        """Nats of each secret given all before it."""
        return self._sum(self.records.nll)

    @property
    def is_extracted(self) -> NDArray[np.bool_]:
        """Whether greedy decoding from what stands before it gives the whole secret.

        It does if and only if each of its tokens is the most likely one given those before it, so
        one teacher-forced pass answers it.

        Source: Carlini et al. 2021, arXiv:2012.07805; 2023, arXiv:2202.07646.
        """
        return np.asarray(self._sum(self.records.is_greedy) == self.num_tokens)

    def greedy_ids(self) -> list[list[int]]:
        """The most likely id at each place of a secret, given the true ids before it."""
        is_secret = self._is_secret
        ids, sequence = self.records.greedy_id[is_secret], self.records.sequence[is_secret]
        cuts = np.searchsorted(sequence, np.arange(1, len(self.starts)))
        return [part.tolist() for part in np.split(ids, cuts)] if len(self.starts) else []

    @property
    def _is_secret(self) -> NDArray[np.bool_]:
        sequence, position = self.records.sequence, self.records.position
        return np.asarray((position >= self.starts[sequence]) & (position < self.ends[sequence]))

    def _sum(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        chosen = self._is_secret
        sequence = self.records.sequence[chosen]
        return np.bincount(sequence, weights=values[chosen], minlength=len(self.starts)).astype(
            np.float64
        )


def audit_canaries(
    canaries: pl.DataFrame, secrets: Secrets, shifted: Secrets, greedy: Sequence[str]
) -> pl.DataFrame:
    """Loss, extraction and exposure of every canary and twin.

    Args:
        canaries: ``CANARIES`` table.
        secrets: Their secrets, one for each row.
        shifted: The same secrets when another text stands before the prefix.
        greedy: Text of each secret's ``greedy_ids``.

    Returns:
        ``AUDIT`` table in the row order of ``canaries``.
    """
    return (
        canaries.select("canary_id", "family", "num_repeats")
        .with_columns(
            num_secret_tokens=pl.Series(secrets.num_tokens, dtype=pl.Int64),
            secret_nll=pl.Series(secrets.nll, dtype=pl.Float64),
            extracted=pl.Series(secrets.is_extracted, dtype=pl.Boolean),
            extracted_shifted=pl.Series(shifted.is_extracted, dtype=pl.Boolean),
        )
        .with_columns(similarity(greedy, canaries["secret"].to_list()))
        .with_columns(exposure=_exposure())
        .match_to_schema(AUDIT)
    )


def _exposure() -> pl.Expr:
    """Exposure of a planted canary among the twins of its family; null where there are none."""
    is_twin = pl.col("num_repeats") == 0

    def of_family(columns: Sequence[pl.Series]) -> pl.Series:
        nll, twin = (column.to_numpy() for column in columns)
        exposure = np.full(len(nll), np.nan)
        if twin.any():
            exposure[~twin] = sampled_exposure(nll[~twin], nll[twin])
        return pl.Series(exposure, nan_to_null=True)

    return pl.map_groups(
        ["secret_nll", is_twin], of_family, return_dtype=pl.Float64, returns_scalar=False
    ).over("family")


def canary_metrics(audit: pl.DataFrame) -> dict[str, Any]:
    """Share of secrets extracted and mean exposure: overall, by family and repeat level.

    Level 0 are the twins that were never planted: what no memory can explain.
    """
    planted = audit.filter(pl.col("num_repeats") > 0)
    by_level = audit.group_by("family", "num_repeats").agg(pl.col("extracted", "exposure").mean())
    extraction: dict[str, dict[str, float]] = {}
    exposure: dict[str, dict[str, float]] = {}
    for family, level, rate, bits in by_level.sort("family", "num_repeats").iter_rows():
        extraction.setdefault(family, {})[str(level)] = rate
        if bits is not None:
            exposure.setdefault(family, {})[str(level)] = bits
    return {
        "extraction_rate": planted["extracted"].mean() if planted.height else None,
        "extraction_rate_shifted": planted["extracted_shifted"].mean() if planted.height else None,
        "extraction": extraction,
        "exposure": exposure,
    }
