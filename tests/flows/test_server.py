"""Prefect's server for one run: named ones that are away, and ones started here."""

import time
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.variables import Variable

from flows import server
from flows.server import prefect_server
from gdc.errors import ConfigError, TransientError
from tests.builders import NewHome


@pytest.mark.slow
def test_a_named_server_that_is_unreachable_is_refused_in_seconds() -> None:
    started = time.monotonic()
    away = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    refusal = pytest.raises(TransientError, match=r"^PREFECT_API_URL: .*127\.0\.0\.1:9/api, got")
    with away, refusal, prefect_server():
        pass
    assert time.monotonic() - started < 30


def test_a_home_that_prefect_cannot_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = tmp_path / "file/.prefect"
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: home}),
        pytest.raises(ConfigError, match=rf"^PREFECT_HOME: .*{home}.*export PREFECT_HOME="),
        prefect_server(),
    ):
        pass


def test_the_log_of_a_temporary_server_that_does_not_start_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "_PROGRAM", ("no_such_program",))
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path}),
        pytest.raises(TransientError, match=rf"got its end.*{tmp_path / server.LOG}"),
        prefect_server() as wait,
    ):
        wait()
    assert "No module named no_such_program" in (tmp_path / server.LOG).read_text()


@pytest.mark.slow
def test_a_temporary_server_that_is_killed_is_there_again_with_its_runs(
    tmp_path: Path, prefect_home: NewHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: prefect_home()})
    others = psutil.Process().children(recursive=True)
    with named, prefect_server() as wait:
        wait()
        Variable.set("kept", 3)
        for process in set(psutil.Process().children(recursive=True)) - set(others):
            if "uvicorn" in process.cmdline():
                process.kill()
        deadline = time.monotonic() + 120
        with httpx.Client() as client:
            while not server._answers(client, f"{PREFECT_API_URL.value()}"):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert Variable.get("kept") == 3
