"""Data sets of Hugging Face, saved, as folders and on the Hub."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import datasets
import huggingface_hub
import polars as pl
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    RepositoryNotFoundError,
)

from gdc.corpus.sources import (
    fingerprint,
)
from gdc.errors import DataError, GdcError, TransientError
from tests.corpus.sources.builders import good, hub, read, write_lines


def saved(texts: Sequence[object], split: str | None = None) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": list(texts), "n": list(range(len(texts)))}, split=split
    )


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_saved_data_set_is_read() -> None:
    saved(["one", "two"]).save_to_disk("d")
    assert good(hub("d")) == [("one", "d:train:1"), ("two", "d:train:2")]


def test_bad_rows_of_a_data_set_are_told() -> None:
    saved(["one", None, " "]).save_to_disk("d")
    assert read(hub("d")).bad_rows.rows() == [
        ("d:train:2", "text is null"),
        ("d:train:3", "empty text"),
    ]


def test_one_of_several_saved_splits_is_read() -> None:
    splits = datasets.DatasetDict({"train": saved(["a"]), "test": saved(["b"])})
    splits.save_to_disk("d")
    assert good(hub("d", "test")) == [("b", "d:test:1")]
    with pytest.raises(DataError, match=r"split 'dev' in d, got splits \['test', 'train'\]"):
        read(hub("d", "dev"))


def test_a_saved_split_of_another_name_is_refused() -> None:
    saved(["a"], split="test").save_to_disk("d")
    with pytest.raises(DataError, match=r"expected split 'train' in d, got splits \['test'\]"):
        read(hub("d"))


def test_a_folder_of_parquet_files_is_read_anew_each_time(no_hub: None) -> None:
    del no_hub
    Path("d").mkdir()
    for content in ("old", "new"):
        pl.DataFrame({"text": [content]}).write_parquet("d/train.parquet")
        os.utime("d/train.parquet", (1, 1))
        assert good(hub("d")) == [(content, "d:train:1")]


def test_an_unknown_split_or_column_of_a_folder_is_told_with_those_there(no_hub: None) -> None:
    del no_hub
    Path("d").mkdir()
    pl.DataFrame({"text": ["a"], "n": [1]}).write_parquet("d/train.parquet")
    with pytest.raises(DataError, match=r"data set 'd': .* got: Unknown split \"dev\".*train"):
        read(hub("d", "dev"))
    with pytest.raises(DataError, match=r"expected column 'body', got columns \['text', 'n'\]"):
        read(hub("d", text_field="body"))


def test_a_folder_or_file_that_is_no_data_set_is_refused(no_hub: None) -> None:
    del no_hub
    write_lines("d/notes.xyz", [b"x"])
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"data set 'd': expected a data set that can be loaded"):
        read(hub("d"))
    with pytest.raises(DataError, match="expected files, got an empty folder: 'empty'"):
        fingerprint(hub("empty"))
    with pytest.raises(DataError, match=r"expected a folder or a Hub name, got a file: 'd/notes"):
        fingerprint(hub("d/notes.xyz"))


def test_a_local_data_set_is_known_by_its_files_without_hidden_ones() -> None:
    write_lines("d/train.parquet", [b"x"])
    first = fingerprint(hub("d"))
    write_lines("d/.git/index", [b"x"])
    assert fingerprint(hub("d")) == first
    assert list(first["files"]) == ["d/train.parquet"]


def test_a_hub_that_does_not_answer_may_answer_later(no_hub: None) -> None:
    del no_hub
    for call in (fingerprint, read):
        with pytest.raises(TransientError, match="data set 'nobody/nothing'"):
            call(hub("nobody/nothing"))


def test_offline_the_revision_asked_for_is_the_commit(no_hub: None) -> None:
    del no_hub
    assert fingerprint(hub("nobody/nothing", revision="v1"))["commit"] == "v1"


def test_the_commit_of_a_hub_data_set_is_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset_info(_api: object, path: str, *, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(sha=f"commit of {path} at {revision}")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    found = fingerprint(hub("somebody/something", revision="main"))
    assert found["commit"] == "commit of somebody/something at main"


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (RepositoryNotFoundError, DataError, "revision None: no such folder here, and not on the"),
        (HfHubHTTPError, TransientError, "expected an answer, got HfHubHTTPError"),
    ],
)
def test_what_is_not_on_the_hub_is_told_from_a_hub_in_trouble(
    answer: type[HfHubHTTPError],
    expected: type[GdcError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dataset_info(*_: object, revision: None) -> None:
        del revision
        raise answer("no", response=Mock(headers={}))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(expected, match=message):
        fingerprint(hub("somebody/something"))


def test_a_path_that_is_neither_a_folder_nor_a_hub_name_is_refused(no_hub: None) -> None:
    del no_hub
    for call in (fingerprint, read):
        with pytest.raises(DataError, match=r"data set '\./a/b/c'"):
            call(hub("./a/b/c"))


@pytest.mark.slow
def test_the_lazy_imports_suffice_in_a_fresh_python() -> None:
    imports = "from gdc import config; from gdc.corpus import sources; "
    code = f"{imports}sources.fingerprint(config.{hub('a/b')!r})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr.splitlines()[-1].startswith("gdc.errors.TransientError: ingest.source: data")


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'gendatacarto\[huggingface\]'"):
        read(hub("d"))
