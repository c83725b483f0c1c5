"""A workspace -> ``gdc run`` in it, as a fork of this process, which has its imports."""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import BinaryIO

IMPORTS = ("flows.curate", "gdc.cli", "dvc.repo", "gdc.workspace.mlflow_store")


class ForkedFlow:
    """A run that was started, with the part of ``Popen`` that a trial uses."""

    def __init__(self, pid: int, output: BinaryIO) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._output = output

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def communicate(self, *, timeout: float) -> tuple[str, None]:
        """What it has said, once it has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutExpired("gdc run", timeout)
            time.sleep(0.02)
        self._output.seek(0)
        return self._output.read().decode("utf-8", "replace"), None


def load() -> None:
    """Import what a run needs; it uses none of it here."""
    for module in IMPORTS:
        importlib.import_module(module)
    importlib.import_module("gdc.workspace.mlflow_store").load_mlflow()


def start(folder: Path, environment: Mapping[str, str]) -> ForkedFlow:
    """Start ``gdc run`` in a folder, in a session of its own."""
    output = folder.with_suffix(".output").open("w+b")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return ForkedFlow(pid, output)
    code = 1
    try:
        _become(folder, environment, output)
        importlib.import_module("gdc.cli").main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - nothing of ours may go on in the child
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(folder: Path, environment: Mapping[str, str], output: BinaryIO) -> None:
    os.setsid()
    os.chdir(folder)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["gdc", "run"]
