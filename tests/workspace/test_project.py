"""The source of text in params.yaml: how it is described, known by its files, and put there."""

import gzip
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from gdc.config import Source
from gdc.corpus.sources import fingerprint
from gdc.errors import ConfigError, DataError
from gdc.workspace import files
from gdc.workspace.project import edited_stages, preset_names
from gdc.workspace.source_option import (
    describe_source,
    params_with,
    splice_source,
    write_source,
)
from tests.builders import OWN_TEXTS, preset_text

SOURCES: Sequence[Mapping[str, Any]] = (
    OWN_TEXTS,
    {"kind": "python-docs"},
    {"kind": "text", "path": "texts", "unit": "paragraph"},
    {"kind": "parquet", "path": "true", "text_field": "text", "key_field": None},
)


def load(text: str) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(text)
    return values


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is no DVC workspace yet, as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_a_new_source_leaves_every_other_line_as_it_was() -> None:
    text = (
        "# head\n"
        "ingest:\n"
        "  source:              # where from\n"
        "    kind: python-docs  # or jsonl\n"
        "\n"
        "  # at most\n"
        "  max_samples: null\n"
        "seed: 0\n"
    )
    assert splice_source(text, OWN_TEXTS) == (
        "# head\n"
        "ingest:\n"
        "  source:\n"
        "    kind: jsonl        # or jsonl\n"
        '    path: "my texts.jsonl"\n'
        "    text_field: body\n"
        "    key_field: null\n"
        "\n"
        "  # at most\n"
        "  max_samples: null\n"
        "seed: 0\n"
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source["kind"]))
@pytest.mark.parametrize("preset", preset_names())
def test_only_the_source_changes_in_every_preset(preset: str, source: Mapping[str, Any]) -> None:
    text = preset_text(preset)
    spliced = splice_source(text, source)
    before, after = load(text), load(spliced)
    assert after["ingest"].pop("source") == source
    before["ingest"].pop("source")
    assert after == before
    assert splice_source(spliced, source) == spliced


@given(path=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(path="\U0001f600/\u2028/\x7f\x85\ufeff.txt")
def test_any_path_of_a_source_is_read_as_written(path: str) -> None:
    text = "ingest:\n  source: {kind: python-docs}\nseed: 0\n"
    spliced = splice_source(text, {**OWN_TEXTS, "path": path})
    assert load(spliced)["ingest"]["source"]["path"] == path


def test_a_source_in_one_line_can_be_replaced_too() -> None:
    text = "ingest:\n  source: {kind: python-docs}\nseed: 0\n"
    assert load(splice_source(text, OWN_TEXTS)) == {
        "ingest": {"source": OWN_TEXTS},
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("names", "source", "kind"),
    [
        pytest.param(["a.jsonl"], "a.jsonl", "jsonl", id="a jsonl file"),
        pytest.param(["a.NDJSON"], "a.NDJSON", "jsonl", id="its other suffix, in capitals"),
        pytest.param(["a.parquet"], "a.parquet", "parquet", id="a parquet file"),
        pytest.param(["a.md"], "a.md", "text", id="a text"),
        pytest.param(["f/a.txt", "f/b.txt"], "f", "text", id="a folder of texts"),
        pytest.param(["f/deep/a.jsonl", "f/README"], "f", "jsonl", id="a folder, at any depth"),
        pytest.param(["f/a.JSONL", "f/README.md"], "f", "jsonl", id="a README beside data"),
        pytest.param(["f/README.md", "f/x.csv"], "f", "text", id="nothing but a README"),
        pytest.param(["f/a.ndjson.gz", "f/.b.txt"], "f", "jsonl", id="compressed, hidden others"),
        pytest.param(["a.MD.zst"], "a.MD.zst", "text", id="a compressed text"),
        pytest.param(["f/a.parq", "f/b.pq"], "f", "parquet", id="other endings of Parquet"),
        pytest.param(
            ["f/dataset_info.json", "f/state.json", "f/data-00000-of-00001.arrow"],
            "f",
            "huggingface",
            id="a saved data set",
        ),
        pytest.param(["a.bin", "a.idx"], "a.bin", "tokens", id="token ids"),
        pytest.param(["f/a.bin", "f/b.txt"], "f", "text", id="texts beside other .bin files"),
        pytest.param([], "python-docs", "python-docs", id="a name"),
    ],
)
def test_a_source_is_known_by_its_files(
    workspace: Path, names: list[str], source: str, kind: str
) -> None:
    for name in names:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    assert describe_source(source, "text")["kind"] == kind


@pytest.mark.parametrize(
    ("names", "source", "got"),
    [
        pytest.param(["a.xlsx"], "a.xlsx", r"\.xlsx", id="another suffix"),
        pytest.param(["a.csv.gz"], "a.csv.gz", r"a \.csv file\. Make JSON lines", id="a table"),
        pytest.param(["f/x"], "f", "a folder with none of them", id="a folder of nothing"),
        pytest.param(
            ["f/a.txt", "f/a.jsonl", "f/b.ndjson"],
            "f",
            "a folder with files of several kinds: 2 jsonl and 1 text. Name a folder of one",
            id="two kinds",
        ),
        pytest.param(["a.parquet.gz"], "a.parquet.gz", r"\.gz", id="Parquet compresses by itself"),
        pytest.param(
            ["a.json"],
            "a.json",
            r"a \.json file\. Make JSON lines of it: jq -c '\.' FILE",
            id="a json file",
        ),
    ],
)
def test_another_source_is_refused(
    workspace: Path, names: list[str], source: str, got: str
) -> None:
    for name in names:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    with pytest.raises(
        DataError, match=rf"--source {source}: expected .* got {got}.*\. Other sources: "
    ):
        describe_source(source, "text")


def test_a_source_that_is_not_there_is_told_with_the_folder_that_it_was_looked_for_in(
    workspace: Path,
) -> None:
    for option, more in (("--source", r" Other sources: ingest\.source.*"), ("--corpus", "")):
        message = rf"{option} a/b\.jsonl: not found in {workspace}\. Mend the path\.{more}$"
        with pytest.raises(DataError, match=message):
            describe_source("a/b.jsonl", "text", option)


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.csv.gz"])
def test_the_command_that_a_table_is_answered_with_makes_a_source(
    workspace: Path, name: str
) -> None:
    separator = "\t" if "TSV" in name else ","
    content = f"id{separator}text\n1{separator}one\n2{separator}two\n".encode()
    (workspace / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError) as error:
        describe_source(name, "text")
    (program,) = re.findall(r"python -c \"(.*)\"", str(error.value))
    exec(program.replace("FILE", name))  # noqa: S102 - a line of our own
    assert describe_source("NEW.jsonl", "text")["kind"] == "jsonl"
    rows = [json.loads(line) for line in Path("NEW.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["one", "two"]


def test_a_question_for_edited_stages_leaves_no_file(workspace: Path) -> None:
    assert "train" in edited_stages()
    assert list(workspace.iterdir()) == []


def test_a_source_that_would_break_params_is_not_written(workspace: Path) -> None:
    broken = preset_text("docs").replace("seed: 0 ", "seed: -1 ")
    (workspace / "params.yaml").write_text(broken)
    with pytest.raises(ConfigError, match="seed"):
        write_source(OWN_TEXTS)
    with pytest.raises(ConfigError, match="seed"):
        params_with(OWN_TEXTS)
    assert (workspace / "params.yaml").read_text() == broken


def test_params_with_a_source_are_those_that_would_be_written(workspace: Path) -> None:
    (workspace / "params.yaml").write_text(preset_text("docs"))
    foreseen = params_with(OWN_TEXTS)
    assert (workspace / "params.yaml").read_text() == preset_text("docs")
    write_source(OWN_TEXTS)
    assert foreseen == files.load_params()


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_ends_of_lines_stay_as_they_are(workspace: Path, ends: str) -> None:
    text = preset_text("docs").replace("\n", ends)
    (workspace / "params.yaml").write_bytes(text.encode())
    write_source(OWN_TEXTS)
    written = (workspace / "params.yaml").read_bytes().decode()
    head, _, tail = text.partition("    kind: python-library     # python-docs, jsonl, parquet,")
    assert written.startswith(head)
    assert written.endswith(tail.partition(ends)[2])
    assert written.count("\r") == (written.count("\n") if ends == "\r\n" else 0)
    assert files.load_params().ingest.source.model_dump() == OWN_TEXTS


@pytest.mark.parametrize("text", ["", "[1, 2]", "null"])
def test_params_that_are_no_mapping_are_refused_with_a_source_too(
    workspace: Path, text: str
) -> None:
    (workspace / "params.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"params\.yaml: expected a mapping of sections"):
        write_source(OWN_TEXTS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a"])
def test_a_pipe_is_refused_before_it_is_opened(workspace: Path, name: str) -> None:
    os.mkfifo(workspace / name)
    with pytest.raises(DataError, match=rf"--source {name}: expected a regular file, got a named"):
        describe_source(name, "text")
    source = source_of_kind("jsonl", name)
    with pytest.raises(DataError, match=rf"{name}: expected a regular file, got a named pipe"):
        fingerprint(source)


def source_of_kind(kind: str, path: str) -> Source:
    return TypeAdapter[Source](Source).validate_python({**OWN_TEXTS, "kind": kind, "path": path})
