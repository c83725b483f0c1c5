"""The page: what stands on it, and what must never."""

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256

import polars as pl
from markupsafe import escape
from plotly.offline import get_plotlyjs

from gdc.mapping.causes import REMEDIES
from gdc.mapping.profile import Profile
from gdc.mapping.spans import SpansSummary
from gdc.report import build, console, page
from gdc.report.model import UnreadFiles, to_json
from gdc.report.words import GLOSSARY, explained, glossary_with
from gdc.schema import (
    SPANS,
)
from gdc.statistics.bootstrap import Estimate, Measured
from tests.comparison.builders import arm_audits
from tests.report.builders import (
    EVIL,
    SAMPLES,
    listed_texts,
    page_data_of,
    page_of,
    params_of,
    printed,
    report_of,
    tables_of,
)


def test_a_word_of_the_verdict_is_explained_once_and_markup_in_it_stays_text() -> None:
    told = explained("arm <b> of points, arm: harm")
    assert told == (
        f'<abbr title="{escape(GLOSSARY["arm"])}">arm</abbr> &lt;b&gt; of '
        f'<abbr title="{escape(GLOSSARY["points"])}">points</abbr>, arm: harm'
    )
    assert explained("of planted secrets").count("<abbr") == 1


def test_the_score_of_the_map_is_a_word_that_is_explained() -> None:
    told = explained("Score std, not 'stdout'.", glossary_with("std"))
    assert told.count("<abbr") == 1
    assert '<abbr title="Standard deviation of the losses' in told
    assert glossary_with("a score of the user's") == GLOSSARY


def test_files_of_the_source_that_are_not_read_stand_on_the_page() -> None:
    unread = {"of kind text": UnreadFiles(num_files=1, first=["d/<README>.md"])}
    built = build.build_report(replace(tables_of(), unread=unread), params_of())
    expected = "Not read: 1 file of the source: 1 of kind text (d/<README>.md)."
    assert expected in built.summary
    shown = page_of(replace(tables_of(), unread=unread), params_of())
    assert "Not read: 1 file of the source: 1 of kind text (d/&lt;README&gt;.md)." in shown


def test_of_several_tracked_runs_the_page_says_which_samples_change_their_quadrant() -> None:
    tables = tables_of()
    several = replace(
        tables,
        quadrants=tables.quadrants.with_columns(stability=pl.lit(0.75)),
        quadrants_summary=replace(tables.quadrants_summary, num_unstable=5),
        scores_summary=replace(tables.scores_summary, num_seeds=4),
    )
    shown = page_of(several, params_of())
    assert "5 of " in shown
    assert "samples lie in another quadrant in at least one of the 4 runs." in shown


def test_page_and_terminal_show_causes_duplicates_and_remedies() -> None:
    shown = page_of(tables_of(), params_of()).replace(get_plotlyjs(), "")
    terminal = printed(console.hotspots_table(build.build_report(tables_of(), params_of()), 2))
    evidence = shown.split('<script type="application/json"')[0]
    # A remedy for what is not there is not read.
    for cause, remedy in REMEDIES.items():
        assert (str(escape(remedy)) in evidence) == (
            cause in {"secret", "near-copies", "template", "none"}
        )
        assert remedy in " ".join(terminal.split())
    assert re.search(r"near-copies +text of d-0 *\n +duplicate c-0 *\n +duplicate d-1", terminal)
    assert "near-copies (2): Near-dedup" in terminal


def test_memorization_over_time_and_generalization_gaps_are_evidence() -> None:
    now, left = Estimate(2.25, 1.9, 2.6), Estimate(0.5, 0.4, 0.6)
    told = Profile(None, now, left, [], num_texts=1234, num_left_out=0)
    gap = Measured(0.75, 0.5, 1, 3)
    audits = arm_audits(generalization_gap=gap, gap_against_random=Measured(-1, -2, -0.5, 3))
    tables = replace(
        tables_of(), profiles={"all": told}, arm_audits={"none": arm_audits(), "paper": audits}
    )
    shown = page_of(tables, params_of()).replace(get_plotlyjs(), "")
    assert "Training on a sample lowers its own loss by 2.25" in shown
    row = shown.split("at the end</th>")[1].split("</table>")[0]
    assert re.findall(r"1,234|2\.25|0\.5", row)[:3] == ["1,234", "2.25", "0.5"]
    assert "the generalization gap is lower for paper." in shown


SPANNED = SpansSummary(num_flagged=4, num_samples=1, num_spans=1, num_tokens=3)


def test_each_text_is_one_row_with_its_copies_spans_curve_and_actions() -> None:
    spans = pl.DataFrame([("e-0", 0, 4, 3, 2.0)], schema=SPANS, orient="row")
    tables = replace(tables_of(), spans=spans, spans_summary=SPANNED)
    shown = page_of(tables, params_of())
    columns = listed_texts(shown)
    assert columns["ids"] == [["f-0"], ["g-0", "g-1"], ["e-0"], ["c-0"], ["d-0"], ["b-0"], ["a-0"]]
    assert columns["copies"] == [1, 2, 1, 1, 1, 1, 1]
    assert columns["canary"] == [None, "digits/2", None, None, None, None, None]
    assert columns["spans"] == [[], [], [[0, 4]], [], [], [], []]
    assert columns["curve"][0] == [3.0, 1.0]
    assert columns["scores"]["memorization"] == [0.4, 0.4, 0.3, 0.2, 0.2, 0.1, 0.0]
    actions = [
        page_data_of(tables, params_of()).content["actions"][a] for a in columns["actions"]["paper"]
    ]
    assert actions == ["drop", "keep", "keep", "weight", "weight", "keep", "keep"]
    assert "3 tokens in 1 spans of 1 of 4 samples" in shown


def test_quadrants_count_distinct_ordinary_texts() -> None:
    tables = tables_of()
    # The copies c, d and e of one text; the highest is e.
    same = pl.when(pl.col("content_id").is_in(["c", "d"])).then(pl.lit("e"))
    corpus = tables.corpus.with_columns(content_id=same.otherwise("content_id"))
    data = page_data_of(replace(tables, corpus=corpus), params_of())
    assert list(data.num_by_quadrant.values()) == [1, 1, 1, 1]
    assert ["e-0", "c-0", "d-0"] in data.content["columns"]["ids"]


def test_causes_count_distinct_ordinary_texts_above_the_threshold_and_in_all() -> None:
    assert page_data_of(tables_of(), params_of()).num_by_cause == {
        "secret": (1, 1), "near-copies": (2, 2), "template": (0, 1), "none": (1, 2),
    }  # fmt: skip


def test_of_too_many_texts_those_above_the_threshold_stay() -> None:
    data = page_data_of(tables_of(), params_of(max_points=4))
    assert {ids[0] for ids in data.content["columns"]["ids"]} == {"c-0", "d-0", "e-0", "f-0"}
    assert (data.content["numShown"], data.content["numTexts"]) == (4, 6)


def test_the_page_loads_nothing_carries_plotly_once_and_cannot_upload() -> None:
    shown = page_of(tables_of(), params_of())
    assert shown.count(get_plotlyjs()) == 1
    rest = re.sub(r"<script>.*?</script>", "", shown, flags=re.DOTALL)
    # A link may lead to a place in the page itself.
    assert not re.findall(r"""(?:src|href)\s*=(?!"#)|@import|url\(|https?:""", rest)
    ours = page.script("explorer.js") + page.script("tables.js")
    assert "showSendToCloud: false" in ours
    # The name of SVG is an address that nobody opens.
    assert re.findall('https?:[^"]*', ours) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in rest
    assert shown == page_of(tables_of(), params_of())


def test_the_page_runs_only_the_scripts_that_it_came_with() -> None:
    shown = page_of(tables_of(), params_of())
    (allowed,) = re.findall(r"script-src ([^;]*);", shown)
    scripts = re.findall(r"<script>(.*?)</script>", shown, re.DOTALL)
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in scripts]
    assert allowed.split() == [f"'sha256-{digest}'" for digest in hashes]


def test_sample_text_never_becomes_markup() -> None:
    calm, evil = (page_of(tables_of(text=text), params_of()) for text in ("text of", EVIL))
    assert evil.count("<script") == calm.count("<script")
    assert evil.count("</script") == calm.count("</script")
    assert "<img" not in evil.replace(get_plotlyjs(), "")
    assert listed_texts(evil)["text"][0] == f"{EVIL} f-0"


def test_text_that_is_not_to_be_shown_stands_nowhere() -> None:
    tables, params = tables_of(text="private words"), params_of(show_text=False)
    report = build.build_report(tables, params)
    shown = page_of(tables, params)
    terminal = printed(console.hotspots_table(report, 9))
    assert "private words" not in json.dumps(to_json(report)) + shown + terminal
    assert "e-0" in shown
    assert "private words" in page_of(tables, params_of())


def test_a_long_text_is_cut() -> None:
    columns = page_data_of(tables_of(text="wörd" * 2000), params_of()).content["columns"]
    assert columns["text"][0] == "wörd" * 1000
    assert columns["chars"][0] == 8004


def test_an_empty_quadrant_and_one_seed_still_make_a_page() -> None:
    samples = [row for row in SAMPLES if row[3] in {"stable-easy", "ambiguous-hard"}]
    tables, params = tables_of(samples), params_of(seeds=[1])
    assert report_of(tables, params)["hotspots"] == []
    shown = page_of(tables, params)
    assert page_data_of(tables, params).num_by_quadrant["hotspot-memorized"] == 0
    assert "mean of 1 seed)" in shown
