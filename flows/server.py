"""Prefect's server for one run: that of ``PREFECT_API_URL``, or a temporary one."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
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
# Of one that ends, or is killed, in the middle of a run: how often it is started again.
_MOST_STARTS: Final = 3
_LOOK_SECONDS: Final = 0.5
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
    with (
        closing(_TemporaryServer()) as server,
        temporary_settings({PREFECT_API_URL: server.address}),
    ):
        yield server.wait


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


class _TemporaryServer:
    """A server on this machine, started again where it ends before the runs do.

    Its database outlives it, and Prefect asks a server that does not answer again for a minute.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/api"
        self._command = [
            sys.executable, "-m", *_PROGRAM, "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        self._environment = child_environment() | settings | _ENVIRONMENT
        self._is_closing = Event()
        self._keeper = Thread(target=self._keep, daemon=True)
        LOG.parent.mkdir(exist_ok=True)
        LOG.unlink(missing_ok=True)
        self._process = self._start()

    def wait(self) -> None:
        """Wait for its first answer."""
        deadline = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        # One client for all looks: each would read all certificates first.
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            while not _answers(client, self.address):
                is_over = self._process.poll() is not None
                if is_over or time.monotonic() > deadline:
                    raise TransientError(
                        "Prefect's temporary server: expected it to answer, got "
                        f"{'its end' if is_over else 'no answer in time'}. Look at what it said "
                        f"in {LOG.resolve()}, or run again."
                    )
                time.sleep(0.1)
        self._keeper.start()

    def close(self) -> None:
        self._is_closing.set()
        if self._keeper.is_alive():
            self._keeper.join()
        if self._process.poll() is None:
            _send_logs()
        self._end()

    def _start(self) -> guard.Process:
        with LOG.open("ab") as log:
            return guard.start(self._command, self._environment, log)

    def _end(self) -> None:
        guard.end(self._process)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _keep(self) -> None:
        for _ in range(_MOST_STARTS):
            while self._process.poll() is None:
                if self._is_closing.wait(_LOOK_SECONDS):
                    return
            self._end()
            self._process = self._start()


def _send_logs() -> None:
    """Flush Prefect's logs while the server runs; sent later they would cause a complaint."""
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()


def _answers(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(f"{address}/health").is_success
    except httpx.HTTPError:
        return False
