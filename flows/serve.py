"""A schedule -> runs of the pipeline in this folder, one at a time."""

import argparse
import sys
from typing import Final

from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.curate import curate
from gdc.errors import ConfigError, GdcError

NIGHTLY: Final = "0 3 * * *"


def serve(cron: str, *, publish: bool) -> None:
    """Wait for the schedule and start flow runs; returns when it is stopped.

    Raises:
        ConfigError: The schedule is no cron line, or there is no server to keep it.
    """
    try:
        CronSchedule(cron=cron)
    except ValidationError:
        raise ConfigError(
            f"--cron: expected minute, hour, day, month and weekday, got {cron!r}. "
            f"Every night at three: {NIGHTLY!r}."
        ) from None
    if not PREFECT_API_URL.value():
        raise ConfigError(
            "PREFECT_API_URL: expected a Prefect server that keeps the schedule, got none. Start "
            "one with `prefect server start`, then set it to http://127.0.0.1:4200/api."
        )
    curate.serve(
        name="scheduled",
        cron=cron,
        limit=1,
        pause_on_shutdown=False,
        parameters={"publish": publish},
        # By module, so that it is found from whatever folder is served.
        entrypoint_type=EntrypointType.MODULE_PATH,
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
