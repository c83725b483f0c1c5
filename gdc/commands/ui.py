"""A workspace's database of runs -> MLflow's pages in a browser."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from gdc.environment import child_environment
from gdc.workspace import mlflow_store, paths

SERVER_SECONDS: Final = 60.0
STOPS: Final = (signal.SIGINT, signal.SIGTERM)
# Seven worker processes for jobs that we never start.
SERVER_ENVIRONMENT: Final[Mapping[str, str]] = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def open_pages(port: int, open_page: Callable[[str], object]) -> int:
    """Open the report, if there is one, and the pages of the runs; serve these where nobody does.

    Args:
        port: Of the pages that are served from here.
        open_page: Called with each address.

    Returns:
        The exit code of the server that ran here; 0 where none did.
    """
    if paths.PAGE.exists():
        open_page(paths.PAGE.resolve().as_uri())
    uri = mlflow_store.tracking_uri()
    if uri.startswith("http"):
        open_page(uri)
        return 0
    return serve_runs(uri, port, open_page)


def serve_runs(uri: str, port: int, open_page: Callable[[str], object]) -> int:
    """Serve the MLflow pages of a database until Ctrl-C, and open the one with our runs.

    Args:
        uri: Of the database.
        port: Of the pages, on this machine alone.
        open_page: Called with the address once the server answers.

    Returns:
        The exit code of the server; 0 after Ctrl-C.
    """
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**child_environment(), **SERVER_ENVIRONMENT}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
    try:
        if _answers(process, port):
            # Its front page is for something else.
            page = f"{address}/#/experiments/{mlflow_store.experiment_id()}/runs"
            sys.stdout.write(f"runs    {page}   (Ctrl-C ends)\n")
            sys.stdout.flush()
            open_page(page)
        code = _wait(process)
    except KeyboardInterrupt:
        code = 0
    finally:
        # The server's own children outlive it otherwise.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        _wait(process)
    return code


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        # In short steps: a Ctrl-C that a thread of polars gets would not end a long wait.
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=0.2)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + SERVER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.2)
    return False
