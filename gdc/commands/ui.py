"""A workspace -> its report, all its texts and its runs under one port, in a browser."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from gdc.environment import child_environment
from gdc.errors import ConfigError
from gdc.workspace import mlflow_store, paths

SERVER_SECONDS: Final = 60.0
STOPS: Final = (signal.SIGINT, signal.SIGTERM)
# Seven worker processes for jobs that we never start.
SERVER_ENVIRONMENT: Final[Mapping[str, str]] = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# MLflow opens as a place for prompts and agents otherwise, without models and registry.
_WORKFLOW: Final = "workflowType=machine_learning"


def open_pages(port: int, open_page: Callable[[str], object]) -> int:
    """Serve the report, the texts and the runs of this folder until Ctrl-C, and open them.

    Args:
        port: Of all pages, on this machine alone.
        open_page: Called with the address of each page once it answers.

    Returns:
        0 after Ctrl-C.

    Raises:
        ConfigError: The port is taken, or the database of runs is not one of this MLflow.
    """
    _require_free(port)
    uri, address = mlflow_store.tracking_uri(), f"http://127.0.0.1:{port}"
    for number in STOPS:
        signal.signal(number, signal.default_int_handler)
    if uri.startswith("http"):
        place = f"{uri.rstrip('/')}/#/"

        def tell_server() -> None:
            _tell("runs", f"{place}   (Ctrl-C ends)")
            open_page(place)

        _serve(port, uri, address, tell_server, open_page)
        return 0
    if not mlflow_store.has_database_file():
        # Before the server, which makes the tables one version after the other, in place.
        mlflow_store.experiment_id()
    with _runs_server(uri) as (process, own_port):

        def tell_runs() -> None:
            if _answers(process, own_port):
                place = f"{address}/{_first_page()}"
                _tell("runs", f"{place}   (Ctrl-C ends)")
                open_page(place)
            else:
                _tell("runs", "MLflow's server does not answer; mlflow server says why")

        _serve(port, f"http://127.0.0.1:{own_port}", address, tell_runs, open_page)
    return 0


def _serve(
    port: int,
    runs: str,
    address: str,
    tell_runs: Callable[[], object],
    open_page: Callable[[str], object],
) -> None:
    import uvicorn  # noqa: PLC0415 - with the application it takes a second

    from gdc.commands.pages import create_app  # noqa: PLC0415 - as above

    app = create_app(runs, _first_page())
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    )

    def tell() -> None:
        while not server.started:
            time.sleep(0.05)
        for name, path, page in (
            ("report", paths.PAGE, "report.html"),
            ("texts", paths.SAMPLES, "texts"),
        ):
            if path.exists():
                _tell(name, f"{address}/gdc/{page}")
                open_page(f"{address}/gdc/{page}")
        tell_runs()

    threading.Thread(target=tell, daemon=True).start()
    with suppress(KeyboardInterrupt):
        server.run()


def _first_page() -> str:
    return f"#/experiments/{mlflow_store.experiment_id()}/runs?{_WORKFLOW}"


def _tell(name: str, place: str) -> None:
    sys.stdout.write(f"{name:8}{place}\n")
    sys.stdout.flush()


@contextmanager
def _runs_server(uri: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """MLflow's server of a database, on a free port, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**child_environment(), **SERVER_ENVIRONMENT}
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process, port
    finally:
        # The server's own children outlive it otherwise.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _require_free(port: int) -> None:
    with socket.socket() as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            asked.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"--port: expected a free port, got {port} ({error.strerror}). Name another, or "
                "end what uses it."
            ) from None


def _answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + SERVER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.2)
    return False
