"""The Ray cluster that was asked for: connected to, or started on this machine."""

import os
import socket
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


def for_each(work: Callable[[Path], None], paths: Sequence[Path], folders: Sequence[Path]) -> None:
    """Do the same for every path, on the workers of the cluster that is connected, by Ray Data.

    Args:
        work: What is done.
        paths: For which it is done.
        folders: What every worker has to see, as the work reads or writes there.

    Raises:
        ConfigError: A worker does not see one of the folders.
        DataError: What the work said of the first path that it refused.
    """
    import ray.data  # noqa: PLC0415 - an extra, and slow

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"path": str(path.absolute())} for path in paths]
    tried = partial(_tried, work, [folder.absolute() for folder in folders])
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(tried).take_all()
    for kind, error in (("unseen", ConfigError), ("error", DataError)):
        if said := sorted(row[kind] for row in done if row[kind]):
            raise error(said[0])


def not_shared(what: str) -> str:
    """What a worker says that does not see a folder of the machine that started the run."""
    return (
        f"--ray: expected {what} on all machines of the cluster, got none on "
        f"{socket.gethostname()}. Put it on a disk that they share."
    )


def _tried(
    work: Callable[[Path], None],
    folders: Sequence[Path],
    row: dict[str, Any],  # as Ray Data
) -> dict[str, str]:
    if unseen := [folder for folder in folders if not folder.is_dir()]:
        return {"error": "", "unseen": not_shared(str(unseen[0]))}
    # Ray words an exception of a worker in its own way.
    try:
        work(Path(row["path"]))
    except GdcError as error:
        return {"error": str(error), "unseen": ""}
    return {"error": "", "unseen": ""}
