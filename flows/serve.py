"""A schedule -> runs of the pipeline in this folder, one at a time."""

import asyncio
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.curate import curate
from gdc.environment import require_address_space
from gdc.errors import ConfigError, TransientError
from gdc.workspace import project

NIGHTLY: Final = "0 3 * * *"
START: Final = (
    "Start the one that keeps the schedule with `prefect server start`, then set PREFECT_API_URL "
    "to http://127.0.0.1:4200/api."
)
# A first start of the server took 35 s on a busy machine.
SERVER_SECONDS: Final = 90.0
# The server plans the runs of new schedules every 5 s, and those of all schedules every 60 s.
PLAN_SECONDS: Final = 90.0
# Prefect plans no run that is further away.
HORIZON: Final = timedelta(days=100)
LOOK_SECONDS: Final = 1.0


def serve(
    cron: str = NIGHTLY,
    *,
    timezone: str = "UTC",
    publish: bool = True,
    server_seconds: float = SERVER_SECONDS,
) -> None:
    """Wait for the schedule and start flow runs; returns when it is stopped.

    Args:
        cron: Minute, hour, day, month and weekday of the runs.
        timezone: IANA name of the time zone that ``cron`` is read in.
        publish: Whether every run pushes, commits and judges its result.
        server_seconds: How long to wait for a Prefect server that does not answer yet.

    Raises:
        ConfigError: The schedule has no date, this folder is no workspace, or no server is named.
        TransientError: The server does not answer, or plans no run.
    """
    due = next_date(cron, timezone)
    require_address_space()
    project.require_workspace()
    require_server(server_seconds)
    runner = Runner(name=deployment_name(Path.cwd()), limit=1, pause_on_shutdown=False)
    deployment_id = asyncio.run(
        runner.aadd_flow(
            curate,
            name=runner.name,
            schedule=Cron(cron, timezone=timezone),
            parameters={"publish": publish},
            # By module, so that it is found from whatever folder is served.
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    )
    tell(f"asked {PREFECT_API_URL.value()} for runs of {Path.cwd()} at {cron!r} ({timezone})")
    if due - datetime.now(UTC) < HORIZON:
        require_plan(deployment_id, due)
    tell(f"next run: {next_date(cron, timezone).isoformat(sep=' ')}. Ctrl-C ends the waiting.")
    _expect_stops()
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


def _expect_stops() -> None:
    # Ctrl-C ends the waiting, which is no failure. Prefect hands a SIGTERM on to what stood here.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def next_date(cron: str, timezone: str) -> datetime:
    """When a schedule is due next.

    Raises:
        ConfigError: It is no cron line, no date matches it, or the time zone is unknown.
    """
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        raise ConfigError(_refusal(error, cron, timezone)) from None
    try:
        (due,) = asyncio.run(schedule.get_dates(1))
    except ValueError:
        raise ConfigError(
            f"--cron: expected a schedule that some date matches, got {cron!r}."
        ) from None
    return due


def _refusal(error: ValidationError, cron: str, timezone: str) -> str:
    if error.errors()[0]["loc"] == ("cron",):
        return (
            f"--cron: expected minute, hour, day, month and weekday, got {cron!r}. "
            f"Every night at three: {NIGHTLY!r}."
        )
    return f"--timezone: expected a name such as Europe/Berlin or UTC, got {timezone!r}."


def deployment_name(folder: Path) -> str:
    """A name of its own for every folder: two under one name would take each other's runs."""
    place = blake2b(f"{socket.gethostname()}:{folder}".encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', folder.name)}-{place}"


def tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


# ---- the server


def require_server(seconds: float) -> None:
    """Wait for the server that keeps the schedule.

    Raises:
        ConfigError: None is named, or what answers is no Prefect server.
        TransientError: Nothing answers within so many seconds.
    """
    address = PREFECT_API_URL.value()
    if not address:
        raise ConfigError(f"PREFECT_API_URL: expected a Prefect server, got none. {START}")
    deadline = time.monotonic() + seconds
    is_told = False
    while (problem := _silence(address)) is not None:
        if time.monotonic() >= deadline:
            raise TransientError(
                f"PREFECT_API_URL: expected a Prefect server at {address}, got {problem} for "
                f"{seconds:g} s. {START}"
            )
        if not is_told:
            tell(f"waiting up to {seconds:g} s for a Prefect server at {address}: {problem}")
            is_told = True
        time.sleep(LOOK_SECONDS)


def _silence(address: str) -> str | None:
    """Why the server does not answer yet; None if it does.

    Raises:
        ConfigError: It never will.
    """
    try:
        with get_client(sync_client=True) as client:
            client.api_version()
    except httpx.UnsupportedProtocol as error:
        problem = str(error)
    except httpx.TransportError as error:
        return str(error) or type(error).__name__
    except httpx.HTTPStatusError as error:
        if error.response.is_server_error:
            return f"HTTP {error.response.status_code}"
        problem = f"HTTP {error.response.status_code}"
    except ValueError:
        problem = "an answer that is no JSON"
    else:
        return None
    raise ConfigError(
        f"PREFECT_API_URL: expected the API of a Prefect server, such as "
        f"http://127.0.0.1:4200/api, got {address} ({problem})."
    )


# ---- the plan


def require_plan(deployment_id: UUID, due: datetime, seconds: float = PLAN_SECONDS) -> None:
    """Wait until the server has planned a run: one that plans none never starts any.

    Raises:
        TransientError: It has planned none within so many seconds.
    """
    deadline = time.monotonic() + seconds
    with get_client(sync_client=True) as client:
        while not has_plan(client, deployment_id):
            if time.monotonic() >= deadline:
                raise TransientError(
                    f"{PREFECT_API_URL.value()}: expected a run planned for "
                    f"{due.isoformat(sep=' ')}, got none in {seconds:g} s, so none would start. "
                    f"{cause(client, deployment_id)}"
                )
            time.sleep(LOOK_SECONDS)


def has_plan(client: SyncPrefectClient, deployment_id: UUID) -> bool:
    """Whether a run in the future is planned; an older server may have left late ones behind."""
    scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    later = FlowRunFilterExpectedStartTime(after_=datetime.now(UTC))
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        flow_run_filter=FlowRunFilter(state=scheduled, expected_start_time=later),
        limit=1,
    )
    return bool(runs)


def cause(client: SyncPrefectClient, deployment_id: UUID) -> str:
    """What keeps the server from planning runs, as far as it can be seen from here."""
    deployment = client.read_deployment(deployment_id)
    if deployment.paused:
        return f"The deployment is paused: prefect deployment resume curate/{deployment.name}."
    if not any(schedule.active for schedule in deployment.schedules):
        return "Its schedule is inactive: switch it on in the pages of the server."
    settings = client.request("GET", "/admin/settings").json()
    if not settings["server"]["services"]["scheduler"]["enabled"]:
        return (
            "The server runs without its scheduler: start it without `--no-services`, and with "
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED=true."
        )
    installed = version("sqlalchemy")
    if tuple(map(int, installed.split(".")[:2])) >= (2, 1):
        return (
            f"SQLAlchemy {installed} is installed here, under which the scheduler of Prefect 3.8 "
            "fails: where the server runs, pip install 'sqlalchemy<2.1', and start it again."
        )
    return "The log of the server says why; its scheduler looks for new schedules every minute."
