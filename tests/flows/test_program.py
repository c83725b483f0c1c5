"""One run in a folder at a time."""

import os
from pathlib import Path

import pytest

from flows.program import only_run_here
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
