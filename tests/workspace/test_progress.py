"""What a run has done and has before it, as other programs read it."""

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gdc.workspace.progress import (
    PROGRESS,
    SECONDS,
    Progress,
    RunState,
    TargetState,
    detail_of,
    read_progress,
)

TARGETS = ("ingest", "train@0", "train@1", "report")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("work").mkdir()


def test_what_one_process_writes_another_reads() -> None:
    assert read_progress() is None
    progress = Progress(TARGETS, 2)
    progress.start("ingest")
    assert progress.say("ingest", "a sentence") is False
    progress.end("ingest", "executed", 4.0)
    run = read_progress()
    assert run == progress.state
    assert (run.process, run.is_alive(), run.num_done()) == (os.getpid(), True, 1)
    progress.close()
    run = read_progress()
    assert run is not None
    assert run.is_alive() is False
    assert Progress(TARGETS, 2).state.usual == {"ingest": 4.0}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"targets": "3"}'])
def test_a_damaged_file_is_no_run(content: str) -> None:
    PROGRESS.write_text(content)
    SECONDS.write_text(content)
    assert read_progress() is None
    assert Progress(TARGETS, 1).state.usual == {}


def test_a_process_with_the_number_of_one_that_ended_is_another() -> None:
    run = Progress(TARGETS, 1).state
    assert RunState(run.process, run.created - 100, run.started, 1).is_alive() is False


def test_a_clock_that_is_set_back_ends_no_run_and_makes_none_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress = Progress(TARGETS, 1)
    progress.start("ingest")
    run = replace(progress.state, usual=dict.fromkeys(TARGETS, 5.0))
    # As Linux tells it to whoever asks an hour's step later.
    boot, created = psutil.boot_time(), psutil.Process().create_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: boot - 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: created - 3600)
    assert run.is_alive()
    assert run.seconds_left(run.started - 3600) == (20.0, False)


def test_what_is_left_is_told_by_earlier_targets_of_the_same_stage() -> None:
    state = {
        "ingest": TargetState("executed", 0.0, 3.0),
        "train@0": TargetState("executed", 3.0, 10.0),
        "train@1": TargetState(started=10.0),
        "train@2": TargetState(),
        "report": TargetState(),
    }
    run = RunState(1, 0.0, 0.0, 2, targets=state)
    # 6 s of train@1 and 10 s of train@2 on two workers, but not less than the longest alone.
    assert run.seconds_left(14.0) == (10.0, True)
    known = RunState(1, 0.0, 0.0, 1, usual={"report": 5.0, "train@2": 30.0}, targets=state)
    assert known.seconds_left(14.0) == (6.0 + 30.0 + 5.0, False)


def test_the_share_and_the_rate_of_a_bar_are_kept() -> None:
    bar = "train@0:  90%|█████████ | 460/510 [01:36<00:11,  4.27step/s, 4.48k tokens/s]"
    assert detail_of(bar) == "90 %  460/510  4.48k tokens/s"
    assert detail_of("  0%|          | 0/510 [00:00<?, ?step/s]") == "0 %  0/510  ?step/s"
    assert detail_of("error: 90% of the rows") is None
