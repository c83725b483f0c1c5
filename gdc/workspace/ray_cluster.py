"""The Ray cluster that was asked for: connected to, or started on this machine."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gdc.environment import QUIET
from gdc.errors import ConfigError, DataError, GdcError

# Starts a cluster on this machine, of its own.
LOCAL: Final = "local"


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Be a driver of the Ray cluster at ``address``; of one that is started here where it is local.

    Raises:
        ConfigError: Ray is not installed, or does not answer.
    """
    # Ray reads it where it starts a cluster, with a dashboard or without.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", QUIET["RAY_USAGE_STATS_ENABLED"])
    try:
        import ray  # noqa: PLC0415 - an extra, and slow
    except ImportError:
        raise ConfigError(
            "--ray: expected Ray, got none. Install it: pip install 'gendatacarto[ray]'."
        ) from None
    # Workers import first from the folder that we connect in: a folder called `tasks` in the
    # workspace must not take the place of ours.
    with TemporaryDirectory() as empty:
        try:
            # Only a cluster that is started can be told to have no dashboard.
            options: dict[str, Any] = {}  # arguments of ray.init
            if address == LOCAL:
                # Whoever reaches Ray's ports may run code: nobody outside of this machine does.
                options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            with chdir(empty):
                ray.init(address, log_to_driver=False, **options)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"--ray {address}: expected the address of a Ray cluster, auto or {LOCAL}, got: "
                f"{error}"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def for_each(work: Callable[[Path], None], paths: Sequence[Path]) -> None:
    """Do the same for every path, on the workers of the cluster that is connected, by Ray Data.

    Raises:
        DataError: What the work said of the first path that it refused.
    """
    import ray.data  # noqa: PLC0415 - an extra, and slow

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"path": str(path.absolute())} for path in paths]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(partial(_tried, work))
    errors = sorted(row["error"] for row in done.take_all() if row["error"])
    if errors:
        raise DataError(errors[0])


def _tried(work: Callable[[Path], None], row: dict[str, Any]) -> dict[str, str]:  # as Ray Data
    # Ray words an exception of a worker in its own way.
    try:
        work(Path(row["path"]))
    except GdcError as error:
        return {"error": str(error)}
    return {"error": ""}
