"""Tables of a report small enough to count by hand, and what is made of them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from gdc.config import Params
from gdc.mapping.causes import CAUSES
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.mapping.score_cards import AutoAxis, Calibration, CanaryCounts, ScoreCard
from gdc.recording.trace import Trace
from gdc.report import build, page, page_data, sample_table
from gdc.report.model import ArmMetrics, to_json
from gdc.report.page import Pictures
from gdc.report.page_data import PageData
from gdc.report.plots import MapFrame
from gdc.report.tables import Gaps, ReportTables
from gdc.schema import (
    CANARIES,
    CORPUS,
    HALVES,
    MEMBERSHIP,
    PLAN,
    QUADRANT_TABLE,
    QUADRANTS,
    REFERENCE_LOSS,
    REVISED_WEIGHTS,
    SCORES,
    Verdict,
)
from gdc.scores.summary import ScoresSummary
from gdc.statistics.bootstrap import Estimate
from tests.builders import audit_table, params_with, trace_of

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


# id, difficulty, memorization, quadrant, canary. Thresholds: 3 nats per token and 0.15.
SAMPLES = (
    ("a-0", 2.0, 0.0, "stable-easy", None),
    ("b-0", 5.0, 0.1, "ambiguous-hard", None),
    ("c-0", 2.5, 0.2, "hotspot-memorized", None),
    ("d-0", 1.5, 0.2, "hotspot-memorized", None),
    ("e-0", 1.0, 0.3, "hotspot-memorized", None),
    ("f-0", 6.0, 0.4, "noisy-outlier", None),
    ("g-0", 2.0, 0.4, "hotspot-memorized", "digits-1"),
    ("g-1", 2.0, 0.0, "stable-easy", "digits-1"),
)


CAUSED = pl.DataFrame(
    [
        ("a-0", "none", []),
        ("b-0", "template", []),
        ("c-0", "near-copies", ["d-0"]),
        ("d-0", "near-copies", ["c-0", "d-1"]),
        ("e-0", "secret", []),
        ("f-0", "none", []),
        ("g-0", "exact-copies", ["g-1"]),
        ("g-1", "exact-copies", ["g-0"]),
    ],
    schema=CAUSES,
    orient="row",
)


ORDINARY = tuple(sample for sample in SAMPLES if sample[4] is None)


def params_of(
    arms: Sequence[str] = ("none", "paper"),
    seeds: Sequence[int] = (1, 2),
    target: Mapping[str, float] | None = None,
    **shown: object,
) -> Params:
    """The repository's parameters with these arms, seeds, target and report settings."""
    base = params_with().model_dump(mode="json")
    return params_with(
        intervene=base["intervene"] | {"recommend": target, "curated_arm": "paper"},
        partition=base["partition"] | {"axis": "memorization"},
        retrain=base["retrain"] | {"arms": list(arms), "seeds": list(seeds)},
        report=base["report"] | shown,
    )


def corpus_of(samples: Sequence[tuple[Any, ...]], text: str) -> pl.DataFrame:
    """The samples as the training split, and one held-out and one reserved row."""
    planted = {row[0] for row in samples if row[4] is not None}
    rows = [
        (i, i[0], 2 if i in planted else 1, f"{text} {i}", 9, 3, f"file:{i}", "train", canary)
        for i, *_, canary in samples
    ]
    held_out = [
        ("y-0", "y", 1, "held out", 8, 3, "file:y", "validation", None),
        ("z-0", "z", 1, "reserved", 8, 3, "file:z", "reserved", None),
    ]
    return pl.DataFrame([*rows, *held_out], schema=CORPUS, orient="row")


def metrics_of(perplexity: float, rate: float | None) -> ArmMetrics:
    """What the report reads of the metrics that stage evaluate writes."""
    return ArmMetrics(
        perplexity=perplexity,
        num_masked_tokens=0,
        extraction_rate=rate,
        extraction={} if rate is None else {"digits": {"0": 0.0, "2": rate}},
    )


def plan_of(ids: Sequence[str], **actions: str) -> pl.DataFrame:
    """A plan that keeps every sample but those in ``actions``, by the first letter of their id."""
    weights = {"drop": (0.0, 0), "weight": (0.5, 1), "copy": (1.0, 3)}
    rows: list[tuple[Any, ...]] = [
        (i, a, *weights.get(a, (1.0, 1)), "why", [])
        for i in ids
        for a in [actions.get(i[0], "keep")]
    ]
    return pl.DataFrame(rows, schema=PLAN, orient="row")


def revised_by(*runs: Mapping[str, int]) -> list[pl.LazyFrame]:
    """``REVISED_WEIGHTS`` of each run: the first pass in which it changed a sample's weight."""
    return [
        pl.LazyFrame(
            [(row[0], 1.0, run.get(row[0])) for row in SAMPLES],
            schema=REVISED_WEIGHTS,
            orient="row",
        )
        for run in runs
    ]


def tables_of(
    samples: Sequence[tuple[Any, ...]] = SAMPLES, text: str = "text of", num_quarantined: int = 0
) -> ReportTables:
    """Arms ``none`` and ``paper`` with seeds 1 and 2 on these samples."""
    ids = [row[0] for row in samples]
    has_canaries = any(row[4] for row in samples)
    canaries = [
        ("digits-0", "digits", "code is ", "12", "code is 12", 0),
        ("digits-1", "digits", "code is ", "34", "code is 34", 2),
    ]
    rates = {("none", 1): 0.5, ("none", 2): 0.25, ("paper", 1): 0.25, ("paper", 2): 0.25}
    losses = {("none", 1): 40.0, ("none", 2): 80.0, ("paper", 1): 50.0, ("paper", 2): 60.0}
    return ReportTables(
        corpus=corpus_of(samples, text),
        canaries=pl.DataFrame(canaries if has_canaries else [], schema=CANARIES, orient="row"),
        scores=pl.DataFrame(
            [(i, d, m, 1.0, False) for i, d, m, *_ in samples], schema=SCORES, orient="row"
        ).join(CAUSED, on="sample_id", how="left", maintain_order="left"),
        quadrants=pl.DataFrame(
            [(row[0], row[3], None) for row in samples], schema=QUADRANT_TABLE, orient="row"
        ),
        plans={"none": plan_of(ids), "paper": plan_of(ids, f="drop", c="weight", d="weight")},
        metrics={
            key: metrics_of(losses[key], rates[key] if has_canaries else None) for key in losses
        },
        scores_summary=ScoresSummary(
            mode="online",
            epsilon=1.25,
            num_checkpoints=11,
            num_early=3,
            num_samples=len(ids),
            num_seeds=1,
            num_never_learned=0,
            num_distinct_memorization=5,
            warnings=("said twice",),
        ),
        quadrants_summary=QuadrantsSummary(
            axis="memorization",
            difficulty_threshold=3.0,
            memorization_threshold=0.15,
            counts={q: sum(row[3] == q for row in samples) for q in QUADRANTS},
            num_unstable=None,
            warnings=("said twice",),
        ),
        num_quarantined=num_quarantined,
    )


def report_of(tables: ReportTables, params: Params) -> dict[str, Any]:
    """The content of report.json."""
    return to_json(build.build_report(tables, params))


Revised = Mapping[str, Sequence[pl.LazyFrame]]


def page_of(tables: ReportTables, params: Params, revised: Revised | None = None) -> str:
    """The HTML page; ``revised``: what the runs of some arms did, as ``revised_by`` returns it."""
    report = build.build_report(tables, params)
    return page.render_html(report, Pictures(), page_data_of(tables, params, revised or {}))


def page_data_of(
    tables: ReportTables, params: Params, revised: Revised = MappingProxyType({})
) -> PageData:
    """What the map and the table of texts on the page are made of; every loss curve is 3, 1."""
    frame = build.page_frame(build.build_report(tables, params), params)
    changed_none = {arm: revised_by(*[{}] * runs) for arm, runs in frame.arms.items() if runs}
    revised = {**changed_none, **revised}
    num_runs = {arm: len(runs) for arm, runs in revised.items()}
    frame = replace(frame, arms={**frame.arms, **num_runs})
    joined = {name: getattr(tables, name).lazy() for name in sample_table.JOINED}
    plans = {arm: tables.plans.get(arm, tables.plans["none"]).lazy() for arm in frame.arms}
    return page_data.page_data(
        sample_table.sample_table(joined, plans, revised),
        frame,
        lambda ids: pl.DataFrame({"sample_id": ids, "curve": [[3.0, 1.0]] * len(ids)}),
    )


def listed_texts(shown: str) -> dict[str, Any]:
    """The columns of the texts in a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="samples">(.*?)</script>', shown)
    assert found
    columns: dict[str, Any] = json.loads(found[1])["columns"]
    return columns


def frame_of(max_points: int = 100) -> MapFrame:
    """The frame that fits ``tables_of``."""
    return MapFrame("memorization", 3, 3.0, 0.15, max_points)


def printed(table: Table, width: int = 200) -> str:
    """A terminal table as plain text."""
    output = StringIO()
    Console(file=output, width=width).print(table)
    return output.getvalue()


def card_of(score: str, auroc: tuple[float, float, float] | None, verdict: Verdict) -> ScoreCard:
    """A card with this AUROC."""
    interval = None if auroc is None else Estimate(*auroc)
    return ScoreCard(
        score=score,
        cost="one run",
        may_be_axis=True,
        auroc_choose=0.875,
        auroc_report=interval,
        low_for_auto=None,
        precision=None,
        recall=interval,
        verdict=verdict,
        why="No canary is above the cut.",
    )


def calibration_of(*cards: ScoreCard, is_validated: bool) -> Calibration:
    """A calibration with these cards and a family whose name is markup."""
    return Calibration(
        families={
            EVIL: CanaryCounts(None, None, 0, why="it has no twins", role=None),
            "digits": CanaryCounts(8, 7, 20, why=None, role="report"),
        },
        num_memorized=8,
        num_unmemorized=7,
        cards=list(cards),
        auto=AutoAxis("iqr", is_validated=is_validated, reason="iqr is best."),
    )


HALF = (0.5, 0.25, 0.75)


def trace_with_heldout(sample_id: str, loss: float) -> Trace:
    """Two checkpoints of one held-out sample."""
    trace = trace_of({sample_id: [loss, loss]}, mode=params_of().score.mode)
    return replace(trace, heldout_index=trace.index, heldout_losses=trace.losses)


class FakeRun:
    """Remembers what a stage logs."""

    def __init__(self) -> None:
        self.metrics: dict[str, float | None] = {}
        self.artifacts: list[str] = []

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Remember numbers."""
        self.metrics |= metrics

    def log_artifact(self, path: Path) -> None:
        """Remember a file that exists."""
        assert path.exists()
        self.artifacts.append(str(path))


def audit_of(*, extracted: bool) -> pl.DataFrame:
    twin = {"canary_id": "digits-0", "num_repeats": 0, "edit_similarity": 0.0, "exposure": None}
    planted = {"canary_id": "digits-1", "num_repeats": 2, "extracted": extracted, "exposure": 1.0}
    return audit_table([twin, planted])


def membership_of(loss: float) -> pl.DataFrame:
    """Training sample ``c-0`` of the hotspots and the held-out one; the attack finds the first."""
    rows = [("c-0", True, 4, 1.0, 10, 1.0, True), ("y-0", False, 4, loss, 10, 9.0, False)]
    table = pl.DataFrame(rows, schema=MEMBERSHIP, orient="row")
    score = -pl.col("loss")
    return table.with_columns(
        zlib=score, min_k=score, min_k_plus_plus=score, length=4.0, zlib_size=9.0
    )


# The first model saw both; the second did not.
HALVES_OF_TWO = pl.DataFrame(
    {"sample_id": ["c-0", "y-0"], "seen": [[True, False]] * 2}, schema=HALVES
)


def reference_of(loss: float) -> pl.DataFrame:
    return HALVES_OF_TWO.select("sample_id", loss=pl.lit(loss, pl.Float32)).match_to_schema(
        REFERENCE_LOSS
    )


# Of six ordinary texts c, d, e and f are above the threshold; one in ten is the highest alone.
GAPS = Gaps(
    pl.DataFrame(
        {"sample_id": ["a-0", "b-0", "c-0", "d-0", "e-0"], "gap": [0.0, 0.1, 0.2, 0.3, 9.0]}
    ),
    num_models=2,
)
