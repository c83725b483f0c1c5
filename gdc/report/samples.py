"""Scored samples -> the lists and counts of samples in the report."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

import polars as pl

from gdc.config import Params
from gdc.mapping.causes import REMEDIES, secret_kinds
from gdc.report.model import (
    ActionCounts,
    CauseCount,
    CorpusCounts,
    CuratedCounts,
    GapCheck,
    Hotspot,
    LeakedSample,
    ListedText,
    ListedTexts,
    MemorizedTexts,
)
from gdc.report.tables import Gaps, ReportTables
from gdc.schema import FLAGGED, QUADRANTS
from gdc.statistics.bootstrap import Estimate, share_interval

# Of the ordinary texts, by the gap of half-models: those that count as memorized for certain.
_TOP_SHARE: Final = 0.1
# What a plan may do to a sample of a data set; in training it may do more.
DATA_ACTIONS: Final = ("keep", "weight", "copy", "mask", "drop")
ACTIONS: Final = (*DATA_ACTIONS, "early", "live", "private")


def count_corpus(tables: ReportTables) -> CorpusCounts:
    """Count rows, planted canaries separately, and files that are not read."""
    planted = pl.col("canary_id").is_not_null()
    ordinary = tables.corpus.filter(~planted)
    split = ordinary["split"]
    return CorpusCounts(
        num_samples=ordinary.height,
        num_train=int((split == "train").sum()),
        num_validation=int((split == "validation").sum()),
        num_reserved=int((split == "reserved").sum()),
        num_exact_copies=ordinary.height - ordinary["content_id"].n_unique(),
        num_canary_rows=tables.corpus.height - ordinary.height,
        num_quarantined=tables.num_quarantined,
        num_left_out=tables.num_left_out,
        unread=dict(tables.unread),
    )


def list_hotspots(tables: ReportTables, params: Params) -> list[Hotspot]:
    """Ordinary samples above the memorization threshold, the quadrant of hotspots first."""
    hotspot = pl.col("quadrant") == "hotspot-memorized"
    rows = tables.with_texts(
        tables.scored_samples.filter(pl.col("canary").is_null() & _is_hot())
        .sort(hotspot, "score", "difficulty", "sample_id", descending=[True, True, False, False])
        .head(params.report.num_hotspots)
    )
    rows = rows.with_columns(text=_text(params)).select(list(Hotspot.model_fields))
    return [Hotspot.model_validate(row) for row in rows.to_dicts()]


def count_memorized(samples: pl.DataFrame, gaps: Gaps | None) -> MemorizedTexts:
    """Count distinct ordinary texts above the threshold, by cause, and ask the half-models.

    Args:
        samples: Of ``ReportTables.scored_samples``.
        gaps: What half-models say of the training samples; None: there are none to ask.
    """
    ordinary = samples.filter(pl.col("canary").is_null())
    planted = samples.filter(pl.col("canary").is_not_null() & _is_hot())
    texts = ordinary.filter(_is_hot()).unique("content_id", keep="first", maintain_order=True)
    counts = Counter(texts["cause"])
    return MemorizedTexts(
        num_texts=texts.height,
        num_samples=ordinary.filter(_is_hot()).height,
        causes={cause: counts[cause] for cause in REMEDIES if counts[cause]},
        gap_check=None if gaps is None else _check_gaps(ordinary, texts, gaps),
        num_planted_rows=planted.height,
        num_canaries=planted["canary_id"].n_unique(),
    )


def _check_gaps(ordinary: pl.DataFrame, listed: pl.DataFrame, gaps: Gaps) -> GapCheck | None:
    """None where no listed text has a gap."""
    distinct = ordinary.unique("content_id", keep="first", maintain_order=True)
    known = distinct.join(gaps.table, on="sample_id", maintain_order="left").drop_nulls("gap")
    cut = known["gap"].quantile(1 - _TOP_SHARE, "linear")
    is_listed = pl.col("content_id").is_in(listed["content_id"].to_list())
    confirmed = (known.filter(is_listed)["gap"] > cut).to_numpy()
    if not len(confirmed):
        return None
    share = share_interval([confirmed], seed=0)
    return GapCheck(
        num_models=gaps.num_models,
        num_texts=len(confirmed),
        num_confirmed=int(confirmed.sum()),
        precision=Estimate(share.value, share.low, share.high),
    )


def list_secrets(tables: ReportTables, params: Params) -> ListedTexts:
    """Ordinary texts that may hold a secret, each once: most copies first, then by score."""
    secret = tables.scored_samples.filter(
        pl.col("canary").is_null(), pl.col("cause") == "secret"
    ).sort("num_copies", "score", "sample_id", descending=[True, True, False])
    return _list_once(secret, tables, params)


def list_copies(tables: ReportTables, params: Params) -> ListedTexts:
    """Ordinary texts with exact copies, each once: most copies first."""
    copied = tables.scored_samples.filter(
        pl.col("canary").is_null(), pl.col("num_copies") > 1
    ).sort("num_copies", "sample_id", descending=[True, False])
    return _list_once(copied, tables, params)


def count_causes(samples: pl.DataFrame) -> list[CauseCount]:
    """By precedence: ordinary samples with each cause, in all and above the threshold."""
    ordinary = samples.filter(pl.col("canary").is_null())
    num_samples = Counter(ordinary["cause"])
    num_hotspots = Counter(ordinary.filter(_is_hot())["cause"])
    return [
        CauseCount(
            cause=cause,
            num_samples=num_samples[cause],
            num_hotspots=num_hotspots[cause],
            remedy=remedy,
        )
        for cause, remedy in REMEDIES.items()
    ]


def count_canaries(samples: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Planted rows by family/times planted and quadrant."""
    planted = samples.drop_nulls("canary")
    counts = Counter(planted.select("canary", "quadrant").iter_rows())
    return {
        canary: {quadrant: counts[canary, quadrant] for quadrant in QUADRANTS}
        for canary in sorted(set(planted["canary"]))
    }


def count_curated(
    samples: pl.DataFrame, plans: Mapping[str, pl.DataFrame], arm: str
) -> CuratedCounts:
    """What the curated arm does to ordinary training text, by quadrant too, and to canaries."""
    is_ordinary = pl.col("canary").is_null()
    all_planned = samples.join(plans[arm], on="sample_id")
    planned, planted = all_planned.filter(is_ordinary), all_planned.filter(~is_ordinary)
    counts = Counter(planned.select("quadrant", "action").iter_rows())
    in_all = {action: sum(counts[q, action] for q in QUADRANTS) for action in DATA_ACTIONS}
    of_planted = Counter(planted["action"])
    return CuratedCounts(
        arm=arm,
        num_samples=planned.height,
        actions=ActionCounts(**in_all),
        by_quadrant={
            quadrant: ActionCounts(**{action: counts[quadrant, action] for action in DATA_ACTIONS})
            for quadrant in QUADRANTS
        },
        planted=ActionCounts(**{action: of_planted[action] for action in DATA_ACTIONS}),
    )


def list_leaked(tables: ReportTables, params: Params) -> list[LeakedSample]:
    """Training samples that come out verbatim, with their quadrant, the longest first."""
    rows = (
        tables.leaked.join(
            tables.quadrants.select("sample_id", "quadrant"), on="sample_id", maintain_order="left"
        )
        .join(tables.corpus.select("sample_id", "source"), on="sample_id", maintain_order="left")
        .head(params.report.num_hotspots)
    )
    return [LeakedSample.model_validate(row) for row in rows.to_dicts()]


def _list_once(samples: pl.DataFrame, tables: ReportTables, params: Params) -> ListedTexts:
    """The first sample of each text, and in which quadrants its copies lie."""
    texts = samples.unique("content_id", keep="first", maintain_order=True)
    listed = tables.with_texts(texts.head(params.report.num_hotspots))
    kinds = [secret_kinds(text) for text in listed["text"]]
    quadrants = [
        Counter(samples.filter(pl.col("content_id") == content)["quadrant"])
        for content in listed["content_id"]
    ]
    columns = ("sample_id", "source", "num_copies", "spans", "text")
    rows = listed.with_columns(text=_text(params)).select(columns).to_dicts()
    return ListedTexts(
        num_texts=texts.height,
        listed=[
            ListedText(**row, kinds=found, quadrants=dict(counts))
            for row, found, counts in zip(rows, kinds, quadrants, strict=True)
        ],
    )


def _text(params: Params) -> pl.Expr:
    """The text where the report may show it, else null."""
    return pl.col("text") if params.report.show_text else pl.lit(None, pl.String)


def _is_hot() -> pl.Expr:
    """Whether a sample is above the memorization threshold."""
    return pl.col("quadrant").is_in(FLAGGED)
