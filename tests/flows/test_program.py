"""One run in a folder at a time, and what it says of a server that is gone."""

import os
from pathlib import Path

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.program import as_run, only_run_here
from gdc.errors import TransientError


def test_a_second_run_in_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal = pytest.raises(TransientError, match=f"got process {os.getpid()} here too")
    with only_run_here(), refusal, only_run_here():
        pass
    with only_run_here():
        Path("work/.lock.pid").unlink()
        with pytest.raises(TransientError, match="got another process here too"), only_run_here():
            pass
    with only_run_here():
        pass


@pytest.mark.slow
def test_a_server_that_is_gone_before_a_flow_begins_is_told_of_without_a_traceback() -> None:
    away = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    refusal = pytest.raises(TransientError, match=r"^Prefect's server: expected an answer, got Fa")
    with away, refusal, as_run():
        flow(name="nothing")(lambda: None)()
