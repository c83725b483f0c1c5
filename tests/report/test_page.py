"""The page: what stands on it, and what must never."""

import json
import re
from dataclasses import replace

import polars as pl
from markupsafe import escape
from plotly.offline import get_plotlyjs

from gdc.mapping.causes import REMEDIES
from gdc.mapping.spans import SpansSummary
from gdc.report import build, console, page, plots
from gdc.report.model import TextSpan, UnreadFiles, to_json
from gdc.report.page import Pictures
from gdc.schema import (
    SPANS,
)
from tests.report.builders import (
    EVIL,
    SAMPLES,
    frame_of,
    page_of,
    params_of,
    printed,
    report_of,
    tables_of,
)


def test_files_of_the_source_that_are_not_read_stand_on_the_page() -> None:
    unread = {"of kind text": UnreadFiles(num_files=1, first=["d/<README>.md"])}
    built = build.build_report(replace(tables_of(), unread=unread), params_of())
    expected = "Not read: 1 file of the source: 1 of kind text (d/<README>.md)."
    assert expected in built.summary
    shown = page.render_html(built, Pictures(""))
    assert "Not read: 1 file of the source: 1 of kind text (d/&lt;README&gt;.md)." in shown


def test_of_several_tracked_runs_the_page_says_which_samples_change_their_quadrant() -> None:
    tables = tables_of()
    assert "runs that agree" not in page_of(tables, params_of())
    several = replace(
        tables,
        quadrants=tables.quadrants.with_columns(stability=pl.lit(0.75)),
        quadrants_summary=replace(tables.quadrants_summary, num_unstable=5),
        scores_summary=replace(tables.scores_summary, num_seeds=4),
    )
    shown = page_of(several, params_of())
    assert "runs that agree" in shown
    assert '<td class="num">75 %</td>' in shown
    assert "5 of " in shown
    assert "samples lie in another quadrant in at least one of the 4 runs." in shown


def test_page_and_terminal_show_causes_duplicates_and_remedies() -> None:
    shown = page_of(tables_of(), params_of()).replace(get_plotlyjs(), "")
    terminal = printed(console.hotspots_table(build.build_report(tables_of(), params_of()), 2))
    for remedy in REMEDIES.values():
        assert str(escape(remedy)) in shown
        assert remedy in " ".join(terminal.split())
    assert '<td class="id">near-copies<br><code>c-0</code><br><code>d-1</code></td>' in shown
    assert re.search(r"near-copies +text of d-0 *\n +duplicate c-0 *\n +duplicate d-1", terminal)
    assert "near-copies (2): Near-dedup" in terminal


def test_ids_of_duplicates_never_become_markup() -> None:
    tables = tables_of()
    evil = pl.col("duplicate_ids").list.eval(pl.lit(EVIL))
    shown = page_of(
        replace(tables, scores=tables.scores.with_columns(duplicate_ids=evil)), params_of()
    )
    assert shown.count("<script") == page_of(tables, params_of()).count("<script")
    assert str(escape(EVIL)) in shown


def test_spans_are_underlined_and_escaped() -> None:
    shown = page.underlined("a<b>c & d", [TextSpan(start=1, end=4), TextSpan(start=6, end=9)], 8)
    assert shown == "a<u>&lt;b&gt;</u>c <u>&amp; </u>"
    assert page.underlined("a<b", [TextSpan(start=2, end=3)], 2) == "a&lt;"
    assert page.underlined("", [], 9) == ""


SPANNED = SpansSummary(num_flagged=4, num_samples=1, num_spans=1, num_tokens=3)


def test_the_hotspot_list_underlines_what_is_memorized_where_text_may_be_shown() -> None:
    spans = pl.DataFrame([("e-0", 0, 4, 3, 2.0)], schema=SPANS, orient="row")
    tables = replace(tables_of(text=EVIL), spans=spans, spans_summary=SPANNED)
    shown = page_of(tables, params_of())
    assert f"<u>{escape(EVIL[:4])}</u>{escape(EVIL[4:])} e-0" in shown
    assert shown.count("<script") == page_of(tables_of(), params_of()).count("<script")
    assert "3 tokens in 1 spans of 1 of 4 samples" in shown
    hidden = page_of(tables, params_of(show_text=False))
    assert str(escape(EVIL[:4])) not in hidden.replace(get_plotlyjs(), "")


def test_the_page_loads_nothing_carries_plotly_once_and_cannot_upload() -> None:
    shown = page_of(tables_of(), params_of())
    assert shown.count(get_plotlyjs()) == 1
    rest = shown.replace(get_plotlyjs(), "")
    # A link may lead to a place in the page itself.
    assert not re.findall(r"""(?:src|href)\s*=(?!"#)|@import|url\(|https?:""", rest)
    assert '"showSendToCloud": false' in rest
    assert "default-src 'none'" in rest
    assert shown == page_of(tables_of(), params_of())


def test_sample_text_never_becomes_markup() -> None:
    calm, evil = (page_of(tables_of(text=text), params_of()) for text in ("text of", EVIL))
    assert evil.count("<script") == calm.count("<script")
    assert evil.count("</script") == calm.count("</script")
    assert "<img" not in evil.replace(get_plotlyjs(), "")
    assert str(escape(EVIL)) in evil


def test_text_that_is_not_to_be_shown_stands_nowhere() -> None:
    tables, params = tables_of(text="private words"), params_of(show_text=False)
    report = build.build_report(tables, params)
    shown = page_of(tables, params)
    terminal = printed(console.hotspots_table(report, 9))
    assert "private words" not in json.dumps(to_json(report)) + shown + terminal
    assert "e-0" in shown
    assert "private words" in page_of(tables, params_of())


def test_a_long_text_is_cut_in_the_hover_and_folded_in_the_list() -> None:
    shown = page_of(tables_of(text="word " * 1000), params_of())
    assert "<details><summary>word word" in shown
    assert "(5,004 characters)" in shown
    points = build.map_points(tables_of(text="wörd" * 1000), show_text=True)
    hovers = re.findall(r"(?:wörd)+w?ö?r?…|(?:wörd)+", plots.interactive_map(points, frame_of()))
    assert max(map(len, hovers)) <= 200


def test_an_empty_quadrant_and_one_seed_still_make_a_page() -> None:
    samples = [row for row in SAMPLES if row[3] in {"stable-easy", "ambiguous-hard"}]
    tables, params = tables_of(samples), params_of(seeds=[1])
    assert report_of(tables, params)["hotspots"] == []
    shown = page_of(tables, params)
    assert "No ordinary training sample is above the threshold on memorization." in shown
    assert "hotspot-memorized (0)" in shown
    assert "mean of 1 seed)" in shown
