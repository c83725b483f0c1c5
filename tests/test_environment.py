"""What is read off the machine and the environment."""

import os

import pytest

from gdc.environment import launcher, require_sound, workers
from gdc.errors import ConfigError


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [workers(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GDC_LAUNCHER", "torchrun 'x", r"expected a program such as .*got \"torchrun 'x\" \(No c"),
        ("GDC_PARALLEL", "dpd", "expected one of ddp, fsdp, got 'dpd'"),
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
