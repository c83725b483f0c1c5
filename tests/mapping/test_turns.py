"""Losses of turns: two by hand, and a stage whose turns add up to the samples."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from gdc.corpus.chat import TURN_LIST, ChatFormat, Conversation, Turn, turns_of
from gdc.corpus.tokenizer import save_tokenizer, train_tokenizer
from gdc.errors import DataError
from gdc.mapping.turns import turn_losses
from gdc.schema import CORPUS, QUADRANT_TABLE, TURN_LOSSES
from gdc.stages import spans
from gdc.workspace import files, paths, tables, tracking
from tests.builders import params_with, trace_of, write_trace
from tests.mapping.builders import HELDOUT, FakeRun, letters, losses_of

# Two answers, the first of two tokens with its mark.
TURNS_OF_ONE = pl.Series([[{"turn": 1, "start": 4}, {"turn": 3, "start": 9}]])
TOKENS = [(4, 5), (5, 6), (9, 12), (12, 13)]


def test_the_end_of_text_is_of_the_last_turn_and_each_has_the_mean_of_its_tokens() -> None:
    runs = [
        losses_of(([6.0] * 5, [0.5, 1.5, 3.5, 3.0, 4.0])),
        losses_of(([6.0] * 5, [1.5, 0.5, 3.5, 3.0, 4.0])),
    ]
    table = turn_losses(runs, [HELDOUT, HELDOUT], TURNS_OF_ONE, [TOKENS], 0.01)
    assert table.schema == TURN_LOSSES
    # Held-out tokens as hard at first end at 3.5.
    assert table["gap"].to_list() == pytest.approx([2.5, 0.0])
    assert table.drop("gap").rows() == [("s0", 1, 2, 6.0, 1.0), ("s0", 3, 3, 6.0, 3.5)]
    with pytest.raises(DataError, match=r"expected 4 token losses of sample s0, .* got 5\. Re-run"):
        turn_losses(runs, [HELDOUT, HELDOUT], TURNS_OF_ONE, [TOKENS[:3]], 0.01)


def test_a_turn_that_is_no_token_has_no_row() -> None:
    turns = pl.Series([[{"turn": 0, "start": 0}, {"turn": 1, "start": 2}, {"turn": 2, "start": 2}]])
    losses = losses_of(([6.0] * 4, [1.0, 1.0, 2.0, 4.0]))
    table = turn_losses([losses], [HELDOUT], turns, [letters(3)], 0.01)
    assert table.select("turn", "num_tokens").rows() == [(0, 2), (2, 2)]


def test_the_stage_parts_every_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "stage_run", lambda *_: nullcontext(FakeRun()))
    answers = {"b-0": ["Naïve.", "Two of them"], "a-0": ["One alone"]}
    losses = write_conversations(answers)
    spans.main()
    table = tables.read("turn_losses")
    # A token is a byte; a turn of the user stands before each answer.
    assert table.select("sample_id", "turn", "num_tokens").rows() == [
        ("b-0", 1, 7), ("b-0", 3, 12), ("a-0", 1, 10)
    ]  # fmt: skip
    late = dict(losses.select("sample_id", "late").iter_rows())
    expected = [late["b-0"][:7], late["b-0"][7:], late["a-0"]]
    means = [sum(of_turn) / len(of_turn) for of_turn in expected]
    assert table["late_loss"].to_list() == pytest.approx(means, rel=1e-6)


def write_conversations(answers: dict[str, list[str]]) -> pl.DataFrame:
    """A workspace whose assistant gives the answers, late losses 0.25, 0.5, ...; returns these."""
    tokenizer = train_tokenizer(["plain words"], 257)
    save_tokenizer(tokenizer, paths.TOKENIZER)
    texts = {
        sample_id: ChatFormat().render(
            Conversation(
                [
                    turn
                    for answer in said
                    for turn in (
                        Turn("user", "Say.", False, {}),
                        Turn("assistant", answer, True, {}),
                    )
                ]
            )
        )
        for sample_id, said in answers.items()
    }
    rows = [(i, i, 1, chat.text, 1, 1, "file", "train", None) for i, chat in texts.items()]
    tables.write("corpus", pl.DataFrame(rows, schema=CORPUS, orient="row"))
    spans_of = [[span._asdict() for span in chat.spans] for chat in texts.values()]
    tables.write("turns", turns_of(pl.Series([*texts]), pl.Series(spans_of, dtype=TURN_LIST)))
    quadrants = [(sample_id, "stable-easy", None) for sample_id in texts]
    tables.write("quadrants", pl.DataFrame(quadrants, schema=QUADRANT_TABLE, orient="row"))
    lengths = [sum(len(said.encode()) for said in of) + 1 for of in answers.values()]
    late = [[0.25 * (1 + i) for i in range(length)] for length in lengths]
    losses = losses_of(*(([6.0] * len(one), one) for one in late))
    losses = losses.with_columns(sample_id=pl.Series([*texts]))
    trace = trace_of({sample_id: [1.0, 0.5] for sample_id in texts})
    write_trace(
        0,
        replace(
            trace,
            index=trace.index.with_columns(num_tokens=pl.Series(lengths, dtype=pl.Int64)),
            heldout_index=pl.DataFrame({"sample_id": ["s0", "s1"], "num_tokens": [500, 500]}),
            heldout_losses=trace.losses.head(2),
            tokens=(losses, HELDOUT),
        ),
    )
    files.write_json(paths.PARAMS, params_with().model_dump(mode="json"))
    return losses
