"""Prefect's server for one run: that of ``PREFECT_API_URL``, or a temporary one."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from gdc.environment import child_environment
from gdc.errors import ConfigError, TransientError
from tasks import guard

LOG: Final = Path("work/prefect-server.log")
ANSWER_SECONDS: Final = 5.0
# The same command line as Prefect's own.
_PROGRAM: Final = (
    "uvicorn", "--app-dir", str(Path(prefect.__file__).parent.parent), "--factory",
    "prefect.server.api.server:create_app", "--log-level", "error", "--lifespan", "on",
)  # fmt: skip
_ENVIRONMENT: Final = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """Provide a server to the flow runs inside: that of ``PREFECT_API_URL``, or a temporary one.

    Yields:
        What waits until the server answers. A temporary one takes seconds to start, in which other
        work can be done.

    Raises:
        TransientError: The server does not answer; of a temporary one from what was yielded.
        ConfigError: ``PREFECT_HOME``, in which a temporary server stores its runs, is not writable.
    """
    if address := PREFECT_API_URL.value():
        require_answer(address)
        yield lambda: None
        return
    require_home(Path(PREFECT_HOME.value()))
    with _started() as (address, wait), temporary_settings({PREFECT_API_URL: address}):
        yield wait


def require_answer(address: str) -> None:
    """Check that the server at ``address`` answers, before anything waits for it."""
    with get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise TransientError(
            f"PREFECT_API_URL: expected a Prefect server at {address}, got {problem}. Start it "
            "(`prefect server start`) or correct the address; without one a run starts its own."
        )


def require_home(home: Path) -> None:
    """Check that Prefect's server can write to its folder."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        problem = None if os.access(home, os.W_OK | os.X_OK) else "one that is not writable"
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise ConfigError(
            f"PREFECT_HOME: expected a folder that Prefect can write to, got {home}: {problem}. "
            "Name another (by default it lies in HOME): "
            f"export PREFECT_HOME={Path('work', 'prefect').absolute()}"
        )


@contextmanager
def _started() -> Iterator[tuple[str, Callable[[], None]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *_PROGRAM, "--host", "127.0.0.1", "--port", str(port)]
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        server = guard.start(command, child_environment() | settings | _ENVIRONMENT, log)
    address = f"http://127.0.0.1:{port}/api"
    try:
        yield address, partial(_wait, server, address)
    finally:
        if server.poll() is None:
            _send_logs()
        guard.end(server)
        if server.stdin is not None:
            server.stdin.close()


def _wait(server: guard.Process, address: str) -> None:
    """Wait for the server that was started to answer at ``address``."""
    deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    while not _answers(address):
        is_over = server.poll() is not None
        if is_over or time.monotonic() > deadline:
            raise TransientError(
                "Prefect's temporary server: expected it to answer, got "
                f"{'its end' if is_over else 'no answer in time'}. Look at what it said in "
                f"{LOG.resolve()}, or run again."
            )
        time.sleep(0.1)


def _send_logs() -> None:
    """Flush Prefect's logs while the server runs; sent later they would cause a complaint."""
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=ANSWER_SECONDS, trust_env=False).is_success
    except httpx.HTTPError:
        return False
