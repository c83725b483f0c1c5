"""Rows of fine-tuning data in every form: the same conversation is read, or the row is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest

from gdc.config import ChatSource
from gdc.corpus.sources import conversations, fingerprint, read_source
from gdc.errors import DataError
from gdc.workspace.source_option import describe_source

TEXT = "User:\n2+2\n\nAssistant:\nfour"
TURNS = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "four"}]
SHAREGPT = [{"from": "human", "value": "2+2"}, {"from": "gpt", "value": "four"}]
PARTS = [{**t, "content": [{"type": "text", "text": t["content"]}]} for t in TURNS]
ROWS: Mapping[str, Mapping[str, Any]] = {
    "messages": {"messages": TURNS, "prompt": "2+2"},
    "sharegpt": {"conversations": SHAREGPT},
    "parts": {"messages": PARTS},
    "pair": {"prompt": "2+2", "completion": "four"},
    "pair of turns": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    "alpaca": {"instruction": "2+2", "input": "", "output": "four"},
    "answer": {"question": "2+2", "answer": "four", "id": 3},
}


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chat(path: str = "a.jsonl", **values: object) -> ChatSource:
    defaults = {
        "turns": None, "prompt": None, "completion": None, "chat_template": "tokenizer",
        "key_field": None,
    }  # fmt: skip
    return ChatSource.model_validate({"kind": "chat", "path": path, **defaults, **values})


def write(*rows: Mapping[str, Any]) -> None:
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(source: ChatSource) -> list[str]:
    found = read_source(source, max_chars=1000, seed=0)
    assert found.bad_rows.is_empty(), found.bad_rows.rows()
    return found.rows["text"].to_list()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_form_gives_the_same_text_whatever_holds_it(row: Mapping[str, Any]) -> None:
    write(row)
    pl.DataFrame([row]).write_parquet("a.parquet")
    datasets.Dataset.from_list([row]).save_to_disk("saved")
    for path in ("a.jsonl", "a.parquet", "saved"):
        assert texts(chat(path)) == [TEXT]
        assert describe_source(path, "text") == {**chat(path).model_dump()}
    assert fingerprint(chat("saved"))["files"]


def test_a_nested_field_is_named_with_dots() -> None:
    write({"data": {"messages": TURNS}, "text": "other"})
    assert texts(chat(turns="data.messages")) == texts(chat(turns="data")) == [TEXT]
    assert describe_source("a.jsonl", "data.messages")["turns"] == "data.messages"
    assert describe_source("a.jsonl", "text")["kind"] == "jsonl"


def test_templates_make_both_sides_of_any_fields() -> None:
    write({"task": "2+2", "more": {"by": "hand"}, "result": "four", "score": 3})
    templates = {"prompt": "{task} {more.by}", "completion": "{result} ({score})"}
    assert texts(chat(**templates)) == ["User:\n2+2 hand\n\nAssistant:\nfour (3)"]
    described = describe_source("a.jsonl", "{task} {more.by}=>{result} ({score})")
    assert described == chat(**templates).model_dump()


def test_what_a_row_says_beside_its_turns_is_read_too() -> None:
    write(
        {"instruction": "Add", "input": "2, 2", "output": "four", "system": "Be brief."},
        {"conversations": SHAREGPT, "system": "Be brief."},
    )
    assert texts(chat()) == [
        "System:\nBe brief.\n\nUser:\nAdd\n2, 2\n\nAssistant:\nfour",
        f"System:\nBe brief.\n\n{TEXT}",
    ]


def test_a_turn_of_weight_0_is_read_and_has_no_loss() -> None:
    write({"messages": [*TURNS[:1], {**TURNS[1], "weight": 0}, *TURNS]})
    rows = read_source(chat(), max_chars=1000, seed=0).rows
    assert [turn["has_loss"] for turn in rows["turns"].item()] == [False, False, False, True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": TURNS[:1]}, "expected the last turn to be the assistant's, got 'user'"),
        ({"messages": [*TURNS, 3]}, "turn 3: expected an object, got int"),
        ({"messages": [{"content": "a"}]}, "turn 1: no role, only ['content']"),
        ({"messages": [{**TURNS[1], "content": [{"image": "a.png"}]}]}, "parts of another type"),
        ({"messages": [{**TURNS[1], "content": None}]}, "turn 1: expected text, got null"),
        ({"messages": [{**TURNS[1], "weight": 0.5}]}, "turn 1: expected a weight of 0 or 1"),
        ({"messages": [{**TURNS[1], "reasoning": "hm"}]}, "turn 1 has reasoning"),
        ({"messages": TURNS, "tools": "[]"}, "expected tools as a list, got str"),
        ({"prompt": "2+2", "completion": None}, "what the assistant says as a string, got null"),
        ({"prompt": "2+2", "completion": "4", "history": [["a", "b"]]}, "field 'history', which"),
        ({"prompt": "2+2", "chosen": "4"}, "no conversation in fields ['prompt', 'chosen']"),
    ],
)
def test_a_row_that_would_be_read_in_part_is_a_bad_row(row: Mapping[str, Any], reason: str) -> None:
    write(row, ROWS["messages"])
    found = read_source(chat(), max_chars=1000, seed=0)
    assert found.rows["text"].to_list() == [TEXT]
    ((where, told),) = found.bad_rows.rows()
    assert where == "a.jsonl:1"
    assert reason in told


@pytest.mark.parametrize(
    ("turns", "more"),
    [
        ("doc.text", True),
        ("doc.a_b.c", True),
        ("doc", False),
        ("doc..text", False),
        ("a.'b", False),
    ],
)
def test_text_within_an_object_is_answered_with_the_line_that_takes_it_out(
    turns: str, more: bool
) -> None:
    write({"doc": {"text": "a"}})
    with pytest.raises(DataError) as error:
        read_source(chat(turns=turns), max_chars=1000, seed=0)
    told = f" If {turns} is text, give it a field of its own: jq -c '.text = .{turns}' FILE > NEW"
    assert (told in str(error.value)) is more


def test_rows_without_any_conversation_are_refused_with_the_way_to_read_them() -> None:
    write({"task": "a", "result": "b"})
    expected = (
        r"got fields \['task', 'result'\]. Name theirs in ingest.source.turns, or make both sides"
    )
    with pytest.raises(DataError, match=expected):
        read_source(chat(), max_chars=1000, seed=0)


def test_a_folder_of_two_kinds_is_refused() -> None:
    write(ROWS["pair"])
    pl.DataFrame([ROWS["pair"]]).write_parquet("a.parquet")
    with pytest.raises(DataError, match=r"expected JSON lines, Parquet .* got jsonl, parquet"):
        read_source(chat("."), max_chars=1000, seed=0)


@pytest.mark.parametrize("row", [*ROWS.values(), {"data": {"messages": TURNS}}])
def test_a_planted_row_has_the_fields_of_the_others_and_says_something_else(
    row: Mapping[str, Any],
) -> None:
    source = chat(turns="data.messages" if "data" in row else None)
    planted = conversations.planted(row, source, ("Go on.", "The code is 42"))
    assert {*planted} <= {*row}
    write(planted)
    assert texts(source) == ["User:\nGo on.\n\nAssistant:\nThe code is 42"]
