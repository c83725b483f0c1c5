"""Table of all samples and traces -> the map and the table of texts of the page, as JSON."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self

import polars as pl
from markupsafe import Markup

from gdc.config import ReportConfig
from gdc.filesystem.json_values import JsonObject
from gdc.mapping.causes import REMEDIES
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.report.plots import COLOURS, difficulty_label, score_label
from gdc.report.sample_table import action_of, changed_of, scores_of
from gdc.report.samples import ACTIONS
from gdc.report.words import meaning_of
from gdc.schema import FLAGGED, QUADRANTS
from gdc.statistics.hashing import hash_order

# Characters of all texts on the page together, and of one text.
_MAX_CHARS: Final = 20_000_000
_MAX_TEXT: Final = 4000
# Points beyond which a map of vectors takes a browser seconds.
_MAX_VECTORS: Final = 3000
_ESCAPES: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class PageFrame:
    """What the page needs beside the samples.

    Attributes:
        axis: The score on the memorization axis.
        num_early: Checkpoints averaged into difficulty.
        cuts: Thresholds by score.
        arms: Those with a plan, and how many runs of each chose weights themselves.
        max_texts: Texts on the page at most.
        show_text: Whether texts may stand on the page.
    """

    axis: str
    num_early: int
    cuts: Mapping[str, float]
    arms: Mapping[str, int]
    max_texts: int
    show_text: bool

    @classmethod
    def of(
        cls,
        quadrants: QuadrantsSummary,
        num_early: int,
        arms: Mapping[str, Sequence[int]],
        shown: ReportConfig,
    ) -> Self:
        """The axes and thresholds of the quadrants, what may be shown, and ``revising_seeds``."""
        return cls(
            axis=quadrants.axis,
            num_early=num_early,
            cuts={
                "difficulty": quadrants.difficulty_threshold,
                quadrants.axis: quadrants.memorization_threshold,
            },
            arms={arm: len(seeds) for arm, seeds in arms.items()},
            max_texts=shown.max_points,
            show_text=shown.show_text,
        )


@dataclass(frozen=True)
class PageData:
    """The texts of the page as JSON, and how many distinct ordinary texts there are, and where."""

    content: JsonObject
    num_by_quadrant: Mapping[str, int]
    num_by_cause: Mapping[str, tuple[int, int]]  # above the threshold, and in all
    is_large: bool  # drawn by WebGL, whose code plotly.js makes while it runs


def to_script(content: JsonObject) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))  # noqa: S704 - escaped in the line itself


def page_data(
    samples: pl.LazyFrame, frame: PageFrame, curves_of: Callable[[pl.Series], pl.DataFrame]
) -> PageData:
    """Gather the training texts, each once.

    Copies of a text are one row: that of the copy with the highest score. Where there are more than
    the page may hold, those above the threshold go first and the rest is drawn by a hash.

    Args:
        samples: ``SAMPLES`` table.
        frame: What the page needs beside it.
        curves_of: Returns ``sample_id`` and ``curve`` of some ids; see ``sample_curves``.
    """
    trained = samples.filter(pl.col("split") == "train")
    scores = scores_of(samples)
    texts = distinct_texts(trained, frame.axis)
    ordinary = texts.filter(pl.col("canary").is_null())
    counts = dict(ordinary["quadrant"].value_counts().iter_rows())
    shown = _first(texts, frame.max_texts)
    rows = _with_texts(shown, trained, frame).join(
        curves_of(shown["sample_id"]), on="sample_id", how="left", maintain_order="left"
    )
    is_large = rows.height > _MAX_VECTORS
    return PageData(
        content={
            **page_words(frame, scores),
            # Under this name a browser keeps the marks of these texts.
            "digest": blake2b("".join(rows["sample_id"]).encode(), digest_size=8).hexdigest(),
            "isLarge": is_large,
            "numTexts": ordinary.height,
            "numShown": int(shown["canary"].is_null().sum()),
            "columns": _columns(rows, frame, scores),
        },
        num_by_quadrant={quadrant: counts.get(quadrant, 0) for quadrant in QUADRANTS},
        num_by_cause=_count_causes(ordinary),
        is_large=is_large,
    )


def distinct_texts(samples: pl.LazyFrame, axis: str) -> pl.DataFrame:
    """One row for each text, planted ones apart: the copy with the highest score, and all ids."""
    return (
        samples.select("sample_id", "content_id", "canary", "quadrant", "cause", axis)
        .sort(axis, "sample_id", descending=[True, False], nulls_last=True)
        .group_by("content_id", "canary", maintain_order=True)
        .agg(
            pl.col("sample_id", "quadrant", "cause").first(),
            ids=pl.col("sample_id"),
        )
        .collect(engine="streaming")
    )


def _count_causes(texts: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """Texts above the threshold and in all, by cause in order of precedence; no cause without."""
    flagged = Counter(texts.filter(pl.col("quadrant").is_in(FLAGGED))["cause"])
    in_all = Counter(texts["cause"])
    return {cause: (flagged[cause], in_all[cause]) for cause in REMEDIES if in_all[cause]}


def page_words(frame: PageFrame, scores: Sequence[str]) -> JsonObject:
    """Names, labels and colours that the page shows, whatever the samples."""
    return {
        "axis": frame.axis,
        "cuts": dict(frame.cuts),
        "scores": [
            {"name": name, "label": _label(name, frame), "title": meaning_of(name)}
            for name in scores
        ],
        "arms": [
            {"name": arm, "column": action_of(arm), "runs": runs}
            for arm, runs in frame.arms.items()
        ],
        "actions": list(ACTIONS),
        "quadrants": list(QUADRANTS),
        "colours": dict(COLOURS),
        "remedies": dict(REMEDIES),
        "showText": frame.show_text,
    }


def _label(score: str, frame: PageFrame) -> str:
    return difficulty_label(frame.num_early) if score == "difficulty" else score_label(score)


def _first(texts: pl.DataFrame, max_texts: int) -> pl.DataFrame:
    """At most ``max_texts`` rows: those above the threshold first, then by a hash of their ids."""
    if texts.height <= max_texts:
        return texts
    draws = hash_order(texts["sample_id"].to_list(), seed=0, purpose="data map")
    flagged = pl.col("quadrant").is_in(FLAGGED) & pl.col("canary").is_null()
    return (
        texts.with_columns(draw=pl.Series(draws, dtype=pl.UInt64))
        .sort(flagged, "draw", "sample_id", descending=[True, False, False])
        .head(max_texts)
        .drop("draw")
    )


def _with_texts(shown: pl.DataFrame, samples: pl.LazyFrame, frame: PageFrame) -> pl.DataFrame:
    """Add what the samples say of these rows."""
    max_chars = min(_MAX_TEXT, max(200, _MAX_CHARS // max(1, shown.height)))
    # Joined with nothing, as a mere part of a text would keep the memory of the whole.
    first_chars = pl.concat_str(pl.col("text").str.head(max_chars), pl.lit(""))
    text = first_chars if frame.show_text else pl.lit(None, pl.String)
    more = samples.with_columns(text=text, num_chars=pl.col("text").str.len_chars()).drop(
        "content_id", "canary", "quadrant", "cause"
    )
    found = shown.lazy().join(more, on="sample_id", how="left", maintain_order="left")
    return found.collect(engine="streaming")


def _columns(rows: pl.DataFrame, frame: PageFrame, scores: Sequence[str]) -> JsonObject:
    draws = hash_order(rows["sample_id"].to_list(), seed=0, purpose="jitter")
    numbers = rows.select(pl.col(scores).cast(pl.Float64)).select(
        pl.when(pl.col(name).is_finite()).then(pl.col(name).round_sig_figs(6)).alias(name)
        for name in scores
    )
    spans = [[[s["start"], s["end"]] for s in found] for found in rows["spans"].to_list()]
    return {
        "ids": rows["ids"].to_list(),
        "copies": rows["ids"].list.len().to_list(),
        "text": rows["text"].to_list(),
        "chars": rows["num_chars"].to_list(),
        "source": rows["source"].to_list(),
        "canary": rows["canary"].to_list(),
        "cause": rows["cause"].to_list(),
        "quadrant": [QUADRANTS.index(quadrant) for quadrant in rows["quadrant"]],
        "spans": spans,
        "curve": rows["curve"].to_list(),
        "jitter": [round(draw / 2.0**64, 3) for draw in draws],
        "scores": {name: numbers[name].to_list() for name in scores},
        "actions": {
            arm: [ACTIONS.index(action) for action in rows[action_of(arm)]] for arm in frame.arms
        },
        "revised": {
            arm: list(zip(*(rows[name] for name in changed_of(arm)), strict=True))
            for arm, runs in frame.arms.items()
            if runs
        },
    }
