"""Memorized spans: losses small enough to judge by eye, an oracle, and what chance may flag."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import SpansConfig
from gdc.corpus.tokenizer import chunk_rows, masked_tokens, save_tokenizer, train_tokenizer
from gdc.errors import DataError
from gdc.filesystem import scratch
from gdc.mapping.spans import at_all_tokens, find_spans, nothing_recorded
from gdc.schema import CORPUS, MASKED, QUADRANT_TABLE, SPANS, TURNS
from gdc.stages import retrain, spans
from gdc.training.batches import TokenizedTexts
from gdc.workspace import files, paths, tables, tracking
from tests.builders import params_with, trace_of, write_trace
from tests.mapping.builders import HELDOUT, FakeRun, Losses, letters, losses_of

CONFIG = SpansConfig(p_value=0.01, min_tokens=2)


def late_losses(memorized: str) -> Losses:
    """Hard tokens that ended at 0.5 where there is an x, else at 3.5, and an end of text at 0.5."""
    return [6.0] * (len(memorized) + 1), [0.5 if c == "x" else 3.5 for c in memorized] + [0.5]


def found(*marks: str, min_tokens: int = 2) -> list[tuple[str, int, int, int]]:
    config = SpansConfig(p_value=0.01, min_tokens=min_tokens)
    losses = losses_of(*map(late_losses, marks))
    table, _ = find_spans([losses], [HELDOUT], [letters(len(m)) for m in marks], config)
    assert table.schema == SPANS
    return table.drop("nats").rows()


@pytest.mark.parametrize(
    ("marks", "offsets"),
    [
        pytest.param("-xx--", [(1, 3, 2)], id="two tokens in a row"),
        pytest.param("-x-x-", [(1, 4, 3)], id="one token between is part of it"),
        pytest.param("xx--xx", [(0, 2, 2), (4, 6, 2)], id="two between are not"),
        pytest.param("-x---", [], id="one alone is too few"),
        pytest.param("----x", [], id="the end of text is no second one"),
        pytest.param("xxxx", [(0, 4, 4)], id="a whole text"),
        pytest.param("", [], id="no text"),
    ],
)
def test_known_spans(marks: str, offsets: list[tuple[int, int, int]]) -> None:
    assert found(marks) == [("s0", *place) for place in offsets]


def test_one_token_is_a_span_where_one_is_enough() -> None:
    assert found("-x---", "x--", min_tokens=1) == [("s0", 1, 2, 1), ("s1", 0, 1, 1)]


def test_nats_are_the_drop_beyond_held_out_tokens_that_were_as_hard() -> None:
    table, summary = find_spans([losses_of(late_losses("-xx-"))], [HELDOUT], [letters(4)], CONFIG)
    # Held-out tokens end at 3.5 on average, these two at 0.5.
    assert table["nats"].to_list() == pytest.approx([6.0])
    assert summary.to_json() == {
        "num_flagged": 1, "num_samples": 1, "num_spans": 1, "num_tokens": 2, "warnings": []
    }  # fmt: skip


def test_tokens_that_were_easy_at_first_are_not_memorized_for_ending_at_nothing() -> None:
    easy: Losses = ([0.1] * 6, [0.0] * 6)
    table, _ = find_spans([losses_of(easy)], [HELDOUT], [letters(5)], CONFIG)
    assert table.is_empty()


def test_losses_are_averaged_over_runs() -> None:
    runs = [losses_of(late_losses(marks)) for marks in ("xx", "--")]
    # A mean of 2 nats is below all held-out ones; their mean over two equal runs is the same.
    table, _ = find_spans(runs, [HELDOUT, HELDOUT], [letters(2)], CONFIG)
    assert table.height == 1
    lost = [HELDOUT, HELDOUT.with_columns(late=pl.col("late").list.eval(pl.element() - 3))]
    table, _ = find_spans(runs, lost, [letters(2)], CONFIG)
    assert table.is_empty()


quarters = st.integers(0, 8).map(lambda n: n / 4)


@given(
    heldout=st.lists(quarters, min_size=1, max_size=30),
    late=st.lists(quarters, min_size=2, max_size=12),
    p_value=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_tokens_match_p_values_by_a_plain_loop(
    heldout: list[float], late: list[float], p_value: float
) -> None:
    def p(loss: float) -> float:
        return (1 + sum(other <= loss for other in heldout)) / (1 + len(heldout))

    marks = [p(loss) <= p_value for loss in late[:-1]]
    by_hand = [
        i
        for i, mark in enumerate(marks)
        # Memorized, or alone between two that are.
        if mark or (any(marks[i - 1 : i]) and any(marks[i + 1 : i + 2]))
    ]
    same = [1.0] * len(late)
    table, _ = find_spans(
        [losses_of((same, late))],
        [losses_of(([1.0] * len(heldout), heldout))],
        [letters(len(late) - 1)],
        SpansConfig(p_value=p_value, min_tokens=1),
    )
    spanned = [i for start, end in table.select("start", "end").rows() for i in range(start, end)]
    assert spanned == by_hand


@pytest.mark.parametrize("ties", [False, True])
def test_of_tokens_like_the_held_out_ones_at_most_the_p_value_is_flagged(ties: bool) -> None:
    rng = np.random.default_rng(0)

    def drawn(num_samples: int) -> pl.DataFrame:
        early = rng.gamma(2, 2, size=(num_samples, 101))
        late = early * rng.beta(2, 2, size=early.shape)
        if ties:
            early, late = early.round(1), late.round(1)
        return losses_of(*zip(early.tolist(), late.tolist(), strict=True))

    losses, heldout = drawn(400), drawn(100)
    config = SpansConfig(p_value=0.01, min_tokens=1)
    table, _ = find_spans([losses], [heldout], [letters(100)] * 400, config)
    share = table["num_tokens"].sum() / 40_000
    assert share < 0.012
    assert ties or share > 0.006
    by_two, _ = find_spans([losses], [heldout], [letters(100)] * 400, CONFIG)
    assert by_two["num_tokens"].sum() < 40


def test_spans_are_of_whole_characters_in_any_script() -> None:
    text = "na\u00efve \u2603\U0001f40d\U0001f40d caf\u00e9"
    tokenizer = train_tokenizer(["plain words"], 257)  # a token is a byte
    (offsets,) = tokenizer.offsets([text])
    memorized = [False] * len(offsets)
    encoded = text.encode()
    # The second half of one snake and the first of the next, and a part of the last letter.
    snake = encoded.index("\U0001f40d".encode())
    for byte in (snake + 2, snake + 3, snake + 4, snake + 5, len(encoded) - 2, len(encoded) - 1):
        memorized[byte] = True
    marks = "".join("x" if mark else "-" for mark in memorized)
    table, _ = find_spans([losses_of(late_losses(marks))], [HELDOUT], [offsets], CONFIG)
    shown = [text[start:end] for start, end in table.select("start", "end").rows()]
    assert shown == ["\U0001f40d\U0001f40d", "\u00e9"]
    assert table["num_tokens"].to_list() == [4, 2]
    masked = masked_tokens(offsets, table.select("start", "end").to_dicts())
    assert masked.sum() == 8 + 2
    assert masked[np.array(memorized)].all()


def test_two_spans_in_one_character_are_one() -> None:
    offsets = [(0, 1), *[(1, 2)] * 6, (2, 3)]
    table, _ = find_spans([losses_of(late_losses("xx--xx--"))], [HELDOUT], [offsets], CONFIG)
    assert table.drop("nats").rows() == [("s0", 0, 2, 6)]


def test_losses_of_another_number_of_tokens_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected 4 token losses of sample s0, .* got 3\. Re-run"):
        find_spans([losses_of(late_losses("xx"))], [HELDOUT], [letters(3)], CONFIG)


def test_too_few_held_out_tokens_are_told_of() -> None:
    few = losses_of(([6.0] * 98, [3.0] * 98))
    table, summary = find_spans([losses_of(late_losses("xx"))], [few], [letters(2)], CONFIG)
    assert table.is_empty()
    assert "p-value of 0.01 with 98 held-out tokens" in summary.warnings[0]
    enough = losses_of(([6.0] * 99, [3.0] * 99))
    table, summary = find_spans([losses_of(late_losses("xx"))], [enough], [letters(2)], CONFIG)
    assert (table.height, summary.warnings) == (1, ())


def test_without_flagged_samples_or_token_losses_there_are_no_spans() -> None:
    table, summary = find_spans([losses_of()], [HELDOUT], [], CONFIG)
    assert table.equals(pl.DataFrame(schema=SPANS))
    assert summary.num_flagged == 0
    table, summary = nothing_recorded()
    assert table.equals(pl.DataFrame(schema=SPANS))
    assert "train.token_losses: true" in summary.warnings[0]


# ---- the stages


TEXTS = {"a-0": "caf\u00e9 one", "b-0": "two \u2603 snow", "c-0": "three"}


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_a_mask_covers_the_ids_of_its_spans_between_the_ends_of_text(
    chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(ids: pl.Series) -> scratch.Texts:
        return scratch.Texts.written([(np.arange(len(ids)), map(TEXTS.__getitem__, ids))], len(ids))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "stored_texts", stored)
    monkeypatch.setattr(retrain, "chunk_rows", partial(chunk_rows, chunk_size=chunk_bytes))
    tokenizer = train_tokenizer(["plain words"], 257)
    masked = [[{"start": 3, "end": 4}, {"start": 6, "end": 8}], [], [{"start": 0, "end": 5}]]
    samples = pl.DataFrame(
        {"sample_id": list(TEXTS), "masked": masked},
        schema={"sample_id": pl.String(), "masked": MASKED},
    )
    texts = TokenizedTexts.from_ids(tokenizer.encode(list(TEXTS.values())), 0)
    is_masked = retrain._masked(samples, texts, tokenizer)
    assert is_masked is not None
    assert [
        tokenizer.decode(texts.ids[first:last][is_masked[first:last]].tolist())
        for first, last in pairwise(texts.offsets)
    ] == ["\u00e9ne", "", "three"]
    kept = samples.with_columns(masked=pl.lit([], MASKED))
    assert retrain._masked(kept, texts, tokenizer) is None


def test_spans_of_answers_do_not_reach_over_what_stands_between_them() -> None:
    # Twelve tokens of an answer, four of a question, twelve of an answer; all are memorized.
    has_loss = np.array([True] * 12 + [False] * 4 + [True] * 12)
    losses = losses_of(late_losses("x" * 24))
    config = SpansConfig(p_value=0.01, min_tokens=2)
    at_all = at_all_tokens(losses, [has_loss])
    table, _ = find_spans([at_all], [HELDOUT], [letters(28)], config)
    assert table.drop("nats").rows() == [("s0", 0, 12, 12), ("s0", 16, 28, 12)]
    assert table["nats"].is_finite().all()
    with pytest.raises(DataError, match=r"expected 25 token losses of sample s0.* got 24"):
        at_all_tokens(losses_of(late_losses("x" * 23)), [has_loss])


def write_workspace(tokens: bool) -> None:
    """Three training samples, two of them flagged, with one token a byte; all are memorized."""
    tokenizer = train_tokenizer(["plain words"], 257)
    save_tokenizer(tokenizer, paths.TOKENIZER)
    rows = [(i, i, 1, t, 1, 1, "file", "train", None) for i, t in TEXTS.items()]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS, orient="row"))
    tables.write("turns", pl.DataFrame(schema=TURNS))
    quadrants = ["hotspot-memorized", "noisy-outlier", "stable-easy"]
    table = {"sample_id": list(TEXTS), "quadrant": quadrants, "stability": [None] * 3}
    tables.write("quadrants", pl.DataFrame(table, schema=QUADRANT_TABLE))
    losses = losses_of(*(late_losses("x" * len(text.encode())) for text in TEXTS.values()))
    losses = losses.with_columns(sample_id=pl.Series(list(TEXTS)))
    trace = trace_of({i: [1.0, 0.5] for i in TEXTS})
    num_tokens = losses["early"].list.len().cast(pl.Int64)
    heldout = pl.DataFrame({"sample_id": ["s0", "s1"], "num_tokens": [500, 500]})
    write_trace(
        0,
        replace(
            trace,
            index=trace.index.with_columns(num_tokens=num_tokens),
            heldout_index=heldout,
            heldout_losses=trace.losses.head(2),
            tokens=(losses, HELDOUT) if tokens else None,
        ),
    )
    # JSON is YAML.
    files.write_json(paths.PARAMS, params_with().model_dump(mode="json"))


@pytest.mark.parametrize("tokens", [True, False])
def test_the_stage_looks_into_flagged_samples_alone_and_into_none_without_token_losses(
    tokens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "stage_run", lambda *_: nullcontext(FakeRun()))
    write_workspace(tokens)
    spans.main()
    rows = tables.read("spans").select("sample_id", "start", "end", "num_tokens").rows()
    assert rows == ([("a-0", 0, 8, 9), ("b-0", 0, 10, 12)] if tokens else [])
    summary = files.read_json(paths.SPANS_SUMMARY)
    assert (summary["num_flagged"], len(summary["warnings"])) == ((2, 0) if tokens else (0, 1))
