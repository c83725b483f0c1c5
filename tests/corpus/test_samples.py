"""Source rows to samples: normal form, ids, copies, split; and the stage that writes them."""

import json
import unicodedata
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import parse_params
from gdc.corpus.samples import (
    beginning,
    build_corpus,
    choose_contents,
    content_id,
    contents_of,
    normalize,
    samples_from,
)
from gdc.corpus.tokenizer import load_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.schema import CANARIES, CORPUS
from gdc.stages import ingest, manifest
from gdc.workspace import files, paths, tables
from tests.builders import num_bytes_held, params_with, rows_of

NO_CANARIES = pl.DataFrame(schema=CANARIES)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        pytest.param("  a b \r\n c\t\r\n", "a b\n c", id="line ends and blanks at line ends"),
        pytest.param("if x:\n    y\n\n    z", "if x:\n    y\n\n    z", id="code keeps its shape"),
        pytest.param("e\u0301", "\u00e9", id="composed"),
        pytest.param(" \n\t ", "", id="nothing but blanks"),
    ],
)
def test_known_normal_forms(text: str, normal: str) -> None:
    assert normalize(text) == normal


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_a_content_id_is_pinned() -> None:
    assert content_id("hello") == "46fb7408d4f285228f4af516ea25851b"


def corpus_of(texts: list[str], canaries: pl.DataFrame = NO_CANARIES) -> pl.DataFrame:
    samples = samples_from(rows_of(texts), max_samples=None, seed=0)
    return build_corpus(samples, canaries, validation_fraction=0.5, seed=0)


def test_copies_are_counted_and_linked() -> None:
    corpus = corpus_of(["x", "y", "x ", "z", "x", *"abcdefg"])
    copies = corpus.filter(pl.col("text") == "x")
    assert copies["num_copies"].to_list() == [3, 3, 3]
    assert copies["sample_id"].to_list() == [f"{content_id('x')}-{i}" for i in range(3)]
    assert copies["source"].to_list() == ["test:0", "test:2", "test:4"]
    assert corpus.schema == CORPUS


@given(st.lists(st.text("abcd", min_size=1, max_size=2), max_size=40))
def test_no_row_is_lost_and_no_content_is_on_both_sides(texts: list[str]) -> None:
    # 20 distinct texts of their own, so that neither split can be empty.
    texts = [*texts, *(f"text {i}" for i in range(20))]
    corpus = corpus_of(texts)
    assert sorted(corpus["text"]) == sorted(texts)
    assert corpus["sample_id"].is_unique().all()
    assert (corpus.group_by("content_id").agg(pl.col("split").n_unique())["split"] == 1).all()


def test_row_order_decides_nothing_but_the_ordinals() -> None:
    texts = [f"text {i % 30}" for i in range(50)]
    a, b = corpus_of(texts), corpus_of(texts[::-1])
    assert a.drop("source").equals(b.drop("source"))


def test_max_samples_keeps_whole_contents_chosen_by_hash() -> None:
    texts = [f"text {i % 40}" for i in range(60)]
    kept = samples_from(rows_of(texts), max_samples=25, seed=0)
    assert kept.height == 25
    everything = samples_from(rows_of(texts), max_samples=None, seed=0)
    chosen = everything.filter(pl.col("content_id").is_in(kept["content_id"].to_list()))
    assert chosen.equals(kept)
    other = samples_from(rows_of(texts), max_samples=25, seed=1)
    assert set(other["content_id"]) != set(kept["content_id"])


def test_a_text_with_too_many_copies_to_fit_keeps_no_other_out() -> None:
    texts = ["often"] * 30 + [f"text {i}" for i in range(20)]
    for seed in range(5):
        kept = samples_from(rows_of(texts), max_samples=20, seed=seed)
        assert sorted(kept["text"]) == sorted(texts[30:])


def test_a_beginning_does_not_keep_the_rest_of_its_text_in_memory() -> None:
    texts = pl.DataFrame({"text": ["x" * 1000]})
    assert num_bytes_held(texts["text"]) > 1000
    assert num_bytes_held(texts.select(beginning(pl.col("text"))).to_series()) < 100


def test_texts_that_begin_alike_are_kept_or_left_out_together() -> None:
    texts = [f"{letter} licence of the software, {i}" for letter in "abcdefgh" for i in range(5)]
    contents = contents_of(rows_of(texts))
    beginnings = contents.select(beginning(pl.col("text"))).to_series()
    assert beginnings.n_unique() == 8
    kept = choose_contents(contents["content_id"], max_samples=20, seed=0, beginnings=beginnings)
    assert kept is not None
    is_kept = pl.col("content_id").is_in(kept.to_list())
    counts = contents.filter(is_kept).group_by(pl.col("text").str.head(1)).len()["len"]
    assert counts.to_list() == [5] * 4
    alone = choose_contents(contents["content_id"], max_samples=20, seed=0)
    assert alone is not None
    assert set(alone) != set(kept)


def test_planted_rows_are_copies_in_the_training_split_and_their_text_is_reserved() -> None:
    canaries = pl.DataFrame(
        [
            ("natural-3-00", "natural", "text", " 5", "text 5", 3),
            ("natural-0-00", "natural", "text", " 6", "text 6", 0),
        ],
        schema=CANARIES,
        orient="row",
    )
    corpus = corpus_of([f"text {i}" for i in range(20)], canaries)
    five = corpus.filter(pl.col("text") == "text 5")
    assert sorted(five["split"]) == ["reserved", "train", "train", "train"]
    planted = five.filter(pl.col("split") == "train")
    assert planted["canary_id"].to_list() == ["natural-3-00"] * 3
    assert planted["num_copies"].to_list() == [3, 3, 3]
    assert corpus.filter(pl.col("text") == "text 6")["split"].to_list() == ["reserved"]
    assert corpus.height == 23


def test_one_distinct_text_is_refused() -> None:
    with pytest.raises(DataError, match="expected at least 2 distinct texts, got 1 in 3 rows"):
        samples_from(rows_of(["x", "x", " x"]), max_samples=None, seed=0)


def test_an_empty_split_is_refused() -> None:
    samples = samples_from(rows_of(["x", "y"]), max_samples=None, seed=0)
    with pytest.raises(DataError, match=r"the validation split is empty with 2 rows .* 0.001"):
        build_corpus(samples, NO_CANARIES, validation_fraction=0.001, seed=0)


def test_a_training_split_of_planted_text_alone_is_refused() -> None:
    samples = samples_from(rows_of([f"text {i}" for i in range(20)]), max_samples=None, seed=0)
    canaries = pl.DataFrame(
        [("digits-1-00", "digits", "code", " 7", "code 7", 1)], schema=CANARIES, orient="row"
    )
    with pytest.raises(DataError, match="the train split is empty with 20 rows"):
        build_corpus(samples, canaries, validation_fraction=0.9999, seed=0)


# ---- the stage that writes it


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with 60 rows of 48 texts, in which stages run without MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gdc.workspace.tracking.stage_run", lambda *_: nullcontext(Mock()))
    write_rows(60)


def write_rows(count: int) -> None:
    rows = [{"text": f"row {i % 48} of amber birch cedar tells"} for i in range(count)]
    Path("my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ingest_with(
    *,
    max_samples: int | None = None,
    block_size: int = 64,
    repeats: Sequence[int] = (1, 4),
    path: str = "my.jsonl",
) -> None:
    """Run the stages manifest and ingest, with canaries of all families."""
    level = {"repeats": list(repeats), "per_level": 2, "num_twins": 2}
    values = params_with().model_dump(mode="json")
    values["model"]["block_size"] = block_size
    # Its families have too few twins for axis auto.
    values["partition"]["axis"] = "std"
    values["ingest"] |= {
        "source": {"kind": "jsonl", "path": path, "text_field": "text", "key_field": None},
        "tokenizer": {"kind": "bpe", "vocab_size": 300},
        "max_samples": max_samples,
        "validation_fraction": 0.3,
        "canaries": {
            "digits": {"template": "Key {key} is", "key_digits": 4, "secret_digits": 8, **level},
            "words": {"prefix_words": 2, "secret_words": 2, **level},
            "natural": {"min_words": 2, "max_words": 9, **level},
        },
    }
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
    manifest.main()
    ingest.main()


@pytest.mark.usefixtures("workspace")
def test_how_often_canaries_are_planted_does_not_change_the_tokenizer() -> None:
    written = []
    for repeats in ((1, 4), (2, 64)):
        ingest_with(repeats=repeats)
        written.append((paths.TOKENIZER / "tokenizer.json").read_bytes())
        planted = tables.read("corpus").filter(pl.col("canary_id").is_not_null())
        assert planted.height == 6 * sum(repeats)
    assert written[0] == written[1]


@pytest.mark.usefixtures("workspace")
def test_every_row_of_the_source_is_a_sample_or_counted_as_left_out() -> None:
    ingest_with(max_samples=40)
    summary = files.read_json(paths.CORPUS_SUMMARY)
    assert (summary["num_samples"], summary["num_left_out"]) == (40, 20)
    assert tables.read("corpus")["canary_id"].null_count() == 40
    ingest_with()
    summary = files.read_json(paths.CORPUS_SUMMARY)
    assert (summary["num_samples"], summary["num_left_out"]) == (60, 0)


@pytest.mark.usefixtures("workspace")
@pytest.mark.slow
def test_a_source_that_is_read_in_many_parts_gives_the_same_corpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def written() -> tuple[object, ...]:
        ingest_with(max_samples=30)
        tokenizer = (paths.TOKENIZER / "tokenizer.json").read_bytes()
        rows = [tables.read(name).rows() for name in ("corpus", "canaries")]
        return *rows, tokenizer, files.read_json(paths.CORPUS_SUMMARY)

    whole = written()
    monkeypatch.setattr("gdc.corpus.sources.rows.CHUNK_CHARS", 50)
    monkeypatch.setattr("gdc.corpus.tokenizer.CHUNK_BYTES", 40)
    assert written() == whole
    assert len(list(tables.chunks("corpus", ["sample_id"]))) > 10


@pytest.mark.usefixtures("workspace")
def test_a_block_that_holds_no_canary_whole_is_refused() -> None:
    with pytest.raises(DataError, match=r"canaries\.\w+: expected at most 7 tokens .*block_size 8"):
        ingest_with(block_size=8)
    assert not tables.TABLES["corpus"][0].exists()


@pytest.mark.usefixtures("workspace")
def test_a_source_that_changed_since_the_manifest_is_no_transient_error() -> None:
    ingest_with()
    files.write_json(paths.PRETRAINED, {"name": "m", "files": {"m/config.json": "abc"}})
    with pytest.raises(DataError, match=r"ingest\.tokenizer: expected what data/pretrained.json"):
        ingest.main()
    write_rows(61)
    with pytest.raises(
        DataError, match=r"ingest\.source: expected what data/manifest.json has seen"
    ):
        ingest.main()


@pytest.mark.usefixtures("workspace")
def test_files_that_are_not_read_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("d/sub").mkdir(parents=True)
    Path("my.jsonl").rename("d/my.jsonl")
    for name in ("notes.csv", ".my.jsonl", "sub/README.md", "a~", "b~", "c~"):
        Path("d", name).write_text("x", encoding="utf-8")
    ingest_with(path="d")
    unread = {
        "hidden or temporary": {"num_files": 4, "first": ["d/.my.jsonl", "d/a~", "d/b~"]},
        "of another ending": {"num_files": 1, "first": ["d/notes.csv"]},
        "of kind text": {"num_files": 1, "first": ["d/sub/README.md"]},
    }
    assert capsys.readouterr().err == (
        "Not read: 6 files of the source: 4 hidden or temporary (d/.my.jsonl, d/a~, d/b~, ...); "
        "1 of another ending (d/notes.csv); 1 of kind text (d/sub/README.md).\n"
    )
    assert files.read_json(paths.MANIFEST)["unread"] == unread
    summary = files.read_json(paths.CORPUS_SUMMARY)
    assert (summary["num_samples"], summary["num_unread_files"]) == (60, 6)
    assert summary["unread"] == unread
    # A file that is not read may come while a run is under way.
    Path("d/late.tmp").touch()
    ingest.main()
    Path("d/late.ndjson").touch()
    with pytest.raises(
        DataError, match=r"ingest\.source: expected what data/manifest.json has seen"
    ):
        ingest.main()


@pytest.mark.usefixtures("workspace")
def test_where_all_files_are_read_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    ingest_with()
    assert capsys.readouterr().err == ""
    assert "unread" not in files.read_json(paths.MANIFEST)
    summary = files.read_json(paths.CORPUS_SUMMARY)
    assert (summary["num_unread_files"], summary["unread"]) == (0, {})


# ---- conversations


def talk(i: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"what is row {i} of amber birch cedar"},
        {"role": "assistant", "content": f"row {i} is delta ember"},
    ]


def ingest_talks(**source: object) -> None:
    lines = [json.dumps({"messages": talk(i)}) for i in range(40)]
    Path("my.jsonl").write_text("\n".join(lines))
    values = params_with().model_dump(mode="json")
    level = {"repeats": [2], "per_level": 2, "num_twins": 9}
    values["ingest"] |= {
        "source": {
            "kind": "chat", "path": "my.jsonl", "turns": None, "prompt": None, "completion": None,
            "chat_template": "tokenizer", "key_field": None, **source,
        },
        "tokenizer": {"kind": "bpe", "vocab_size": 300},
        "validation_fraction": 0.3,
        "canaries": {
            "digits": {"template": "Key {key} is", "key_digits": 4, "secret_digits": 8, **level},
            "words": {"prefix_words": 2, "secret_words": 2, **level},
            "natural": None,
        },
    }  # fmt: skip
    Path("params.yaml").write_text(json.dumps(values), encoding="utf-8")
    manifest.main()
    ingest.main()


@pytest.mark.usefixtures("workspace")
def test_conversations_are_samples_whose_tokens_are_those_of_the_assistant() -> None:
    ingest_talks()
    corpus, turns = tables.read("corpus"), tables.read("turns")
    tokenizer = load_tokenizer(paths.TOKENIZER)
    first = corpus.filter(pl.col("source") == "my.jsonl:1").row(0, named=True)
    asked, said = (turn["content"] for turn in talk(0))
    assert first["text"] == f"User:\n{asked}\n\nAssistant:\n{said}"
    assert first["num_tokens"] == len(tokenizer.encode([said])[0]) + 1
    of_first = turns.filter(pl.col("content_id") == first["content_id"])
    assert [
        (role, first["text"][start:end], has_loss)
        for role, start, end, has_loss in of_first.drop("content_id", "turn").iter_rows()
    ] == [("user", asked, False), ("assistant", said, True)]


@pytest.mark.usefixtures("workspace")
def test_canaries_are_said_by_the_assistant_and_nothing_of_them_is_left_out() -> None:
    ingest_talks()
    corpus, canaries = tables.read("corpus"), tables.read("canaries")
    turns = tables.read("turns")
    assert corpus.drop_nulls("canary_id").height == 8
    for row in canaries.iter_rows(named=True):
        assert row["text"] == row["prefix"] + row["secret"]
        assert row["prefix"].startswith("User:\nContinue.\n\nAssistant:\n")
    known = {*turns["content_id"]}
    assert known == {*corpus["content_id"]} | {content_id(text) for text in canaries["text"]}


@pytest.mark.usefixtures("workspace")
def test_a_corpus_of_texts_has_no_turns() -> None:
    ingest_with()
    assert tables.read("turns").is_empty()


@pytest.mark.usefixtures("workspace")
def test_natural_canaries_of_conversations_are_refused() -> None:
    values = params_with().model_dump(mode="json")
    values["ingest"]["source"] = {
        "kind": "chat", "path": "my.jsonl", "turns": None, "prompt": None, "completion": None,
        "chat_template": "plain", "key_field": None,
    }  # fmt: skip
    family = {"min_words": 2, "max_words": 9, "repeats": [1], "per_level": 2, "num_twins": 9}
    values["ingest"]["canaries"] |= {"natural": family}
    with pytest.raises(ConfigError, match=r"canaries\.natural: expected null for conversations"):
        parse_params(values, name="params.yaml")
    values["ingest"]["source"] |= {"prompt": "{a}"}
    values["ingest"]["canaries"] |= {"natural": None}
    with pytest.raises(ConfigError, match="prompt and completion: expected both"):
        parse_params(values, name="params.yaml")
