"""What is read off the machine and the environment."""

import os
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest

from gdc.config import PretrainedModel
from gdc.corpus.tokenizer import load_pretrained_tokenizer
from gdc.environment import is_only_in_cache, launcher, require_sound, workers
from gdc.errors import ConfigError, TransientError
from gdc.training import transformer_models
from tests.builders import free_port


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [workers(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GDC_LAUNCHER", "torchrun 'x", r"expected a program such as .*got \"torchrun 'x\" \(No c"),
        ("GDC_PARALLEL", "", "expected one of ddp, fsdp, got ''. Name one of these, or unset it f"),
        ("GDC_DEVICE", "gpu", "expected one of cpu, cuda, .*got 'gpu'"),
        ("GDC_CHECKPOINT_SECONDS", "1m", "expected seconds, at least 0, got '1m'"),
        ("MLFLOW_TRACKING_URI", "http://a:b", "expected an address such as"),
    ],
)
def test_a_variable_with_a_value_that_it_cannot_have_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    require_sound()
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: {message}"):
        require_sound()


def test_the_words_of_a_launcher_are_those_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, words in (("", []), ("a 'b c' d\\ e", ["a", "b c", "d e"])):
        monkeypatch.setenv("GDC_LAUNCHER", text)
        assert launcher() == words


# ---- the Hub

NAME = "no-such-user/no-such-model"


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub where nobody listens, and no proxy."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("cut_off")
def test_only_a_hub_to_which_there_is_no_way_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_only_in_cache(NAME)
    assert not is_only_in_cache(str(tmp_path))
    for proxy in ("HTTP_PROXY", "ALL_PROXY"):
        with monkeypatch.context() as patch:
            patch.setenv(proxy, "http://127.0.0.1:1")
            assert not is_only_in_cache(NAME)
    with monkeypatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        patch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        assert not is_only_in_cache(NAME)

    def answer_late(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", answer_late)
    assert not is_only_in_cache(NAME)


@pytest.mark.usefixtures("cut_off")
def test_a_name_that_the_cache_lacks_is_told_without_further_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: pytest.fail("tried again"))
    with pytest.raises(TransientError, match=f"'{NAME}': the Hub did not answer"):
        load_pretrained_tokenizer(NAME, None)
    model = PretrainedModel.model_validate(
        {
            "kind": "pretrained", "name": NAME, "revision": None, "block_size": 8,
            "precision": "float32", "lora": None, "gradient_checkpointing": False,
        }
    )  # fmt: skip
    with pytest.raises(TransientError, match=f"'{NAME}': the Hub did not answer"):
        transformer_models.pretrained(model, vocab_size=8)
