"""A Slurm of two nodes for a test: two of its daemons on this machine, as `srun` sees them."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.builders import free_port
from tests.flows.programs import running, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun")
START_SECONDS = 60.0
# Where Debian puts what root starts.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
NODES = ("node1", "node2")


@contextmanager
def two_nodes(logs: Path) -> Iterator[dict[str, str]]:
    """The environment in which `srun` finds the nodes.

    The test is skipped where a program is not installed, where we are not root, as Slurm's daemons
    must be, and where `srun` does not reach the nodes.
    """
    found = [shutil.which(name, path=PATH) for name in PROGRAMS]
    if os.geteuid() != 0 or not all(found):
        pytest.skip("no Slurm (slurmctld, slurmd, slurm-client, munge), or not root")
    munged, slurmctld, slurmd, srun = map(str, found)
    # Paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="gdc-slurm-"))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    _configure(folder)
    daemons = {
        "munged": [munged, "--foreground", "--force", *_munge(folder)],
        "slurmctld": [slurmctld, "-D"],
        **{node: [slurmd, "-D", "-N", node] for node in NODES},
    }
    try:
        with ExitStack() as started:
            for name, command in daemons.items():
                log = logs / f"{name}.log"
                process = started.enter_context(running(command, log, environment, folder))
                if name == "munged":
                    wait_for(lambda: _there(folder / "munge.sock"), process, log)
            if not _reached(srun, environment):
                pytest.skip(
                    f"srun reaches no nodes here: {(logs / 'node1.log').read_text()[-500:]}"
                )
            yield environment
    finally:
        shutil.rmtree(folder)


def _munge(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(32))
    key.chmod(0o400)
    names = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log"}
    names["seed-file"] = "seed"
    return [f"--{option}={folder / f'munge.{name}'}" for option, name in names.items()]


def _configure(folder: Path) -> None:
    host = socket.gethostname().partition(".")[0]  # as Slurm cuts it
    lines = [
        "ClusterName=gdc",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={free_port()}",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder / 'munge.sock'}",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        f"StateSaveLocation={folder / 'state'}",
        f"SlurmdSpoolDir={folder}/%n",
        f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
        f"SlurmdPidFile={folder}/%n.pid",
        *(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1"
            for node in NODES
        ),
        f"PartitionName=all Nodes={','.join(NODES)} Default=YES State=UP",
    ]
    for name in ("state", *NODES):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _there(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _reached(srun: str, environment: dict[str, str]) -> bool:
    """Whether a program runs on both nodes within a minute, which start meanwhile."""
    asked = [srun, "--nodes", "2", "--ntasks-per-node", "1", "--quiet", "true"]
    try:
        done = subprocess.run(
            asked, env=environment, capture_output=True, check=False, timeout=START_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
