"""The report against tables small enough to count by hand, and what must never stand in it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from plotly.offline import get_plotlyjs
from polars.testing import assert_frame_equal
from rich.console import Console
from rich.table import Table

from gdc.config import Params
from gdc.errors import DataError, SchemaError
from gdc.mapping.causes import CAUSES, REMEDIES
from gdc.mapping.spans import nothing_recorded
from gdc.recording.trace import Trace
from gdc.report import build, console, plots
from gdc.report.build import Pictures, ReportTables
from gdc.report.plots import MapFrame
from gdc.schema import (
    CANARIES,
    CORPUS,
    HALVES,
    MEMBERSHIP,
    PLAN,
    QUADRANT_TABLE,
    QUADRANTS,
    QUARANTINE,
    REFERENCE_LOSS,
    SCORES,
    SPANS,
)
from gdc.stages import report as stage
from gdc.workspace import files, paths, tables, tracking
from tests.builders import audit_table, params_with, trace_of, write_trace
from tests.report.test_console import arm as evidence_of

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
        intervene=base["intervene"] | {"recommend": target},
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


def metrics_of(perplexity: float, rate: float | None) -> dict[str, Any]:
    """What stage evaluate writes."""
    return {
        "heldout_loss": float(np.log(perplexity)),
        "perplexity": perplexity,
        "num_heldout_tokens": 1000,
        "num_steps": 10,
        "num_masked_tokens": 0,
        "extraction_rate": rate,
        "extraction": {} if rate is None else {"digits": {"0": 0.0, "2": rate}},
    }


def plan_of(ids: Sequence[str], **actions: str) -> pl.DataFrame:
    """A plan that keeps every sample but those in ``actions``, by the first letter of their id."""
    weights = {"drop": (0.0, 0), "weight": (0.5, 1), "copy": (1.0, 3)}
    rows: list[tuple[Any, ...]] = [
        (i, a, *weights.get(a, (1.0, 1)), "why", [])
        for i in ids
        for a in [actions.get(i[0], "keep")]
    ]
    return pl.DataFrame(rows, schema=PLAN, orient="row")


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
        scores_summary={
            "mode": "online",
            "epsilon": 1.25,
            "num_checkpoints": 11,
            "num_early": 3,
            "num_samples": len(ids),
            "num_seeds": 1,
            "num_never_learned": 0,
            "num_distinct_memorization": 5,
            "warnings": ["said twice"],
        },
        quadrants_summary={
            "axis": "memorization",
            "difficulty_threshold": 3.0,
            "memorization_threshold": 0.15,
            "counts": {q: sum(row[3] == q for row in samples) for q in QUADRANTS},
            "num_unstable": None,
            "warnings": ["said twice"],
        },
        num_quarantined=num_quarantined,
    )


def page_of(tables: ReportTables, params: Params) -> str:
    """The HTML page."""
    built = build.build_report(tables, params)
    points = build.map_points(tables, show_text=params.report.show_text)
    drawn = plots.interactive_map(points, build.map_frame(built))
    return build.render_html(built, Pictures(drawn))


def frame_of(max_points: int = 100) -> MapFrame:
    """The frame that fits ``tables_of``."""
    return MapFrame("memorization", 3, 3.0, 0.15, max_points)


def printed(table: Table, width: int = 200) -> str:
    """A terminal table as plain text."""
    output = StringIO()
    Console(file=output, width=width).print(table)
    return output.getvalue()


def test_rows_of_the_corpus_are_counted_with_canaries_apart() -> None:
    tables = tables_of([*ORDINARY, ("a-1", 2.0, 0.0, "stable-easy", None), *SAMPLES[6:]])
    assert build.build_report(tables, params_of())["corpus"] == {
        "num_samples": 9,
        "num_train": 7,
        "num_validation": 1,
        "num_reserved": 1,
        "num_exact_copies": 1,
        "num_canary_rows": 2,
        "num_quarantined": 0,
        "num_left_out": 0,
        "unread": {},
    }


def test_files_of_the_source_that_are_not_read_stand_on_the_page() -> None:
    unread = {"of kind text": {"num_files": 1, "first": ["d/<README>.md"]}}
    built = build.build_report(replace(tables_of(), unread=unread), params_of())
    expected = "Not read: 1 file of the source: 1 of kind text (d/<README>.md)."
    assert expected in built["summary"]
    page = build.render_html(built, build.Pictures(""))
    assert "Not read: 1 file of the source: 1 of kind text (d/&lt;README&gt;.md)." in page


def test_hotspots_come_first_then_by_score_then_the_easier_and_no_canary_is_listed() -> None:
    hotspots = build.build_report(tables_of(), params_of())["hotspots"]
    assert [row["sample_id"] for row in hotspots] == ["e-0", "d-0", "c-0", "f-0"]
    assert hotspots[0] == {
        "sample_id": "e-0",
        "source": "file:e-0",
        "difficulty": 1.0,
        "score": 0.3,
        "quadrant": "hotspot-memorized",
        "stability": None,
        "num_copies": 1,
        "cause": "secret",
        "duplicate_ids": [],
        "spans": [],
        "text": "text of e-0",
    }
    assert [row["duplicate_ids"] for row in hotspots[1:]] == [["c-0", "d-1"], ["d-0"], []]


def test_of_several_tracked_runs_the_page_says_which_samples_change_their_quadrant() -> None:
    tables = tables_of()
    assert "runs that agree" not in page_of(tables, params_of())
    several = replace(
        tables,
        quadrants=tables.quadrants.with_columns(stability=pl.lit(0.75)),
        quadrants_summary=tables.quadrants_summary | {"num_unstable": 5},
        scores_summary=tables.scores_summary | {"num_seeds": 4},
    )
    page = page_of(several, params_of())
    assert "runs that agree" in page
    assert '<td class="num">75 %</td>' in page
    assert "5 of " in page
    assert "samples lie in another quadrant in at least one of the 4 runs." in page


def test_causes_are_counted_by_precedence_without_canaries_and_bring_their_remedy() -> None:
    causes = build.build_report(tables_of(), params_of(num_hotspots=1))["causes"]
    assert [tuple(row.values()) for row in causes] == [
        ("secret", 1, 1, REMEDIES["secret"]),
        ("exact-copies", 0, 0, REMEDIES["exact-copies"]),
        ("near-copies", 2, 2, REMEDIES["near-copies"]),
        ("template", 1, 0, REMEDIES["template"]),
        ("none", 2, 1, REMEDIES["none"]),
    ]


def test_page_and_terminal_show_causes_duplicates_and_remedies() -> None:
    page = page_of(tables_of(), params_of()).replace(get_plotlyjs(), "")
    shown = printed(console.hotspots_table(build.build_report(tables_of(), params_of()), 2))
    for remedy in REMEDIES.values():
        assert str(escape(remedy)) in page
        assert remedy in " ".join(shown.split())
    assert '<td class="id">near-copies<br><code>c-0</code><br><code>d-1</code></td>' in page
    assert re.search(r"near-copies +text of d-0 *\n +duplicate c-0 *\n +duplicate d-1", shown)
    assert "near-copies (2): Near-dedup" in shown


def test_ids_of_duplicates_never_become_markup() -> None:
    tables = tables_of()
    evil = pl.col("duplicate_ids").list.eval(pl.lit(EVIL))
    page = page_of(
        replace(tables, scores=tables.scores.with_columns(duplicate_ids=evil)), params_of()
    )
    assert page.count("<script") == page_of(tables, params_of()).count("<script")
    assert str(escape(EVIL)) in page


def test_the_hotspot_list_has_the_length_asked_for() -> None:
    hotspots = build.build_report(tables_of(), params_of(num_hotspots=2))["hotspots"]
    assert [row["sample_id"] for row in hotspots] == ["e-0", "d-0"]


def test_planted_rows_are_counted_in_every_quadrant() -> None:
    assert build.build_report(tables_of(), params_of())["canaries_by_quadrant"] == {
        "digits/2": {
            "stable-easy": 1,
            "ambiguous-hard": 0,
            "hotspot-memorized": 1,
            "noisy-outlier": 0,
        }
    }


def test_arms_are_compared_seed_by_seed_and_then_averaged() -> None:
    none, paper = build.build_report(tables_of(), params_of())["arms"]
    per_seed = {"1": 40.0, "2": 80.0}
    assert none["perplexity"] == {"mean": pytest.approx(3200**0.5), "per_seed": per_seed}
    assert none["extraction_rate"] == {"mean": 0.375, "per_seed": {"1": 0.5, "2": 0.25}}
    assert (none["perplexity_ratio"], none["extraction_difference"]) == (1.0, 0.0)
    # 50/40 and 60/80: the ratio of the means would be 55/60.
    assert paper["perplexity_ratio"] == pytest.approx((1.25 * 0.75) ** 0.5)
    assert paper["extraction_difference"] == (-0.25 + 0.0) / 2
    assert paper["extraction"] == {"digits": {"0": 0.0, "2": 0.25}}
    assert paper["summary"] == (
        "paper: extraction 37.5 % -> 25 % (none -> paper, mean of 2 seeds), perplexity x0.97"
    )


def test_a_plan_is_counted_by_its_actions() -> None:
    built = build.build_report(tables_of(), params_of())
    counts = ("num_dropped", "num_weighted", "num_copied", "num_rows")
    assert [[arm[name] for name in counts] for arm in built["arms"]] == [[0, 0, 0, 8], [1, 2, 0, 7]]
    assert built["curated"]["actions"] == {"keep": 3, "weight": 2, "copy": 0, "mask": 0, "drop": 1}
    assert built["curated"]["by_quadrant"]["hotspot-memorized"] == {
        "keep": 1,
        "weight": 2,
        "copy": 0,
        "mask": 0,
        "drop": 0,
    }


def test_masked_samples_and_tokens_are_counted() -> None:
    tables = tables_of()
    ids = tables.scores["sample_id"].to_list()
    metrics = {
        (arm, seed): values | {"num_masked_tokens": 1234 if arm == "paper" else 0}
        for (arm, seed), values in tables.metrics.items()
    }
    plans = {**tables.plans, "paper": plan_of(ids, c="mask", d="mask")}
    masking = replace(tables, metrics=metrics, plans=plans)
    built = build.build_report(masking, params_of())
    assert [(arm["num_masked"], arm["num_masked_tokens"]) for arm in built["arms"]] == [
        (0, 0), (2, 1234)
    ]  # fmt: skip
    assert "masks spans of 2 and leaves 4 as they are." in built["summary"][2]
    assert not any("changes no sample" in warning for warning in built["warnings"])
    page = page_of(masking, params_of())
    assert "2 masked<br>" in page
    assert "1,234 tokens without loss" in page


def test_spans_are_underlined_and_escaped() -> None:
    shown = build.underlined("a<b>c & d", [{"start": 1, "end": 4}, {"start": 6, "end": 9}], 8)
    assert shown == "a<u>&lt;b&gt;</u>c <u>&amp; </u>"
    assert build.underlined("a<b", [{"start": 2, "end": 3}], 2) == "a&lt;"
    assert build.underlined("", [], 9) == ""


SPANNED = {"num_flagged": 4, "num_samples": 1, "num_spans": 1, "num_tokens": 3, "warnings": []}


def test_the_hotspot_list_underlines_what_is_memorized_where_text_may_be_shown() -> None:
    spans = pl.DataFrame([("e-0", 0, 4, 3, 2.0)], schema=SPANS, orient="row")
    tables = replace(tables_of(text=EVIL), spans=spans, spans_summary=SPANNED)
    page = page_of(tables, params_of())
    assert f"<u>{escape(EVIL[:4])}</u>{escape(EVIL[4:])} e-0" in page
    assert page.count("<script") == page_of(tables_of(), params_of()).count("<script")
    assert "3 tokens in 1 spans of 1 of 4 samples" in page
    hidden = page_of(tables, params_of(show_text=False))
    assert str(escape(EVIL[:4])) not in hidden.replace(get_plotlyjs(), "")


def test_that_no_token_loss_was_recorded_is_warned_of() -> None:
    table, summary = nothing_recorded()
    tables = replace(tables_of(), spans=table, spans_summary=summary.to_json())
    assert summary.warnings[0] in build.build_report(tables, params_of())["warnings"]
    assert "<u>" not in page_of(tables, params_of()).replace(get_plotlyjs(), "")


def test_possible_secrets_and_copies_are_listed_in_every_quadrant_and_each_text_once() -> None:
    mail = "Write to jane.roe@mail.org."
    tables = tables_of()
    # a-0 (stable-easy), b-0 (ambiguous-hard) and f-0 (noisy-outlier) have one text, c-0 another.
    same = pl.col("sample_id").is_in(["a-0", "b-0", "f-0", "g-0"])
    corpus = tables.corpus.with_columns(
        text=pl.when(same).then(pl.lit(mail)).otherwise("text"),
        content_id=pl.when(same).then(pl.lit("mail")).otherwise("content_id"),
        num_copies=pl.when(same).then(3).otherwise("num_copies"),
    )
    secret = same | (pl.col("sample_id") == "c-0")
    scores = tables.scores.with_columns(cause=pl.when(secret).then(pl.lit("secret")))
    built = build.build_report(replace(tables, corpus=corpus, scores=scores), params_of())
    lies = {"stable-easy": 1, "ambiguous-hard": 1, "noisy-outlier": 1}
    rows = {name: built[name]["listed"] for name in ("secrets", "copies")}
    assert [(row["sample_id"], row["num_copies"]) for row in rows["secrets"]] == [
        ("f-0", 3), ("c-0", 1)
    ]  # fmt: skip
    assert rows["secrets"][0]["kinds"] == ["e-mail"]
    assert rows["secrets"][0]["quadrants"] == lies
    assert [(row["sample_id"], row["quadrants"]) for row in rows["copies"]] == [("a-0", lies)]
    one = build.build_report(
        replace(tables, corpus=corpus, scores=scores), params_of(num_hotspots=1)
    )
    assert (one["secrets"]["num_texts"], len(one["secrets"]["listed"])) == (2, 1)
    page = page_of(replace(tables, corpus=corpus, scores=scores), params_of())
    assert "Possible secrets: 2 of 2 texts" in page
    assert "Exact copies: 1 of 1 texts" in page
    private = replace(tables, corpus=corpus, scores=scores), params_of(show_text=False)
    assert "jane.roe" not in page_of(*private) + json.dumps(build.build_report(*private))


def test_arms_keep_the_order_of_the_parameters() -> None:
    built = build.build_report(tables_of(), params_of(arms=["paper", "none"]))
    assert [arm["arm"] for arm in built["arms"]] == ["paper", "none"]
    assert built["baseline"] == "none"


def test_without_a_keeping_arm_nothing_is_compared() -> None:
    built = build.build_report(tables_of(), params_of(arms=["paper"]))
    (paper,) = built["arms"]
    assert (built["baseline"], paper["perplexity_ratio"]) == (None, None)
    assert paper["summary"] == "paper: extraction 25 %, perplexity 54.77 (mean of 2 seeds)"
    assert built["comparison"].startswith("No retrained arm keeps everything")


def test_without_canaries_extraction_is_unknown_and_not_zero() -> None:
    tables = tables_of(ORDINARY)
    built = build.build_report(tables, params_of())
    paper = built["arms"][1]
    assert built["canaries_by_quadrant"] == {}
    assert paper["extraction_rate"] == {"mean": None, "per_seed": {"1": None, "2": None}}
    assert (paper["extraction"], paper["extraction_difference"]) == ({}, None)
    assert paper["summary"] == (
        "paper: extraction not measured, perplexity x0.97 (against none, mean of 2 seeds)"
    )
    assert "No canary is planted, so extraction is not measured." in built["warnings"]
    assert "Extraction by family" not in page_of(tables, params_of())


def test_warnings_are_gathered_once_each() -> None:
    samples = [row for row in SAMPLES if row[3] != "ambiguous-hard"]
    assert build.build_report(tables_of(samples, num_quarantined=3), params_of())["warnings"] == [
        "said twice",
        "Quadrant ambiguous-hard is empty.",
        "3 bad rows left out: data/quarantine.parquet says why.",
        "2 seeds: too few to say much about other seeds.",
    ]


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([1], "1 seed: too few to say much about other seeds."),
        ([1, 2], "2 seeds: too few to say much about other seeds."),
        ([1, 2, 3], None),
    ],
)
def test_few_seeds_are_said_to_be_few(seeds: list[int], sentence: str | None) -> None:
    metrics = {(arm, s): metrics_of(50.0, 0.5) for arm in ("none", "paper") for s in seeds}
    built = build.build_report(replace(tables_of(), metrics=metrics), params_of(seeds=seeds))
    assert [w for w in built["warnings"] if "seed" in w] == ([sentence] if sentence else [])
    assert (sentence or ", then averaged.") in built["comparison"]


def test_an_arm_that_changes_nothing_and_guessed_twins_are_warned_of() -> None:
    tables = tables_of()
    guessed = metrics_of(50.0, 0.5) | {"extraction": {"digits": {"0": 0.25, "2": 0.5}}}
    tables = replace(
        tables,
        plans={**tables.plans, "paper": tables.plans["none"]},
        metrics={**tables.metrics, ("paper", 1): guessed, ("paper", 2): guessed},
    )
    warnings = build.build_report(tables, params_of())["warnings"]
    assert "Arm paper changes no sample: its differences are noise." in warnings
    assert any("paper: up to 25 % of never-planted twins" in warning for warning in warnings)


def test_samples_that_differ_between_tables_are_refused() -> None:
    tables = tables_of()
    with pytest.raises(DataError, match=r"expected the same samples .* 8 scored, 7 with.* gdc run"):
        build.build_report(replace(tables, quadrants=tables.quadrants[1:]), params_of())


def test_a_planted_canary_that_no_table_knows_is_refused() -> None:
    tables = tables_of()
    with pytest.raises(DataError, match=r"got 2 that are not, first digits-1"):
        build.build_report(replace(tables, canaries=tables.canaries[:1]), params_of())


def test_the_report_survives_json_and_then_gives_the_same_page() -> None:
    built = build.build_report(tables_of(), params_of())
    read_back = json.loads(json.dumps(built, sort_keys=True, allow_nan=False))
    assert read_back == built
    pages = [build.render_html(numbers, Pictures("map")) for numbers in (read_back, built)]
    assert pages[0] == pages[1]


def test_row_order_of_the_corpus_does_not_matter() -> None:
    tables = tables_of()
    shuffled = replace(tables, corpus=tables.corpus.sample(fraction=1, shuffle=True, seed=1))
    assert build.build_report(shuffled, params_of()) == build.build_report(tables, params_of())


def test_the_page_loads_nothing_carries_plotly_once_and_cannot_upload() -> None:
    page = page_of(tables_of(), params_of())
    assert page.count(get_plotlyjs()) == 1
    rest = page.replace(get_plotlyjs(), "")
    # A link may lead to a place in the page itself.
    assert not re.findall(r"""(?:src|href)\s*=(?!"#)|@import|url\(|https?:""", rest)
    assert '"showSendToCloud": false' in rest
    assert "default-src 'none'" in rest
    assert page == page_of(tables_of(), params_of())


def test_sample_text_never_becomes_markup() -> None:
    calm, evil = (page_of(tables_of(text=text), params_of()) for text in ("text of", EVIL))
    assert evil.count("<script") == calm.count("<script")
    assert evil.count("</script") == calm.count("</script")
    assert "<img" not in evil.replace(get_plotlyjs(), "")
    assert str(escape(EVIL)) in evil


def test_text_that_is_not_to_be_shown_stands_nowhere() -> None:
    tables, params = tables_of(text="private words"), params_of(show_text=False)
    built = build.build_report(tables, params)
    page = page_of(tables, params)
    assert "private words" not in json.dumps(built) + page + printed(
        console.hotspots_table(built, 9)
    )
    assert "e-0" in page
    assert "private words" in page_of(tables, params_of())


def test_a_long_text_is_cut_in_the_hover_and_folded_in_the_list() -> None:
    page = page_of(tables_of(text="word " * 1000), params_of())
    assert "<details><summary>word word" in page
    assert "(5,004 characters)" in page
    points = build.map_points(tables_of(text="wörd" * 1000), show_text=True)
    shown = re.findall(r"(?:wörd)+w?ö?r?…|(?:wörd)+", plots.interactive_map(points, frame_of()))
    assert max(map(len, shown)) <= 200


def test_an_empty_quadrant_and_one_seed_still_make_a_page() -> None:
    samples = [row for row in SAMPLES if row[3] in {"stable-easy", "ambiguous-hard"}]
    tables, params = tables_of(samples), params_of(seeds=[1])
    assert build.build_report(tables, params)["hotspots"] == []
    page = page_of(tables, params)
    assert "No ordinary training sample is above the threshold on memorization." in page
    assert "hotspot-memorized (0)" in page
    assert "mean of 1 seed)" in page


def test_the_map_counts_every_point_and_says_when_it_is_thinned() -> None:
    points = build.map_points(tables_of(), show_text=True)
    drawn = plots.interactive_map(points, frame_of(max_points=3)).replace(get_plotlyjs(), "")
    assert "3 of 8 training samples drawn" in drawn
    assert "planted canary (2)" in drawn
    assert "hotspot-memorized (3)" in drawn
    assert sum(f'"{i}"' in drawn for i in points["sample_id"]) == 3


@given(num=st.integers(1, 30), max_points=st.integers(1, 30), seed=st.integers(0, 99))
def test_thinning_keeps_a_subset_in_order_that_depends_on_ids_alone(
    num: int, max_points: int, seed: int
) -> None:
    points = pl.DataFrame({"sample_id": [f"s{i:02}" for i in range(num)]})
    kept = plots.thin(points, max_points)
    assert kept.height == min(num, max_points)
    assert kept["sample_id"].to_list() == sorted(set(kept["sample_id"]) & set(points["sample_id"]))
    shuffled = points.sample(fraction=1, shuffle=True, seed=seed)
    assert_frame_equal(plots.thin(shuffled, max_points).sort("sample_id"), kept)


@pytest.mark.parametrize(
    ("scores", "height"),
    [
        pytest.param([0.0, 0.5, 0.75, 0.5], 0.4 * 0.25, id="two fifths of the smallest gap"),
        pytest.param([0.5, 0.5], 0.0, id="one value has no gap"),
        pytest.param(list(range(26)), 0.0, id="many values need none"),
    ],
)
def test_jitter_never_mixes_two_values(scores: list[float], height: float) -> None:
    assert plots.jitter_height(pl.Series(scores, dtype=pl.Float64)) == height


def test_the_picture_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    points = build.map_points(tables_of(), show_text=False)
    for name in ("a.png", "b.png"):
        plots.data_map_png(points, frame_of(), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first


def test_terminal_tables_show_the_numbers() -> None:
    built = build.build_report(tables_of(), params_of())
    arms = printed(console.arms_table(built))
    assert re.search(r"paper .*drop 1, weight 2 .* 54\.77 .*x0\.968 .* 25 % .*-12\.5 pt", arms)
    assert "2 seeds: too few to say much about other seeds." in " ".join(arms.split())
    quadrants = printed(console.quadrants_table(built))
    assert re.search(
        r"hotspot-memorized .*memorization above 0\.15 .* 4 .*keep 1, weight 2", quadrants
    )
    hotspots = printed(console.hotspots_table(built, 1))
    assert "1 of 4 listed" in hotspots
    assert "text of e-0" in hotspots
    assert "d-0" not in hotspots


def test_terminal_text_carries_no_control_characters_and_no_markup() -> None:
    built = build.build_report(tables_of(text="[red]a\x1b[2J\nb\u202e"), params_of())
    shown = printed(console.hotspots_table(built, 9))
    assert "[red]a\N{REPLACEMENT CHARACTER}[2J b\N{REPLACEMENT CHARACTER} e-0" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["show"], "\u65e5\u672c \u0645\u06cc\u200c\u062e"),
        (["show", "--markdown"], "| paper |"),
        (
            ["recommend", "--max-extraction", "0.5", "--max-perplexity", "5"],
            "Extraction of at most",
        ),
        (["audit", "--model", "\u6a21\u578b", "--corpus", "\u8a9e.jsonl"], "\u8a9e.jsonl"),
        (["--help"], "recommend"),
    ],
)
def test_every_command_prints_in_any_encoding(
    encoding: str, command: list[str], expected: str, tmp_path: Path
) -> None:
    text = "\u65e5\u672c \u0645\u06cc\u200c\u062e " + "word " * 99
    built = build.build_report(tables_of(text=text), params_of())
    built |= {"calibration": {"verdict": text}}
    built |= {"evidence": {row["arm"]: evidence_of(0.5, None) for row in built["arms"]}}
    files.write_json(tmp_path / paths.REPORT, built)
    program = [sys.executable, "-c", "from gdc.cli import main; main()", *command]
    done = subprocess.run(
        program,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == (2 if command[0] == "audit" else 0), done.stdout
    escaped = expected.encode(encoding, errors="backslashreplace")
    # Typer takes ASCII for a mistake, and writes UTF-8.
    assert escaped in done.stdout or expected.encode() in done.stdout
    assert b"Traceback" not in done.stdout


def test_render_prints_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.render(console.quadrants_table(build.build_report(tables_of(), params_of())))
    assert "noisy-outlier" in capsys.readouterr().out


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


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A folder with everything that stage report reads; the run that it opens is returned."""
    monkeypatch.chdir(tmp_path)
    made = tables_of()
    for name in ("corpus", "canaries", "scores", "quadrants", "spans"):
        tables.write(name, getattr(made, name))
    tables.write("quarantine", pl.DataFrame(schema=QUARANTINE))
    tables.write_plans(made.plans)
    files.write_json(paths.SCORES_SUMMARY, made.scores_summary)
    files.write_json(paths.QUADRANTS_SUMMARY, made.quadrants_summary)
    files.write_json(paths.CALIBRATION, made.calibration)
    files.write_json(paths.SPANS_SUMMARY, made.spans_summary)
    for (arm, seed), metrics in made.metrics.items():
        files.write_json(paths.metrics_path(arm, seed), metrics)
    for arm, seed in made.metrics:
        tables.write_audit(arm, seed, audit_of(extracted=arm == "none"))
        tables.write_membership(arm, seed, membership_of(loss=2.0 if arm == "none" else 2.5))
    files.write_json(paths.CORPUS_SUMMARY, {"num_left_out": 0, "unread": {}})
    write_trace(params_of().train.seeds[0], trace_with_heldout("y-0", 4.0))
    tables.write("halves", HALVES_OF_TWO)
    for number, loss in enumerate((0.5, 3.0)):
        tables.write_reference(number, reference_of(loss))
    # JSON is YAML.
    files.write_json(paths.PARAMS, params_of().model_dump(mode="json"))
    fake = FakeRun()

    @contextmanager
    def stage_run(stage: str, params: Mapping[str, Any]) -> Iterator[FakeRun]:
        assert (stage, sorted(params)) == ("report", sorted(build.SECTIONS))
        yield fake

    monkeypatch.setattr(tracking, "stage_run", stage_run)
    return fake


def test_the_stage_writes_and_logs_its_files(workspace: FakeRun) -> None:
    stage.main()
    names = [
        "report.json", "report.html", "data_map.png", "roc.png", "leakage.png", "front.png",
    ]  # fmt: skip
    expected = [f"reports/{name}" for name in names]
    assert workspace.artifacts == expected
    assert {name: n for name, n in workspace.metrics.items() if n is not None} == {
        "none/perplexity": pytest.approx(3200**0.5),
        "none/extraction_rate": 0.375,
        "paper/perplexity": pytest.approx(3000**0.5),
        "paper/extraction_rate": 0.25,
        "quadrants/hotspot-memorized/auc": 1.0,
        "quadrants/hotspot-memorized/extracted": 1.0,
        "deciles/6/auc": 1.0,
        "deciles/6/extracted": 1.0,
    }
    built = files.read_json(Path(expected[0]))
    audited = ("evidence", "groups", "attacks", "leaked_samples", "num_leaked", "warnings",
               "front", "onion")  # fmt: skip
    plain = build.build_report(tables_of(), params_of())
    assert {k: v for k, v in built.items() if k not in audited} == {
        k: v for k, v in plain.items() if k not in audited
    }
    assert built["leaked_samples"] == [
        {
            "sample_id": "c-0",
            "num_suffix_tokens": 10,
            "num_models": 2,
            "quadrant": "hotspot-memorized",
            "source": "file:c-0",
        }
    ]
    paper = built["evidence"]["paper"]
    assert paper["extraction_change"] == {"value": -1.0, "low": -1.0, "high": -1.0, "num_seeds": 2}
    assert paper["perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert paper["rare_perplexity_ratio"]["value"] == pytest.approx(np.exp(0.5))
    assert paper["verdict"] == (
        "paper reduces extraction: -100.0 points [-100.0, -100.0] at perplexity x1.649 "
        "[1.649, 1.649], 2 seeds; no random arm of its size to compare with."
    )
    assert [(p["arm"], p["num_changed"], p["is_on_front"]) for p in built["front"]] == [
        ("none", 0, True),
        ("paper", 3, True),
    ]
    page = Path(expected[1]).read_text(encoding="utf-8")
    assert "paper reduces extraction" in page
    assert page.replace(get_plotlyjs(), "").count('src="data:image/png;base64,') == 3
    before = [Path(file).read_bytes() for file in expected]
    stage.main()
    assert [Path(file).read_bytes() for file in expected] == before


def card_of(score: str, auroc: tuple[float, float, float] | None, verdict: str) -> dict[str, Any]:
    interval = None if auroc is None else dict(zip(("value", "low", "high"), auroc, strict=True))
    return {
        "score": score,
        "cost": "one run",
        "auroc_choose": 0.875,
        "auroc_report": interval,
        "precision": None,
        "recall": interval,
        "verdict": verdict,
        "why": "No canary is above the cut.",
    }


def calibration_of(*cards: dict[str, Any], is_validated: bool) -> dict[str, Any]:
    counts = {"num_memorized": 8, "num_unmemorized": 7}
    unknown = {"num_memorized": None, "num_unmemorized": None}
    return {
        "families": {
            EVIL: unknown | {"num_twins": 0, "role": None, "why": "it has no twins"},
            "digits": counts | {"num_twins": 20, "role": "report", "why": None},
        },
        **counts,
        "cards": list(cards),
        "auto": {"axis": "iqr", "is_validated": is_validated, "reason": "iqr is best."},
    }


HALF = (0.5, 0.25, 0.75)


@pytest.mark.parametrize(
    ("auroc", "verdict", "sentence", "warns"),
    [
        pytest.param(
            HALF, "not shown",
            "Axis memorization is not shown to predict memorization here: AUROC 0.50 [0.25, 0.75] "
            "of 8 memorized against 7 other canaries.", True, id="not shown",
        ),
        pytest.param(
            (0.25, 0.0, 0.5), "does not",
            "Axis memorization does not predict memorization here: AUROC 0.25 [0.00, 0.50] of "
            "8 memorized against 7 other canaries.", True, id="does not",
        ),
        pytest.param(
            (0.75, 0.625, 1.0), "predicts memorization here",
            "Axis memorization predicts memorization here: AUROC 0.75 [0.62, 1.00] of "
            "8 memorized against 7 other canaries.", False, id="predicts",
        ),
        pytest.param(
            None, "not shown",
            "Axis memorization is not shown to predict memorization here: No canary is above the "
            "cut.", True, id="no answer",
        ),
    ],
)  # fmt: skip
def test_the_page_says_what_the_axis_is_worth(
    auroc: tuple[float, float, float] | None, verdict: str, sentence: str, *, warns: bool
) -> None:
    cards = [card_of("iqr", HALF, "not shown"), card_of("memorization", auroc, verdict)]
    tables = replace(tables_of(), calibration=calibration_of(*cards, is_validated=True))
    built = build.build_report(tables, params_of())
    assert built["calibration"]["verdict"] == sentence
    assert built["calibration"]["why"] == "partition.axis names memorization. auto would take iqr."
    assert (sentence in built["warnings"]) == warns
    page = page_of(tables, params_of()).replace(get_plotlyjs(), "")
    assert str(escape(sentence)) in page
    assert '<td class="name">memorization (axis)</td>' in page
    assert f"<td>{verdict}<span" in page
    assert EVIL not in page
    assert 'it has no twins</td><td class="num">-</td><td class="num">-</td>' in page


def test_with_auto_the_page_says_why_and_does_not_warn_twice() -> None:
    card = card_of("memorization", HALF, "not shown")
    tables = replace(tables_of(), calibration=calibration_of(card, is_validated=False))
    partition = params_with().partition.model_dump(mode="json") | {"axis": "auto"}
    params = params_of().model_copy(
        update={"partition": params_with(partition=partition).partition}
    )
    built = build.build_report(tables, params)
    assert built["calibration"]["why"] == "partition.axis is auto. iqr is best."
    assert built["calibration"]["verdict"] not in built["warnings"]


def test_what_makes_the_audits_doubtful_is_warned_of() -> None:
    canaries = {"levels": [], "num_fits_beyond": 3, "planted": {"extracted": None}}
    evidence = {"none": {"canaries": canaries, "samples": {"attack": "loss"}}}
    tables = replace(tables_of(), evidence=evidence, attacks={"blind_leaks": ["length"]})
    built = build.build_report(tables, params_of())
    assert [w for w in built["warnings"] if "length" in w or "bits" in w] == [
        "length alone tells members from held-out texts: membership attacks may see how the texts "
        "differ and not what a model remembers.",
        "Fitted exposures more than 15 bits beyond what the twins resolve (none 3) count as 15: a "
        "fit says no more there.",
    ]


@pytest.mark.usefixtures("workspace")
def test_the_stage_names_a_missing_file() -> None:
    paths.metrics_path("paper", 2).unlink()
    with pytest.raises(SchemaError, match=r"metrics/paper-2\.json: not found"):
        stage.main()


def test_the_page_names_the_plan_that_reaches_the_target(workspace: FakeRun) -> None:
    target = {"max_extraction": 0.5, "max_perplexity_increase": 70.0}
    files.write_json(paths.PARAMS, params_of(target=target).model_dump(mode="json"))
    stage.main()
    built = files.read_json(paths.REPORT)
    found = built["recommendation"]
    # One canary that is not extracted may be extracted all the same in up to 97.5 %.
    assert (found["verdict"], found["arm"], found["target"]) == ("on average", "paper", target)
    page = paths.PAGE.read_text(encoding="utf-8")
    assert found["sentence"] in page.replace("&#39;", "'")
    assert "not dominated" in page
    assert console.findings(built)[0] == found["sentence"]
    assert "reports/front.png" in workspace.artifacts


def test_without_canaries_a_target_is_not_answered() -> None:
    target = {"max_extraction": 0.5, "max_perplexity_increase": 5.0}
    params = params_of(target=target)
    built = build.build_report(tables_of(ORDINARY), params)
    assert (built["front"], built["recommendation"]["verdict"]) == ([], "not measured")
    assert built["recommendation"]["sentence"] in page_of(tables_of(ORDINARY), params).replace(
        "&#39;", "'"
    )
    assert "Leakage against perplexity" not in page_of(tables_of(), params_of())


@pytest.mark.usefixtures("workspace")
def test_what_an_arm_leaves_alone_is_compared_by_its_gap_to_the_references() -> None:
    tables.write_plans({"none": plan_of(["c-0"]), "paper": plan_of(["c-0", "f-0"], f="drop")})
    read = stage.with_evidence(stage.read_tables(params_of()), params_of())
    (arm,) = read.onion["arms"]
    assert read.onion["has_references"]
    # The second model alone did not see it: 3 - 1.
    assert (read.onion["cut"], read.onion["quantile"]) == (2.0, 0.9)
    assert (arm["arm"], arm["control"], arm["num_unchanged"]) == ("paper", None, 1)
    assert (arm["change"]["value"], arm["next_layer"]["value"]) == (0.0, 0.0)
    page = page_of(replace(tables_of(), onion=read.onion), params_of())
    assert str(escape(arm["verdict"])) in page
    assert "With equal optimizer steps the samples that stay are seen more often" in page
    assert "mean loss under the reference models" in page
    built = build.build_report(replace(tables_of(), onion=read.onion), params_of())
    assert console.findings(built) == ["After the removal: paper not compared."]


@pytest.mark.usefixtures("workspace")
def test_without_a_keeping_arm_or_a_removal_there_is_no_next_layer() -> None:
    alone = params_of(arms=["paper"])
    assert stage.with_evidence(stage.read_tables(alone), alone).onion == {}
    tables.write_plans({arm: plan_of(["c-0"]) for arm in ("none", "paper")})
    assert stage.with_evidence(stage.read_tables(params_of()), params_of()).onion == {}
    assert console.findings(build.build_report(tables_of(), params_of())) == []
