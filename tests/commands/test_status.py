"""How far a run is, in words and as a table."""

from io import StringIO

import pytest
from rich.console import Console

from gdc.commands import status
from gdc.workspace.progress import RunState, TargetState

RUN = RunState(
    process=2**22 + 1,  # of no process
    created=0.0,
    started=1000.0,
    num_workers=1,
    usual={"train@0": 60.0, "report": 5.0},
    targets={
        "ingest": TargetState("executed", 1000.0, 20.0),
        "train@0": TargetState(started=1020.0, detail="50 %  5/10  4k tokens/s"),
        "report": TargetState(),
    },
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3600, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_a_span_of_time_reads_as_people_say_it(seconds: float, words: str) -> None:
    assert status.span(seconds) == words


def test_the_line_of_a_run_says_done_gone_and_left() -> None:
    line = status.headline(RUN, 1050.0)
    assert line == "1 of 3 done, 50 s so far, about 35 s left"


def test_the_table_shows_what_runs() -> None:
    output = StringIO()
    Console(file=output, width=100).print(status.table(RUN, 1050.0))
    assert "train@0" in output.getvalue()
    assert "50 %  5/10  4k tokens/s" in output.getvalue()
    assert "1 of 3 done" in output.getvalue()
    assert "ingest" not in output.getvalue()


def test_a_run_that_was_cut_off_is_told_from_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status.sentences(RUN, 1050.0)[0].startswith("No run now. The last one started ")
    assert "was cut off: 1 of 3 done" in status.sentences(RUN, 1050.0)[0]
    monkeypatch.setattr(RunState, "is_alive", lambda _run: True)
    assert status.sentences(RUN, 1050.0)[1:] == [
        "running  train@0  30 s  50 %  5/10  4k tokens/s",
        "waiting  report",
    ]
    assert status.sentences(None, 0.0) == ["No run in this folder yet. Start one: gdc run"]
    assert status.as_plain(RUN, 1050.0)["seconds_left"] == 35.0


def test_targets_are_told_by_stage() -> None:
    targets = ["halves", "reference@0", "reference@1", "retrain@none-1", "report"]
    assert status.by_stage(targets) == ["halves", "reference (2)", "retrain@none-1", "report"]
    assert status.by_stage([]) == []
