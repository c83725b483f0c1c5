"""What CI runs, with a make that is told what to do."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci/run"

# `make test` ends when the output of `make check` is there, or would never be.
MAKE = """#!/usr/bin/env bash
case $1 in
  check) echo "a bad line"; echo "another" >&2; exit CHECK ;;
  test)
    printf "...."
    for _ in $(seq 600); do grep -q another told && break; sleep 0.1; done
    echo "tests end"; exit TEST ;;
esac
"""


@pytest.mark.parametrize(("check", "test", "code"), [(0, 0, 0), (2, 0, 2), (0, 1, 1)])
def test_the_check_is_told_in_one_piece_before_the_tests_end(
    check: int, test: int, code: int, tmp_path: Path
) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_bytes(SCRIPT.read_bytes())
    programs = {"make": MAKE.replace("CHECK", str(check)).replace("TEST", str(test))}
    # Nothing is installed.
    programs["apt-get"] = "#!/bin/sh\nexit 1\n"
    for name, program in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(program)
        path.chmod(0o755)
    with (tmp_path / "told").open("w") as told:
        done = subprocess.run(
            ["bash", ".ci/run"], cwd=tmp_path, stdout=told, check=False, timeout=100,
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip
    assert done.returncode == code
    lines = (tmp_path / "told").read_text().splitlines()
    told_check = [f"make check ended with {check}:", "a bad line", "another"]
    begin = lines.index(told_check[0])
    assert lines[begin : begin + 3] == told_check
    assert lines[-1].endswith("tests end")
