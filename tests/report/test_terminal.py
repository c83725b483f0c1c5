"""Tables on the terminal: numbers, no control characters, any encoding."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

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
# One process for all of them, as it takes seconds to start one.
PROGRAM = """
import json, sys
from gdc.cli import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["gdc", *command]
    try:
        main()
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_command_prints_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    text = "\u65e5\u672c \u0645\u06cc\u200c\u062e " + "word " * 99
    audits = {arm: arm_audits(extracted=around(0.5)) for arm in ("none", "paper")}
    calibration = calibration_of(card_of("memorization", None, "not shown"), is_validated=True)
    made = replace(tables_of(text=text), arm_audits=audits, calibration=calibration)
    files.write_json(tmp_path / paths.REPORT, report_of(made, params_of()))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([command for command, _ in COMMANDS])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    *parts, rest = re.split(rb"exit (\d)\n", done.stdout)
    assert (len(parts), rest) == (2 * len(COMMANDS), b""), done.stdout
    for (command, expected), said, code in zip(COMMANDS, parts[::2], parts[1::2], strict=True):
        assert code == (b"2" if command[0] == "audit" else b"0"), said
        escaped = expected.encode(encoding, errors="backslashreplace")
        # Typer takes ASCII for a mistake, and writes UTF-8.
        assert escaped in said or expected.encode() in said
        assert b"Traceback" not in said


def test_render_prints_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    console.render(console.quadrants_table(build.build_report(tables_of(), params_of())))
    assert "noisy-outlier" in capsys.readouterr().out
