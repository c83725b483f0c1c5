"""Two machines for a test: namespaces of this one, each with a network, and a cable between them.

The second one has a disk of its own too: where the first keeps its files, it finds an empty one.
What both share is what is installed.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("ip", "nsenter", "unshare")
# Where Debian puts what root starts.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
SPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
# Its name and, where it has one, its own disk. All that runs there ends with its first process,
# which ends with the test, however that ends: it reads what the test never writes.
START = """
set -e
echo "$1" > /proc/sys/kernel/hostname
ip link set lo up
for folder in /dev/shm /var/tmp "$2"; do
  [ -z "$folder" ] || mount -t tmpfs tmpfs "$folder"
done
[ -z "$2" ] || mount -o remount,bind,ro /
echo started
exec cat
"""


@dataclass(frozen=True)
class Machine:
    """One of them: its name, its address, and its first process."""

    name: str
    address: str
    pid: int

    def command(self, *words: str, folder: Path = Path("/")) -> list[str]:
        """How a program is started there, in a folder of its disk."""
        entered = ["nsenter", "--target", str(self.pid), *SPACES]
        return [*entered, "env", f"--chdir={folder}", *words]


@contextmanager
def two_machines(disk: Path) -> Iterator[tuple[Machine, Machine]]:
    """Start two, of which the second has an empty ``disk`` and writes nowhere else.

    Nothing of their networks is seen outside, so addresses and ports are free, whatever runs there.
    The test is skipped where a program is not installed, where we are not root, and where no
    namespaces are permitted.
    """
    if os.geteuid() != 0 or not all(shutil.which(name, path=PATH) for name in PROGRAMS):
        pytest.skip(f"not root, or no {', '.join(PROGRAMS)}")
    with _started("gdc-head", None) as head, _started("gdc-worker", disk) as worker:
        ends = ["eth0", "netns", str(head), "type", "veth", "peer", "eth0", "netns", str(worker)]
        cable = _run(["ip", "link", "add", *ends])
        if cable.returncode != 0:
            pytest.skip(f"no cable between namespaces here: {cable.stderr}")
        machines = (
            Machine("gdc-head", "10.0.0.1", head), Machine("gdc-worker", "10.0.0.2", worker)
        )  # fmt: skip
        for machine in machines:
            for words in (
                ("address", "add", f"{machine.address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                # Programs ask from which address they would reach others.
                ("route", "add", "default", "dev", "eth0"),
            ):
                _run(machine.command("ip", *words)).check_returncode()
        yield machines


@contextmanager
def _started(name: str, disk: Path | None) -> Iterator[int]:
    script = ["sh", "-c", START, "sh", name, "" if disk is None else str(disk)]
    with subprocess.Popen(
        ["unshare", *SPACES, "--mount-proc", "--fork", "--kill-child", *script],
        env=_environment(),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        if (said := process.stdout.readline()) != "started\n":
            pytest.skip(f"no namespaces here: {said}")
        (first,) = psutil.Process(process.pid).children()
        yield first.pid


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=_environment(), check=False, capture_output=True, text=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": PATH}
