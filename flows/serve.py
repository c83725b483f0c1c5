"""A schedule -> runs of the pipeline in this folder, one at a time."""

import argparse
import sys
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.curate import curate
from gdc.errors import ConfigError, GdcError, TransientError

NIGHTLY: Final = "0 3 * * *"
START: Final = (
    "Start the one that keeps the schedule with `prefect server start`, then set PREFECT_API_URL "
    "to http://127.0.0.1:4200/api."
)


def serve(cron: str, *, publish: bool) -> None:
    """Wait for the schedule and start flow runs; returns when it is stopped.

    Raises:
        ConfigError: The schedule is no cron line, or no server is named that keeps it.
        TransientError: The server does not answer.
    """
    try:
        CronSchedule(cron=cron)
    except ValidationError:
        raise ConfigError(
            f"--cron: expected minute, hour, day, month and weekday, got {cron!r}. "
            f"Every night at three: {NIGHTLY!r}."
        ) from None
    require_server()
    curate.serve(
        name="scheduled",
        cron=cron,
        limit=1,
        pause_on_shutdown=False,
        parameters={"publish": publish},
        # By module, so that it is found from whatever folder is served.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def require_server() -> None:
    """Refuse to wait for a schedule that no server keeps."""
    address = PREFECT_API_URL.value()
    if not address:
        raise ConfigError(f"PREFECT_API_URL: expected a Prefect server, got none. {START}")
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise TransientError(
            f"PREFECT_API_URL: expected a Prefect server at {address}, got {problem}. {START}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--cron", default=NIGHTLY, help=f"default: {NIGHTLY!r}")
    parser.add_argument("--no-publish", action="store_true", help="run, but publish nothing")
    arguments = parser.parse_args()
    try:
        serve(arguments.cron, publish=not arguments.no_publish)
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
