"""The tables of one workspace that a report is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from gdc.comparison.leakage import LEAKED
from gdc.comparison.results import AllAttacks, ArmAudits, LeakageByGroup, NextLayer
from gdc.errors import DataError
from gdc.mapping.profile import Profile
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.score_cards import Calibration
from gdc.mapping.spans import SpansSummary
from gdc.report.model import ArmMetrics, UnreadFiles
from gdc.schema import MASKED, SPANS
from gdc.scores.summary import ScoresSummary


@dataclass(frozen=True)
class Gaps:
    """``sample_id`` and ``gap``: loss under half-models that did not see it minus under the others.

    Nats per token; null where one of them is not known.
    """

    table: pl.DataFrame
    num_models: int


@dataclass(frozen=True)
class ReportTables:
    """Everything that a report is made of.

    ``corpus`` may come without ``text``; ``read_texts`` then gives those of some samples by their
    ids.
    """

    corpus: pl.DataFrame
    canaries: pl.DataFrame
    scores: pl.DataFrame
    quadrants: pl.DataFrame
    plans: Mapping[str, pl.DataFrame]  # of every retrained arm and of the curated arm
    metrics: Mapping[tuple[str, int], ArmMetrics]  # of every retrained arm and seed
    scores_summary: ScoresSummary
    quadrants_summary: QuadrantsSummary
    num_quarantined: int
    spans: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPANS))
    spans_summary: SpansSummary = field(default_factory=lambda: SpansSummary(0))
    num_left_out: int = 0  # rows beyond ``ingest.max_samples``
    unread: Mapping[str, UnreadFiles] = field(default_factory=dict)
    # Of every arm whose runs choose weights: the planted rows that each seed's run changed.
    planted_reweighted: Mapping[str, Sequence[int]] = field(default_factory=dict)
    calibration: Calibration | None = None
    arm_audits: Mapping[str, ArmAudits] = field(default_factory=dict)
    groups: LeakageByGroup | None = None
    attacks: AllAttacks | None = None
    next_layer: NextLayer | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    gaps: Gaps | None = None
    leaked: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEAKED))
    read_texts: Callable[[pl.Series], Sequence[str]] | None = None

    @cached_property
    def scored_samples(self) -> pl.DataFrame:
        """What is known of every scored sample, joined once.

        Returns:
            One row for each, in the order of the scores: ``plots.POINTS``, source, cause, spans,
            and ``text`` where the corpus has it.

        Raises:
            DataError: The tables hold different samples.
        """
        axis = self.quadrants_summary.axis
        label = pl.col("family") + "/" + pl.col("num_repeats").cast(pl.String)
        spans = self.spans.group_by("sample_id", maintain_order=True).agg(
            spans=pl.struct("start", "end")
        )
        columns = ("sample_id", "content_id", "source", "text", "num_copies", "canary_id")
        rows = self.corpus.select(name for name in columns if name in self.corpus.columns)
        samples = (
            self.scores.select("sample_id", "difficulty", "cause", "duplicate_ids", score=axis)
            .join(self.quadrants, on="sample_id", maintain_order="left")
            .join(rows, on="sample_id", maintain_order="left")
            .join(spans, on="sample_id", how="left", maintain_order="left")
            .with_columns(pl.col("spans").fill_null(pl.lit([], MASKED)))
            .join(
                self.canaries.select("canary_id", canary=label),
                on="canary_id",
                how="left",
                maintain_order="left",
            )
        )
        _require_same_samples(samples, self)
        return samples

    def with_texts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add ``text`` to rows of ``scored_samples`` without it: to those that are shown."""
        if self.read_texts is None:
            return rows
        texts = pl.Series(self.read_texts(rows["sample_id"]), dtype=pl.String)
        return rows.with_columns(text=texts)


def _require_same_samples(samples: pl.DataFrame, tables: ReportTables) -> None:
    if not samples.height == tables.scores.height == tables.quadrants.height:
        raise DataError(
            "report: expected the same samples in data/scores.parquet, data/quadrants.parquet and "
            f"data/corpus.parquet, got {tables.scores.height} scored, {tables.quadrants.height} "
            f"with a quadrant and {samples.height} in all three. Re-run: gdc run."
        )
    unknown = samples.filter(pl.col("canary_id").is_not_null() & pl.col("canary").is_null())
    if unknown.height:
        raise DataError(
            f"report: expected every planted canary in data/canaries.parquet, got {unknown.height} "
            f"that are not, first {unknown['canary_id'][0]}. Re-run: gdc run."
        )
