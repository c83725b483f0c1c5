"""Settings of the whole test run."""

import gc
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# A shell lets its background jobs ignore SIGINT, and so would the programs that tests stop by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
    """The longest first: no worker is left alone with one when all the others are done.

    Of these the ones that share a first run: one worker makes it while the other has fast tests.
    """
    items.sort(
        key=lambda item: (
            "first_run" not in item.fixturenames,
            item.get_closest_marker("slow") is None,
            # Whole runs of a pipeline.
            item.path.parent.name != "flows",
        )
    )


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    """The same numbers and sums, and so equal bytes of equal runs: pytest-randomly seeds no torch.

    With more threads than one, those of a small model wait for each other, and use a core each.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One for all flows that run in the tests' own process."""
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415 - takes seconds

    with prefect_test_harness(server_startup_timeout=300):
        yield
