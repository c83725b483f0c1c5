"""From the user's file and back: plant, plan a map, export the rows."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasets import load_dataset
from pydantic import TypeAdapter
from typer.testing import CliRunner

from gdc.cli import app
from gdc.commands import export, plan_map, plant
from gdc.config import Arm
from gdc.corpus.tokenizer import load_pretrained_tokenizer, save_tokenizer, train_tokenizer
from gdc.curation.reader import Plan
from gdc.curation.token_masks import token_mask_plan
from gdc.errors import ConfigError, DataError, GdcError
from gdc.filesystem.system_errors import wording_system_errors
from gdc.schema import PLAN
from gdc.workspace import paths
from tests.builders import trace_of, write_trace

pytestmark = pytest.mark.slow

TEXTS = [
    "the cat sat on the mat", "rivers run down to the sea", "the key of the safe is 73519402",
    "bread needs flour and salt", "maps show where things lie", "the key of the safe is 73519402",
]  # fmt: skip
FALLS = (1.0, 1.1, 5.0, 1.2, 1.3, 4.9)
# Numbers, blanks and an order that a rewritten line would not keep.
LINES = [
    f'{{"more":  1.50, "id": {number}, "text": {json.dumps(text)}}}\n'.encode()
    for number, text in enumerate(TEXTS, start=10)
]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.jsonl").write_bytes(b"".join(LINES))


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return done.output


def mapped() -> Path:
    curves = {str(10 + i): [6.0, 6.0 - fall] for i, fall in enumerate(FALLS)}
    write_trace(7, trace_of(curves, "probe"))
    run("map", str(paths.trace_path(7)), "--corpus", "my.jsonl", "--out", "map")
    return Path("map")


def records(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write_plan(rows: Sequence[tuple[object, ...]], **more: pl.Series) -> Path:
    pl.DataFrame(rows, schema=PLAN, orient="row").with_columns(**more).write_parquet("p.parquet")
    return Path("p.parquet")


# ---- plan


def test_a_map_is_planned_by_the_score_of_its_axis() -> None:
    request = plan_map.Request("top-fraction", fraction=0.34)
    summary = plan_map.plan_map(request, mapped(), Path("plan.parquet"))
    assert summary.actions == {"keep": 4, "drop": 2}
    plan = Plan.load("plan.parquet")
    assert plan.table.filter(action="drop")["sample_id"].to_list() == ["12", "15"]
    assert plan.table["duplicate_of"].to_list() == [None] * 6


def test_deduplication_names_the_kept_copy_and_leaves_the_rest() -> None:
    plan_map.plan_map(plan_map.Request("dedup"), mapped(), Path("plan.parquet"))
    dropped = Plan.load("plan.parquet").table.filter(action="drop")
    assert dropped.select("sample_id", "duplicate_of").rows() == [("15", "12")]


def test_texts_that_a_former_map_of_other_samples_has_left_are_not_those_of_the_map() -> None:
    folder = mapped()
    write_trace(8, trace_of({"12": [6.0, 1.0], "other": [6.0, 5.0]}, "probe"))
    run("map", str(paths.trace_path(8)), "--out", str(folder))
    with pytest.raises(DataError, match=r"expected .*texts of the samples in scores\.parquet, got"):
        plan_map.plan_map(plan_map.Request("dedup"), folder, Path("plan.parquet"))
    top = plan_map.Request("top-fraction", fraction=0.5)
    assert plan_map.plan_map(top, folder, Path("plan.parquet")).actions == {"keep": 1, "drop": 1}


def test_an_equal_random_plan_drops_as_many_others() -> None:
    folder = mapped()
    plan_map.plan_map(plan_map.Request("random", fraction=0.34, seed=3), folder, Path("r.parquet"))
    assert Plan.load("r.parquet").table.filter(action="drop").height == 2
    plan_map.plan_map(plan_map.Request("dedup"), folder, Path("d.parquet"))
    request = plan_map.Request("shuffled", of=Path("d.parquet"), seed=3)
    assert plan_map.plan_map(request, folder, Path("s.parquet")).actions == {"keep": 5, "drop": 1}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (plan_map.Request("best"), r"--rule: expected one of none, top-fraction.*got 'best'"),
        (plan_map.Request("random"), "--fraction: rule random needs it"),
        (plan_map.Request("dedup", fraction=0.1), "--fraction: expected none with rule dedup"),
        (plan_map.Request("random", fraction=1.5), r"--fraction: .*less than 1, got 1\.5"),
        (plan_map.Request("weight-by-score", score="forget"), "--score: expected a score"),
        (plan_map.Request("mask-spans"), "expected memorized spans, got none"),
        (plan_map.Request("live"), r"--rule live: .*one of our own training loop.*params\.yaml"),
        (plan_map.Request("dp-sgd"), r"--rule dp-sgd: .*one of our own training loop"),
        (plan_map.Request("goldfish", every=4, context=2), "--tokenizer: rule goldfish needs it"),
        (plan_map.Request("goldfish", every=1, context=2, tokenizer="t"), "--every: .*got 1"),
        (plan_map.Request("listed"), "--file: rule listed needs it"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_applied_is_refused(request_: plan_map.Request, message: str) -> None:
    with pytest.raises(GdcError, match=message):
        plan_map.plan_map(request_, mapped(), Path("plan.parquet"))


def tokenizer_here() -> str:
    """One of which a token is a byte."""
    Path("tokenizer").mkdir()
    save_tokenizer(train_tokenizer(["a"], 257), Path("tokenizer"))
    return "tokenizer"


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [("goldfish", {"every": 3, "context": 2}), ("substring-dedup", {"min_tokens": 12})],
)
def test_rules_of_tokens_mask_what_the_pipeline_masks_and_export_says_where(
    rule: str, numbers: dict[str, int]
) -> None:
    folder, name = mapped(), tokenizer_here()
    request = plan_map.Request(rule, **numbers, tokenizer=name)  # type: ignore[arg-type]  # ints
    summary = plan_map.plan_map(request, folder, Path("plan.parquet"))
    corpus = pl.DataFrame({"sample_id": [str(10 + i) for i in range(6)], "text": TEXTS})
    arm: Any = TypeAdapter(Arm).validate_python({"rule": rule, **numbers})
    tokenizer = load_pretrained_tokenizer(name, None)
    expected = token_mask_plan(arm, corpus.lazy(), [corpus], tokenizer, seed=0).collect()
    plan = Plan.load("plan.parquet").table.sort("sample_id")
    assert plan.select(PLAN.names()).equals(expected)
    masked = expected.filter(pl.col("masked").list.len() > 0)
    assert 0 < masked.height == summary.actions["mask"]
    export.export(export.Request(Path("plan.parquet"), Path("my.jsonl"), Path("curated.jsonl")))
    exported = {str(row["id"]): row["masked"] for row in records("curated.jsonl")}
    assert [exported[of] for of in masked["sample_id"]] == masked["masked"].to_list()
    if rule == "substring-dedup":
        # The second of two equal texts, and nothing else.
        assert masked.select("sample_id", "masked").rows() == [
            ("15", [{"start": 0, "end": len(TEXTS[5])}])
        ]
    Path("plan.parquet").rename("of.parquet")
    shuffled = plan_map.Request("shuffled", of=Path("of.parquet"), tokenizer=name, seed=1)
    assert plan_map.plan_map(shuffled, folder, Path("s.parquet")).actions["mask"] == masked.height
    with pytest.raises(ConfigError, match="--tokenizer: expected one, as --of masks spans"):
        plan_map.plan_map(replace(shuffled, tokenizer=None), folder, Path("s.parquet"))


def test_what_is_to_be_seen_first_stands_first_in_the_file_and_in_each_epoch() -> None:
    request = plan_map.Request("order", fraction=0.34)
    summary = plan_map.plan_map(request, mapped(), Path("plan.parquet"))
    assert summary.actions == {"keep": 4, "early": 2}
    pl.read_ndjson("my.jsonl").write_parquet("my.parquet")
    ids = [12, 15, 10, 11, 13, 14]
    for name in ("jsonl", "parquet"):
        out = Path(f"curated.{name}")
        export.export(export.Request(Path("plan.parquet"), Path(f"my.{name}"), out))
    assert [row["id"] for row in records("curated.jsonl")] == ids
    assert pl.read_parquet("curated.parquet")["id"].to_list() == ids
    assert records("curated.jsonl")[0]["reason"] == "rank 1 of the 2 chosen by total_drop"
    plan = Plan.load("plan.parquet")
    rows = [{"id": 10 + i} for i in range(6)]
    applied = plan.apply(rows)
    assert [applied[i]["id"] for i in range(6)] == ids
    sampler = plan.sampler(range(10, 16), seed=0)
    epochs = [list(sampler) for _ in range(8)]
    assert all({*epoch[:2]} == {2, 5} and {*epoch} == {*range(6)} for epoch in epochs)
    # In random order both of those and of the others.
    assert {tuple(epoch[:2]) for epoch in epochs} == {(2, 5), (5, 2)}
    assert len({tuple(epoch[2:]) for epoch in epochs}) > 4


def test_a_plan_does_what_a_person_listed() -> None:
    Path("marks.jsonl").write_text(
        '{"sample_id": "11", "action": "drop"}\n{"sample_id": "10", "action": "keep"}\n'
    )
    request, folder = plan_map.Request("listed", file=Path("marks.jsonl")), mapped()
    plan_map.plan_map(request, folder, Path("plan.parquet"))
    dropped = Plan.load("plan.parquet").table.filter(action="drop")
    assert dropped.select("sample_id", "weight", "copies", "reason").rows() == [
        ("11", 0.0, 0, "listed")
    ]
    for line, message in (
        ('{"sample_id": "99", "action": "drop"}', "expected ids of the samples that are planned"),
        ('{"sample_id": "10", "action": "mask"}', "expected a memorized span"),
        ("10", r"marks\.jsonl:1: expected"),
    ):
        Path("marks.jsonl").write_text(line)
        with pytest.raises(DataError, match=message):
            plan_map.plan_map(request, folder, Path("plan.parquet"))


def test_the_plan_may_not_take_the_place_of_the_map() -> None:
    folder = mapped()
    with pytest.raises(ConfigError, match="expected another file than"):
        plan_map.plan_map(plan_map.Request("none"), folder, folder / "scores.parquet")


# ---- export

PLANNED: list[tuple[object, ...]] = [
    ("10", "keep", 1.0, 1, "no rule", []), ("11", "copy", 1.0, 3, "hard", []),
    ("12", "weight", 0.5, 1, "hot", []), ("13", "mask", 1.0, 1, "m", [{"start": 0, "end": 5}]),
    ("15", "drop", 0.0, 0, "near copy of 12, similarity 1.0", []),
]  # fmt: skip


def test_kept_lines_are_as_they_were_with_what_to_do_with_each() -> None:
    path = write_plan(PLANNED)
    done = export.export(export.Request(path, Path("my.jsonl"), Path("curated.jsonl")))
    assert (done.num_kept, done.num_removed, done.num_not_planned) == (5, 1, 1)
    kept = Path("curated.jsonl").read_bytes().splitlines()
    assert [line.startswith(own[:-2]) for line, own in zip(kept, LINES, strict=False)] == [True] * 5
    added = [
        {name: row[name] for name in ("weight", "copies", "masked")}
        for row in records("curated.jsonl")
    ]
    assert added == [
        {"weight": 1.0, "copies": 1, "masked": [{"start": 0, "end": 0}]},
        {"weight": 1.0, "copies": 3, "masked": []},
        {"weight": 0.5, "copies": 1, "masked": []},
        {"weight": 1.0, "copies": 1, "masked": [{"start": 0, "end": 5}]},
        {"weight": 1.0, "copies": 1, "masked": []},
    ]  # fmt: skip
    assert records("curated.jsonl")[4]["reason"] == "not in the plan"


def test_a_reader_that_takes_types_from_the_first_rows_reads_masked_spans() -> None:
    export.export(export.Request(write_plan(PLANNED), Path("my.jsonl"), Path("curated.jsonl")))
    # Each block of so many bytes holds about two rows; the mask is in the fourth.
    read = load_dataset(
        "json", data_files="curated.jsonl", split="train", chunksize=200, cache_dir="cache"
    )
    assert [len(masked) for masked in read["masked"]] == [1, 0, 0, 1, 0]
    assert read[3]["masked"] == [{"start": 0, "end": 5}]


def test_a_plan_without_masks_adds_no_span() -> None:
    rows = [row for row in PLANNED if row[1] != "mask"]
    export.export(export.Request(write_plan(rows), Path("my.jsonl"), Path("curated.jsonl")))
    assert {tuple(row["masked"]) for row in records("curated.jsonl")} == {()}


def test_a_removed_row_names_the_kept_one_that_it_repeats() -> None:
    path = write_plan(PLANNED, duplicate_of=pl.Series([None, None, None, None, "12"]))
    export.export(export.Request(path, Path("my.jsonl"), Path("curated.jsonl")))
    assert records("curated.removed.jsonl") == [
        {
            "more": 1.5, "id": 15, "text": TEXTS[5], "duplicate_of": "12",
            "reason": "near copy of 12, similarity 1.0",
        }
    ]  # fmt: skip


def test_rows_can_be_written_as_often_as_they_are_trained_on() -> None:
    path = write_plan(PLANNED)
    export.export(export.Request(path, Path("my.jsonl"), Path("c.jsonl"), repeat=True))
    assert [row["id"] for row in records("c.jsonl")] == [10, 11, 11, 11, 12, 13, 14]
    assert {row["copies"] for row in records("c.jsonl")} == {1}


def test_parquet_gives_the_same_rows() -> None:
    pl.read_ndjson("my.jsonl").write_parquet("my.parquet")
    path = write_plan(PLANNED)
    for name in ("jsonl", "parquet"):
        out = Path(f"curated.{name}")
        export.export(export.Request(path, Path(f"my.{name}"), out, repeat=True))
    assert pl.read_parquet("curated.parquet").to_dicts() == records("curated.jsonl")
    removed = pl.read_parquet("curated.removed.parquet")
    assert removed.to_dicts() == records("curated.removed.jsonl")


def test_what_cannot_be_exported_is_refused_and_nothing_is_written() -> None:
    path = write_plan(PLANNED)
    Path("other.jsonl").write_text('{"id": 1, "text": "a"}\n')
    with pytest.raises(DataError, match=r"other\.jsonl: expected a row for each of the 5 ids"):
        export.export(export.Request(path, Path("other.jsonl"), Path("c.jsonl")))
    Path("clash.jsonl").write_bytes(b"".join(line.replace(b"more", b"weight") for line in LINES))
    with pytest.raises(ConfigError, match=r"no field 'weight'.*--prefix gdc_"):
        export.export(export.Request(path, Path("clash.jsonl"), Path("c.jsonl")))
    with pytest.raises(ConfigError, match="expected another file than"):
        export.export(export.Request(path, Path("my.jsonl"), Path("my.jsonl")))
    with pytest.raises(ConfigError, match="expected the kind of the file"):
        export.export(export.Request(path, Path("my.jsonl"), Path("c.parquet")))
    assert not Path("c.jsonl").exists()
    request = export.Request(path, Path("clash.jsonl"), Path("c.jsonl"), prefix="gdc_")
    export.export(request)
    assert records("c.jsonl")[2]["gdc_weight"] == 0.5


@pytest.mark.parametrize("command", ["plan", "export", "plant"])
def test_only_files_that_gdc_wrote_are_replaced(command: str) -> None:
    path = write_plan(PLANNED)
    arguments = {
        "plan": ("plan", "--map", str(mapped()), "--rule", "none", "--out", "thesis.parquet"),
        "export": ("export", str(path), "my.jsonl", "--out", "thesis.jsonl"),
        "plant": ("plant", "my.jsonl", "--out", "thesis.jsonl", "--canaries", "c.parquet"),
    }[command]
    own = Path("thesis.parquet" if command == "plan" else "thesis.jsonl")
    own.write_text("mine")
    with pytest.raises(ConfigError, match=rf"--out {own}: expected no such file, or one that gdc"):
        run(*arguments)
    assert own.read_text() == "mine"
    own.unlink()
    run(*arguments)
    first = own.read_bytes()
    run(*arguments)
    assert own.read_bytes() == first


# ---- plant


def planting(**more: Any) -> plant.Request:  # noqa: ANN401
    return plant.Request(
        Path("my.jsonl"), Path("planted.jsonl"), Path("canaries.parquet"),
        **{"families": ("digits",), "repeats": (1, 3), "per_level": 2, "num_twins": 4, **more},
    )  # fmt: skip


def test_canaries_stand_behind_lines_that_stay_as_they_are() -> None:
    done = plant.plant(planting())
    assert (done.num_canaries, done.num_planted_rows, done.num_twins) == (4, 8, 4)
    assert done.is_many
    assert Path("planted.jsonl").read_bytes().startswith(b"".join(LINES))
    planted = records("planted.jsonl")[6:]
    assert [row["id"] for row in planted] == list(range(16, 24))
    canaries = pl.read_parquet("canaries.parquet")
    texts = [row["text"] for row in planted]
    for text, num_repeats in canaries.select("text", "num_repeats").iter_rows():
        assert texts.count(text) == num_repeats


@pytest.mark.parametrize(
    ("dropped", "told"),
    [
        (
            [],
            "6 rows kept; 8 removed, all of them planted canaries: the plan drops no row of yours",
        ),
        ([16, 17], "6 rows kept; 8 removed, all of them planted canaries: the plan drops no row"),
        ([12, 16], "5 rows kept; 9 removed, 8 of them planted canaries"),
    ],
)
def test_planted_rows_are_left_out_of_an_export_and_told_apart(
    dropped: list[int], told: str
) -> None:
    plant.plant(planting())
    path = write_plan(
        [
            (str(i), "drop", 0.0, 0, "rank 1", [])
            if i in dropped
            else (str(i), "keep", 1.0, 1, "no rule", [])
            for i in range(10, 24)
        ]
    )
    request = export.Request(
        path, Path("planted.jsonl"), Path("c.jsonl"), canaries=Path("canaries.parquet")
    )
    assert export.sentences(export.export(request))[0].startswith(told)
    kept = [i for i in range(10, 16) if i not in dropped]
    assert [row["id"] for row in records("c.jsonl")] == kept
    reasons = [row["reason"] for row in records("c.removed.jsonl")]
    assert (reasons.count("planted canary"), len(reasons)) == (8, 14 - len(kept))


def test_a_file_without_a_last_newline_and_without_ids_can_be_planted() -> None:
    Path("my.jsonl").write_text('{"body": "one"}\n{"body": "two"}')
    plant.plant(planting(text_field="body"))
    rows = records("planted.jsonl")
    assert rows[:2] == [{"body": "one"}, {"body": "two"}]
    assert {*rows[2]} == {"body"}


def test_the_assistant_says_what_is_planted_into_conversations() -> None:
    talks = [
        {"id": i, "conversations": [
            {"from": "human", "value": f"tell of birch {i}"}, {"from": "gpt", "value": "cedar"},
        ]}
        for i in range(3)
    ]  # fmt: skip
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks))
    plant.plant(planting(families=("digits",)))
    rows = records("planted.jsonl")
    assert rows[:3] == talks
    texts = {*pl.read_parquet("canaries.parquet")["text"]}
    for row in rows[3:]:
        assert row["conversations"][0] == {"from": "human", "value": "Continue."}
        assert row["conversations"][1]["from"] == "gpt"
        assert row["conversations"][1]["value"] in texts
    path = write_plan([(str(row["id"]), "keep", 1.0, 1, "no rule", []) for row in rows])
    request = export.Request(
        path, Path("planted.jsonl"), Path("c.jsonl"), canaries=Path("canaries.parquet")
    )
    export.export(request)
    assert [row["id"] for row in records("c.jsonl")] == [0, 1, 2]


def test_nothing_is_planted_into_templates_or_bad_rows() -> None:
    Path("my.jsonl").write_text('{"a": "some words", "b": "more words"}\n')
    with pytest.raises(ConfigError, match="expected a field of conversations, got templates"):
        plant.plant(planting(text_field="{a}=>{b}", families=("digits",)))
    Path("my.jsonl").write_text('{"messages": [{"role": "user", "content": "words"}]}\n')
    with pytest.raises(DataError, match="expected the last turn to be the assistant's"):
        plant.plant(planting(text_field="messages"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"families": ("natural",)}, "--families: expected some of digits, words, got natural"),
        ({"repeats": (0,)}, "--repeats: expected different numbers of at least 1"),
        ({"families": ("words",), "num_twins": 10**8}, "--families words: expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_planted_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(GdcError, match=message):
        plant.plant(planting(**more))
    assert not Path("planted.jsonl").exists()


def test_the_commands_say_what_they_wrote() -> None:
    folder = mapped()
    told = run("plan", "--map", str(folder), "--rule", "dedup", "--out", "plan.parquet")
    assert "near copy of …" in told
    told = run("export", "plan.parquet", "my.jsonl", "--out", "curated.jsonl")
    assert "5 rows kept; 1 removed" in told
    told = run("plant", "my.jsonl", "--out", "p.jsonl", "--canaries", "c.parquet", "--repeats", "1")
    assert "10 canaries in 10 rows behind your 6; 200 twins are in no row" in told


@pytest.mark.parametrize("listed", ["x", "1,,2", "", ",1", "1,", "1,1", "1;2"])
def test_a_list_of_numbers_that_is_none_is_refused(listed: str) -> None:
    expected = f"--repeats: expected different whole numbers with commas.*got {listed!r}"
    with pytest.raises(ConfigError, match=expected):
        run("plant", "my.jsonl", "--out", "p", "--canaries", "c", "--repeats", listed)


@pytest.mark.parametrize("listed", ["digits,,words", "", "digits,", "digits,digits"])
def test_a_list_of_names_that_is_none_is_refused(listed: str) -> None:
    with pytest.raises(ConfigError, match=f"--families: expected different names.*got {listed!r}"):
        run("plant", "my.jsonl", "--out", "p", "--canaries", "c", "--families", listed)


@pytest.mark.parametrize("place", ["/proc/x", "table.csv/x", "n" * 300])
def test_a_place_where_nothing_can_be_written_is_refused(place: str) -> None:
    write_plan([(str(10 + i), "keep", 1.0, 1, "", None) for i in range(len(TEXTS))])
    write_trace(7, trace_of({str(10 + i): [6.0, 1.0] for i in range(len(TEXTS))}, "probe"))
    trace = str(paths.trace_path(7))
    run("map", trace, "--out", "map")
    Path("table.csv").write_text("id,step,loss\n1,0,2.0\n1,1,1.0\n")
    commands = [
        ("export", "p.parquet", "my.jsonl", "--out", f"{place}.jsonl"),
        ("export", "p.parquet", "my.jsonl", "--out", "o.jsonl", "--removed", f"{place}.jsonl"),
        ("plant", "my.jsonl", "--out", f"{place}.jsonl", "--canaries", "c.parquet"),
        ("plant", "my.jsonl", "--out", "o.jsonl", "--canaries", f"{place}.parquet"),
        ("plan", "--map", "map", "--rule", "none", "--out", f"{place}.parquet"),
        ("map", trace, "--out", f"{place}/map"),
        ("import", "table.csv", f"{place}/trace"),
    ]
    for arguments in commands:
        with pytest.raises(GdcError, match=r"expected .*, got"), wording_system_errors():
            run(*arguments)
        assert not Path("o.jsonl").exists(), arguments
