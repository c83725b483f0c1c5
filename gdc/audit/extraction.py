"""Token records of canaries -> which secrets greedy decoding reproduces, and their exposure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import takewhile
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.audit.similarity import similarity
from gdc.filesystem.json_values import JsonObject
from gdc.schema import AUDIT
from gdc.statistics.exposure import MIN_REFERENCES, extrapolated_exposure, sampled_exposure
from gdc.training.token_records import TokenRecords

_EXPOSURES: Final = ("exposure", "exposure_fitted", "fit_distance", "fit_is_beyond")


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
    """The secret part of each text: positions ``starts`` up to but not including ``ends``, int64.

    ``records`` are those of the whole texts, sequence i being text i.
    """

    records: TokenRecords
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of each secret that are predicted: of a conversation, its answers alone are."""
        sequence = self.records.sequence[self._is_secret]
        return np.bincount(sequence, minlength=len(self.starts)).astype(np.int64)

    @property
    def nll(self) -> NDArray[np.float64]:
        """Nats of each secret given all tokens before it."""
        return self._sum(self.records.nll)

    @property
    def is_extracted(self) -> NDArray[np.bool_]:
        """Whether greedy decoding from the tokens before it gives the whole secret.

        It does if and only if each token of the secret is the most likely one given those before
        it, so one teacher-forced pass suffices. A secret without tokens is not extracted.

        Source: Carlini et al. 2021, arXiv:2012.07805; 2023, arXiv:2202.07646.
        """
        is_greedy = self._sum(self.records.is_greedy) == self.num_tokens
        return np.asarray(is_greedy & (self.num_tokens > 0))

    def greedy_ids(self) -> list[list[int]]:
        """The most likely id at each position of a secret, given the true ids before it."""
        is_secret = self._is_secret
        ids, sequence = self.records.greedy_id[is_secret], self.records.sequence[is_secret]
        cuts = np.searchsorted(sequence, np.arange(1, len(self.starts)))
        return [part.tolist() for part in np.split(ids, cuts)] if len(self.starts) else []

    @cached_property
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
        shifted: The same secrets with another text before the prefix. One that starts at the same
            position as in ``secrets`` was not shifted, as the window has no room.
        greedy: Text of each secret's ``greedy_ids``.

    Returns:
        ``AUDIT`` table in the row order of ``canaries``.
    """
    was_shifted = pl.Series(shifted.starts > secrets.starts, dtype=pl.Boolean)
    return (
        canaries.select("canary_id", "family", "num_repeats")
        .with_columns(
            num_secret_tokens=pl.Series(secrets.num_tokens, dtype=pl.Int64),
            secret_nll=pl.Series(secrets.nll, dtype=pl.Float64),
            secret_nll_shifted=pl.when(was_shifted).then(pl.Series(shifted.nll)),
            extracted=pl.Series(secrets.is_extracted, dtype=pl.Boolean),
            extracted_shifted=pl.when(was_shifted).then(pl.Series(shifted.is_extracted)),
        )
        .with_columns(similarity(greedy, canaries["secret"].to_list()))
        .with_columns(_exposures())
        .select(AUDIT.names())
        .match_to_schema(AUDIT)
    )


def _exposures() -> pl.Expr:
    """Exposure of a planted canary: its rank among the twins of its family, and a fit to them."""
    is_twin = pl.col("num_repeats") == 0
    fields = {name: AUDIT[name] for name in _EXPOSURES}

    def family_exposures(columns: Sequence[pl.Series]) -> pl.Series:
        nll, twin = (column.to_numpy() for column in columns)
        return _family_exposures(nll, twin).to_struct()

    return (
        pl.map_groups(
            ["secret_nll", is_twin],
            family_exposures,
            return_dtype=pl.Struct(fields),
            returns_scalar=False,
        )
        .over("family")
        .struct.unnest()
    )


def _family_exposures(nll: NDArray[np.float64], is_twin: NDArray[np.bool_]) -> pl.DataFrame:
    secrets, twins = nll[~is_twin], nll[is_twin]
    columns = {name: np.full(len(nll), np.nan) for name in _EXPOSURES}
    if len(twins):
        columns["exposure"][~is_twin] = sampled_exposure(secrets, twins)
    if len(secrets) and len(twins) >= MIN_REFERENCES and np.ptp(twins) > 0:
        fit = extrapolated_exposure(secrets, twins)
        columns["exposure_fitted"][~is_twin] = fit.exposure
        columns["fit_distance"][~is_twin] = fit.ks_distance
        columns["fit_is_beyond"][~is_twin] = fit.is_beyond
    return pl.DataFrame(
        {
            name: pl.Series(values, nan_to_null=True).cast(AUDIT[name])
            for name, values in columns.items()
        }
    )


@dataclass(frozen=True)
class CanaryMetrics:
    """What one ``AUDIT`` table says as a whole.

    A level is a number of repeats; level 0 holds the never-planted twins, whose extraction no
    memorization explains.

    Attributes:
        extraction_rate: Share of planted secrets that are extracted; None: there are none.
        extraction_rate_shifted: The same with another text before the prefix.
        extraction: The share by family and level.
        exposure: Mean exposure in bits by family and level.
        exposure_fitted: The same from a skew-normal fitted to the twins.
        fit_distance: By family, how far the twins are from that fit.
        num_fits_beyond: Planted canaries whose fitted exposure is an extrapolation.
    """

    extraction_rate: float | None
    extraction_rate_shifted: float | None
    extraction: dict[str, dict[str, float]]
    exposure: dict[str, dict[str, float]]
    exposure_fitted: dict[str, dict[str, float]]
    fit_distance: dict[str, float]
    num_fits_beyond: int

    def to_json(self) -> JsonObject:
        """The same as nested objects of numbers."""
        return asdict(self)


def canary_metrics(audit: pl.DataFrame) -> CanaryMetrics:
    """Share of secrets extracted and mean exposure: overall, by family and repeat level."""
    planted = audit.filter(pl.col("num_repeats") > 0)
    fits = audit.drop_nulls("fit_distance").group_by("family").agg(pl.col("fit_distance").first())
    rates = planted.select(pl.col("extracted", "extracted_shifted").mean())
    extraction_rate, extraction_rate_shifted = rates.row(0)
    return CanaryMetrics(
        extraction_rate=extraction_rate,
        extraction_rate_shifted=extraction_rate_shifted,
        extraction=_by_level(audit, "extracted"),
        exposure=_by_level(audit, "exposure"),
        exposure_fitted=_by_level(audit, "exposure_fitted"),
        fit_distance=dict(fits.sort("family").iter_rows()),
        num_fits_beyond=int(planted["fit_is_beyond"].sum()),
    )


def _by_level(audit: pl.DataFrame, column: str) -> dict[str, dict[str, float]]:
    means = audit.group_by("family", "num_repeats").agg(pl.col(column).mean()).drop_nulls()
    levels: dict[str, dict[str, float]] = {}
    for family, level, mean in means.sort("family", "num_repeats").iter_rows():
        levels.setdefault(family, {})[str(level)] = mean
    return levels
