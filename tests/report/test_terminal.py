"""Tables on the terminal: numbers, no control characters, any encoding."""

import re
import sys
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from gdc import cli
from gdc.cli import forked
from gdc.report import build, console
from gdc.workspace import files, paths
from tests.comparison.builders import arm_audits, around
from tests.report.builders import (
    calibration_of,
    card_of,
    params_of,
    printed,
    report_of,
    tables_of,
)


def test_terminal_tables_show_the_numbers() -> None:
    built = build.build_report(tables_of(), params_of())
    arms = printed(console.arms_table(built))
    assert re.search(r"paper .*drop 1, weight 2 .* 54\.77 .*x0\.968 .* 25 % .*-12\.5 pt", arms)
    assert "2 seeds: too few to say much about other seeds." in " ".join(arms.split())
    quadrants = printed(console.quadrants_table(built))
    assert re.search(
        r"hotspot-memorized .*memorization above 0\.15 .* 4 .*keep 1, weight 2", quadrants
    )
    hotspots = printed(console.hotspots_table(built, 1))
    assert "1 of 4 listed" in hotspots
    assert "text of e-0" in hotspots
    assert "d-0" not in hotspots


def test_terminal_text_carries_no_control_characters_and_no_markup() -> None:
    built = build.build_report(tables_of(text="[red]a\x1b[2J\nb\u202e"), params_of())
    shown = printed(console.hotspots_table(built, 9))
    assert "[red]a\N{REPLACEMENT CHARACTER}[2J b\N{REPLACEMENT CHARACTER} e-0" in shown
    assert "\x1b" not in shown


# Each command, and what it prints.
COMMANDS = [
    (["show"], "\u65e5\u672c \u0645\u06cc\u200c\u062e"),
    (["show", "--markdown"], "| paper |"),
    (["plan", "--max-extraction", "0.5", "--max-perplexity", "5"], "Extraction of at most"),
    (["audit", "--model", "\u6a21\u578b", "--corpus", "\u8a9e.jsonl"], "\u8a9e.jsonl"),
    (["--help"], "leaderboard"),
]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(("command", "expected"), COMMANDS, ids=[" ".join(c) for c, _ in COMMANDS])
def test_every_command_prints_in_any_encoding(
    command: list[str],
    expected: str,
    encoding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "\u65e5\u672c \u0645\u06cc\u200c\u062e " + "word " * 99
    audits = {arm: arm_audits(extracted=around(0.5)) for arm in ("none", "paper")}
    calibration = calibration_of(card_of("memorization", None, "not shown"), is_validated=True)
    made = replace(tables_of(text=text), arm_audits=audits, calibration=calibration)
    files.write_json(tmp_path / paths.REPORT, report_of(made, params_of()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code, said = printed_by(command, encoding, monkeypatch)
    assert code == (2 if command[0] == "audit" else 0), said
    escaped = expected.encode(encoding, errors="backslashreplace")
    # Typer takes ASCII for a mistake, and writes UTF-8.
    assert escaped in said or expected.encode() in said
    assert b"Traceback" not in said


def printed_by(
    command: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, bytes]:
    """Exit code and output of ``gdc``, in this process, on a terminal of an encoding."""
    output = BytesIO()
    for name in ("stdout", "stderr"):
        # As Python opens them.
        stream = TextIOWrapper(output, encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(sys, "argv", ["gdc", *command])
    # A child of this process would go on with the tests.
    monkeypatch.setattr(forked, "wait_for_child", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = int(ended.value.code or 0)
    said = output.getvalue()
    # Closed with the streams.
    monkeypatch.undo()
    return code, said


def test_render_prints_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.render(console.quadrants_table(build.build_report(tables_of(), params_of())))
    assert "noisy-outlier" in capsys.readouterr().out
