"""Token losses of flagged samples -> the spans that the tracked models have memorized."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import SpansConfig
from gdc.corpus.tokenizer import Offsets
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.schema import SPANS

# Expected held-out tokens of a bin below the cut: with fewer the cut is chance.
_NUM_BELOW: Final = 5
_MAX_BINS: Final = 50


@dataclass(frozen=True)
class SpansSummary:
    """The content of ``spans.json``: numbers of flagged samples, of samples with spans, and so on.

    Where token losses were not recorded, only ``num_flagged`` (0) and a warning are known.
    """

    num_flagged: int
    num_samples: int | None = None
    num_spans: int | None = None
    num_tokens: int | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """The same as an object of numbers and strings; what is not known has no key."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {**known, "warnings": list(self.warnings)}


def find_spans(
    runs: Sequence[pl.DataFrame],
    heldout_runs: Sequence[pl.DataFrame],
    offsets: Iterable[Offsets],
    config: SpansConfig,
) -> tuple[pl.DataFrame, SpansSummary]:
    """Find the memorized spans of each sample.

    A token is memorized when at most a share ``p_value`` of the held-out tokens with a similar
    early loss ends with a loss as low: a conformal p-value within bins of the early loss, with ties
    counted as low. A span joins memorized tokens with at most one other token between them. A token
    that was easy from the start is not memorized, as held-out tokens like it end as low; nor is the
    end of a text.

    Args:
        runs: For each tracked run the ``TOKEN_LOSSES`` of the flagged samples; losses are averaged
            over runs.
        heldout_runs: The same of the held-out samples.
        offsets: Of the tokens of each sample, in the row order of ``runs``.
        config: ``p_value``, and the fewest memorized tokens of a span.

    Returns:
        ``SPANS`` table in the order of the samples, spans of a sample in the order of its text and
        apart from each other; and its summary.

    Raises:
        DataError: A sample has losses of another number of tokens than its text has.

    Source: Mondrian conformal prediction, Vovk, Gammerman & Shafer 2005; the bins are its taxonomy.
    """
    heldout = mean_over_runs(heldout_runs)
    is_memorized, gain = compare_with_heldout(mean_over_runs(runs), heldout, config.p_value)
    rows: list[tuple[object, ...]] = []
    begin = 0
    lengths = runs[0].select("sample_id", pl.col("early").list.len()).iter_rows()
    for (sample_id, length), sample_offsets in zip(lengths, offsets, strict=True):
        if length != len(sample_offsets) + 1:
            num_expected = len(sample_offsets) + 1
            raise DataError(
                f"data/trace: expected {num_expected} token losses of sample {sample_id}, as many "
                f"as its text has tokens, got {length}. Re-run from: gdc stage train."
            )
        # The last loss is that of the end of text, which has no offsets.
        tokens = slice(begin, begin + length - 1)
        found = _spans_of(is_memorized[tokens], sample_offsets, config.min_tokens)
        rows += [
            (sample_id, start, end, last - first, gain[tokens][first:last].sum())
            for start, end, first, last in found
        ]
        begin += length
    table = pl.DataFrame(rows, schema=SPANS, orient="row")
    return table, _summary(table, runs[0].height, len(heldout[0]), config)


def at_all_tokens(losses: pl.DataFrame, has_loss: Sequence[NDArray[np.bool_]]) -> pl.DataFrame:
    """Put losses of the tokens that have some, and of the end of text, among all tokens.

    Args:
        losses: ``TOKEN_LOSSES`` of some samples.
        has_loss: Whether each token of the text of each has one.

    Returns:
        The same table with an entry for every token of the texts, NaN for one without a loss: it
        is never memorized.

    Raises:
        DataError: A sample has losses of another number of tokens.
    """
    columns: dict[str, list[list[float]]] = {"early": [], "late": []}
    for (sample_id, *found), of_text in zip(losses.iter_rows(), has_loss, strict=True):
        places = np.append(of_text, True)
        for name, values in zip(columns, found, strict=True):
            if len(values) != places.sum():
                raise DataError(
                    f"data/trace: expected {places.sum()} token losses of sample {sample_id}, as "
                    f"many as its turns have, got {len(values)}. Re-run from: gdc stage train."
                )
            column = np.full(len(places), np.nan, dtype=np.float32)
            column[places] = values
            columns[name].append(column.tolist())
    return losses.with_columns(
        **{
            name: pl.Series(name, lists, dtype=pl.List(pl.Float32))
            for name, lists in columns.items()
        }
    )


def nothing_recorded() -> tuple[pl.DataFrame, SpansSummary]:
    """No span, and a summary with the reason."""
    warning = (
        "Losses of tokens were not recorded, so no memorized span is known: set "
        "train.token_losses: true and run again."
    )
    return pl.DataFrame(schema=SPANS), SpansSummary(0, warnings=(warning,))


def mean_over_runs(
    runs: Sequence[pl.DataFrame],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Early and late loss of every token of all samples in a row, mean over runs."""
    early, late = (
        np.mean([run[name].explode().cast(pl.Float64).to_numpy() for run in runs], axis=0)
        for name in ("early", "late")
    )
    return early, late


def compare_with_heldout(
    tokens: tuple[NDArray[np.float64], NDArray[np.float64]],
    heldout: tuple[NDArray[np.float64], NDArray[np.float64]],
    p_value: float,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which tokens are memorized, and how far below the late loss of its bin each ended, nats."""
    early, late = tokens
    bin_of, heldout_bin = _bins(early, heldout[0], p_value)
    p, gain = np.ones(len(late)), np.zeros(len(late))
    for number in np.unique(heldout_bin):
        here, calibration = bin_of == number, np.sort(heldout[1][heldout_bin == number])
        num_as_low = np.searchsorted(calibration, late[here], side="right")
        p[here] = (1 + num_as_low) / (1 + len(calibration))
        gain[here] = calibration.mean() - late[here]
    return p <= p_value, gain


def _bins(
    early: NDArray[np.float64], heldout_early: NDArray[np.float64], p_value: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Bin of each token and of each held-out one, cut at quantiles of the held-out early losses."""
    num_bins = int(np.clip(len(heldout_early) * p_value / _NUM_BELOW, 1, _MAX_BINS))
    cuts = np.unique(np.quantile(heldout_early, np.arange(1, num_bins) / num_bins))
    return (
        np.searchsorted(cuts, early, side="right"),
        np.searchsorted(cuts, heldout_early, side="right"),
    )


def _spans_of(
    is_memorized: NDArray[np.bool_], offsets: Offsets, min_tokens: int
) -> list[tuple[int, int, int, int]]:
    """Start and end in characters, first token and the one after the last of each span."""
    spans: list[tuple[int, int, int, int]] = []
    memorized = np.flatnonzero(is_memorized)
    for run in np.split(memorized, np.flatnonzero(np.diff(memorized) > 2) + 1):
        if len(run) < min_tokens:
            continue
        first, last = int(run[0]), int(run[-1]) + 1
        start, end = offsets[first][0], offsets[last - 1][1]
        if spans and start < spans[-1][1]:  # two tokens share a character
            start, _, first, _ = spans.pop()
        spans.append((start, end, first, last))
    return spans


def _summary(
    table: pl.DataFrame, num_flagged: int, num_heldout: int, config: SpansConfig
) -> SpansSummary:
    warnings = []
    if config.p_value * (num_heldout + 1) < 1:
        warnings.append(
            f"No token can be found memorized at a p-value of {config.p_value} with {num_heldout} "
            "held-out tokens: hold out more (ingest.validation_fraction), or raise spans.p_value."
        )
    return SpansSummary(
        num_flagged=num_flagged,
        num_samples=table["sample_id"].n_unique(),
        num_spans=table.height,
        num_tokens=int(table["num_tokens"].sum()),
        warnings=tuple(warnings),
    )
