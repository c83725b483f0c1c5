"""Settings of the whole test run."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from tests.builders import MadeOnce, NewHome

# A shell lets its background jobs ignore SIGINT, and so would the programs that tests stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray gives its workers the lowest priority, and beside other tests they would wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")

# Beside whole runs of a pipeline, those of tests/flows, the files with the longest tests.
_LONG = ("test_chat_elsewhere.py", "test_examples.py", "test_cluster_on_ray.py")

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("ci")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported lives to the end: a million objects, through which to look takes long."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """The slow ones first, which fall to one worker; the others take them when they are done.

    They take from the end: there stand the longest, so that none is left alone with one. At the
    beginning stand those that share a first run, which that worker makes meanwhile, and then those
    that share a server of Prefect, which every other worker would start anew.
    """
    items.sort(
        key=lambda item: (
            "first_run" not in item.fixturenames,
            "prefect_server" not in item.fixturenames,
            item.get_closest_marker("slow") is None,
            item.path.parent.name == "flows" or item.path.name in _LONG,
        )
    )


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """The same numbers and sums, and so equal bytes of equal runs: pytest-randomly seeds no torch.

    With more threads than one, those of a small model wait for each other, and use a core each.
    """
    import torch  # noqa: PLC0415 - takes seconds, of which what shares the tests out has no use

    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    """A stage that runs in this process sets what ends it, and DVC then ignores Ctrl-C for good."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> "MadeOnce":
    """Makes a folder that takes seconds to make once for all workers; none may change it."""
    base = tmp_path_factory.getbasetemp()
    place = base if worker_id == "master" else base.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, failed = place / name, place / f"{name}-failed"
        with FileLock(f"{folder}.lock"):
            # Else each of many tests would try it again.
            assert not failed.exists(), f"{name} could not be made, see the first error"
            if not folder.exists():
                failed.touch()
                folder.mkdir()
                make(folder)
                failed.unlink()
        return folder

    return made


@pytest.fixture
def migrated_store(made_once: "MadeOnce") -> Path:
    """A database with MLflow's tables and no experiment of ours; its migration takes seconds."""

    def migrate(folder: Path) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415, TID251 - a store that is nobody's yet

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once("mlflow-store", migrate) / "mlflow.db"


@pytest.fixture(scope="session")
def prefect_home(made_once: "MadeOnce", tmp_path_factory: pytest.TempPathFactory) -> "NewHome":
    """Makes homes of Prefect whose database has its tables, which takes a server seconds."""

    def upgrade(folder: Path) -> None:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        unset = {"PREFECT_API_URL": "", "PREFECT_HOME": str(folder)}
        subprocess.run(command, env=os.environ | unset, check=True, capture_output=True)

    def copy() -> Path:
        home = tmp_path_factory.mktemp("prefect")
        shutil.copy(made_once("prefect-home", upgrade) / "prefect.db", home)
        return home

    return copy


@pytest.fixture(scope="session")
def prefect_server(prefect_home: "NewHome") -> Iterator[None]:
    """One for all flows that run in the tests' own process."""
    from prefect.testing import utilities  # noqa: PLC0415 - takes seconds

    # Else a fork of this process waits at its end for threads of Prefect that only its parent has.
    os.register_at_fork(after_in_child=threading._threading_atexits.clear)  # type: ignore[attr-defined]
    home = prefect_home()
    (home / "prefect.db").rename(home / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(home))
        with utilities.prefect_test_harness(server_startup_timeout=300):
            yield
