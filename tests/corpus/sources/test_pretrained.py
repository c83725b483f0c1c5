"""Pretrained tokenizers: what identifies them, offline and on the Hub."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gdc.config import (
    BpeTokenizer,
    PretrainedTokenizer,
)
from gdc.corpus.sources import (
    fingerprint_pretrained,
)
from gdc.errors import ConfigError, GdcError, TransientError
from tests.corpus.sources.builders import write_lines

COMMIT, NEXT_COMMIT = "1" * 40, "2" * 40


def pretrained(name: str, revision: str | None = None) -> PretrainedTokenizer:
    return PretrainedTokenizer(kind="pretrained", name=name, revision=revision)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's local cache, which holds nothing of somebody/model yet."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/models--somebody--model"


def cached(cache: Path, branch: str, commit: str) -> None:
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / branch).write_text(commit, encoding="utf-8")


def test_a_tokenizer_that_is_trained_here_has_no_content_yet() -> None:
    assert fingerprint_pretrained(BpeTokenizer(kind="bpe", vocab_size=300)) == {}


def test_a_local_model_is_known_by_the_bytes_of_its_files() -> None:
    write_lines("m/config.json", [b"{}"])
    write_lines("m/model.safetensors", [b"weights"])
    first = fingerprint_pretrained(pretrained("m"))
    assert list(first["files"]) == ["m/config.json", "m/model.safetensors"]
    write_lines("m/.git/index", [b"x"])
    os.utime("m/config.json", (1, 1))
    assert fingerprint_pretrained(pretrained("m")) == first
    write_lines("m/model.safetensors", [b"Weights"])
    assert fingerprint_pretrained(pretrained("m")) != first


def test_offline_a_hub_name_is_the_commit_that_the_cache_resolves(cache: Path) -> None:
    cached(cache, "main", COMMIT)
    expected = {"name": "somebody/model", "commit": COMMIT}
    assert fingerprint_pretrained(pretrained("somebody/model")) == expected
    assert fingerprint_pretrained(pretrained("somebody/model", COMMIT)) == expected
    cached(cache, "main", NEXT_COMMIT)
    assert fingerprint_pretrained(pretrained("somebody/model"))["commit"] == NEXT_COMMIT


def test_online_a_hub_name_is_the_commit_that_the_hub_names(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(cache, "main", COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "repo_info", lambda *_, **__: SimpleNamespace(sha=NEXT_COMMIT))
    monkeypatch.setattr(api, "list_repo_tree", lambda *_, **__: [])
    assert fingerprint_pretrained(pretrained("somebody/model"))["commit"] == NEXT_COMMIT


@pytest.mark.parametrize("name", ["somebody/model", "./connect", "no/such/folder"])
def test_offline_a_name_that_is_nowhere_is_a_mistake(name: str, cache: Path) -> None:
    del cache
    with pytest.raises(ConfigError, match=f"ingest.tokenizer.name: '{name}'.*: expected a local"):
        fingerprint_pretrained(pretrained(name))


@pytest.mark.slow
def test_a_program_that_looks_for_a_name_first_needs_nothing_else_of_the_hub() -> None:
    program = (
        "from gdc.corpus.sources import pretrained\n"
        "from gdc.errors import ConfigError\n"
        "try: pretrained.content('no-such-user/no-such-model', None)\n"
        "except ConfigError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "expected a local folder, or a Hub name of the local cache" in done.stdout


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (RepositoryNotFoundError, ConfigError, "not on the Hub or private. Mend name or revision"),
        (RevisionNotFoundError, ConfigError, "not on the Hub or private. Mend name or revision"),
        (HfHubHTTPError, TransientError, "the Hub did not answer"),
        (ConnectionResetError, TransientError, "expected an answer, got ConnectionResetError"),
        (OfflineModeIsEnabled, TransientError, "the Hub did not answer"),
    ],
)
def test_a_model_that_is_not_on_the_hub_is_told_from_a_hub_in_trouble(
    answer: type[Exception],
    expected: type[GdcError],
    message: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del cache

    def repo_info(*_: object, **__: object) -> None:
        if issubclass(answer, HfHubHTTPError):
            raise answer("no", response=Mock(headers={}))
        raise answer

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)
    with pytest.raises(expected, match=message):
        fingerprint_pretrained(pretrained("somebody/model"))
