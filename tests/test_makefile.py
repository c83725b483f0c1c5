"""``make audit`` says what it found, and that it found nothing out where the network is away."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders import REPOSITORY

# In place of Python's venv: programs that do as pip and pip-audit do.
PYTHON = """#!/bin/sh
mkdir -p work/pip-audit/bin
printf '%s' "$PIP" > work/pip-audit/bin/pip
printf '%s' "$PIP_AUDIT" > work/pip-audit/bin/pip-audit
chmod +x work/pip-audit/bin/*
"""
GOOD = "#!/bin/sh\nexit 0\n"
AWAY = "#!/bin/sh\nprintf 'WARNING: Retrying\\nERROR: No matching distribution.\\n' >&2\nexit 1\n"
TRACEBACK = """#!/bin/sh
printf 'Traceback (most recent call last):\\n  File x\\nConnectionError: no route.\\n' >&2
exit 1
"""
# What it says, for each package, where an index answers that has no list of holes.
UNKNOWN = """#!/bin/sh
echo 'ERROR:pip_audit._cli:polars: Dependency not found on PyPI and could not be audited' >&2
exit 1
"""
FOUND = "#!/bin/sh\necho 'polars 2.1.0 CVE-1'\necho 'Found 1 known vulnerability' >&2\nexit 1\n"


@pytest.mark.parametrize(
    ("pip", "pip_audit", "code", "said"),
    [
        (AWAY, GOOD, 2, "got: ERROR: No matching distribution. The lock was not audited."),
        (GOOD, TRACEBACK, 2, "got: ConnectionError: no route. The lock was not audited."),
        (GOOD, UNKNOWN, 2, "not found on PyPI and could not be audited The lock was not audited."),
        (GOOD, FOUND, 2, "Found 1 known vulnerability"),
        (GOOD, GOOD, 0, ""),
    ],
)
def test_make_audit_tells_a_hole_from_a_network_that_is_away(
    tmp_path: Path, pip: str, pip_audit: str, code: int, said: str
) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "-o", ".venv/.installed", "audit", f"PYTHON={python}"],
        cwd=tmp_path,
        env={**os.environ, "PIP": pip, "PIP_AUDIT": pip_audit},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "WARNING" not in done.stderr
