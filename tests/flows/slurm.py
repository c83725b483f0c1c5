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

from tests.builders import free_port
from tests.flows.programs import running, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sinfo")
# Where Debian puts what root starts.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
NODES = ("node1", "node2")


@contextmanager
def two_nodes(logs: Path) -> Iterator[dict[str, str] | None]:
    """The environment in which `srun` finds the nodes.

    None where a program is not installed, or we are not root, as Slurm's daemons must be.
    """
    found = [shutil.which(name, path=PATH) for name in PROGRAMS]
    if os.geteuid() != 0 or not all(found):
        yield None
        return
    munged, slurmctld, slurmd, _, sinfo = map(str, found)
    # Paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="gdc-slurm-"))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        _configure(folder)
        log = logs / "slurmctld.log"
        daemons = [
            [munged, "--foreground", "--force", *_munge(folder)],
            [slurmctld, "-D"],
            *([slurmd, "-D", "-N", node] for node in NODES),
        ]
        with ExitStack() as started:
            for number, command in enumerate(daemons):
                path = log if number == 1 else logs / f"slurm-{number}.log"
                process = started.enter_context(running(command, path, environment, folder))
                if number == 0:
                    wait_for(lambda: _there(folder / "munge.sock"), process, path)
            wait_for(lambda: _idle(sinfo, environment), process, path, log)
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
    host = socket.gethostname()
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


def _idle(sinfo: str, environment: dict[str, str]) -> str | None:
    """Both nodes, once they wait for work."""
    asked = [sinfo, "--noheader", "--states", "idle", "--format", "%D"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
    return "2" if done.stdout.strip() == "2" else None
