"""A flow run -> its fork server, which starts DVC and stages without their imports."""

import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import gdc.stages
from gdc.environment import PARENT_VARIABLE
from gdc.workspace import dvc, project
from gdc.workspace.handover import Program, receive_answer, send
from tasks import guard

LOG: Final = Path("work/fork-server.log")
# First what the first targets need, in steps that are short: a request waits for one of them.
DVC_MODULES: Final = (
    "dvc.cli.parser", "dvc.commands.repro", "dvc.repo.reproduce", "dvc.repo.plots", "dvc.scm",
    "dvc.stage.run", "dvc.stage.cache", "dvc.rwlock", "dvc.utils.strictyaml", "zc.lockfile",
    "dvc_data.hashfile.db.local", "dvc_data.hashfile.status", "fsspec.implementations.memory",
    "dulwich.ignore", "dulwich.worktree",
)  # fmt: skip
MODULES: Final = (
    *DVC_MODULES, "polars._utils.parquet", "gdc.stages.manifest",
    "tokenizers", "pandas", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite", "alembic.command",
    "mlflow", "mlflow.store.tracking.sqlalchemy_workspace_store", "torch", "scipy.stats",
    "sklearn.linear_model", "torch._dynamo", "transformers",
    "transformers.models.gpt2.modeling_gpt2",
    *sorted(f"gdc.stages.{found.name}" for found in pkgutil.iter_modules(gdc.stages.__path__)),
)  # fmt: skip


class Forked:
    """A DVC that the fork server has started, with the part of ``Popen`` that we use."""

    stdin: IO[bytes] | None = None

    def __init__(self, connection: socket.socket, stdout: IO[bytes]) -> None:
        self.stdout: IO[bytes] | None = stdout
        self.pid = receive_answer(connection)
        self._connection = connection
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self._code is None:
            ended = select.poll()
            ended.register(self._connection, select.POLLIN)
            if ended.poll(0):
                self._code = self._end()
        return self._code

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        if self._code is None:
            self._code = self._end()
        return self._code

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _end(self) -> int:
        try:
            return receive_answer(self._connection)
        except (EOFError, OSError):
            return -signal.SIGKILL
        finally:
            self._connection.close()


class ForkServer:
    """Starts DVC in forks of one process that has its imports; else in processes of their own."""

    def __init__(self, link: socket.socket, environment: Mapping[str, str]) -> None:
        self._link = link
        self._environment = environment

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> guard.Process:
        """Start a command of DVC, under a guard as ``guard.start`` does."""
        if not dvc.is_command(command):
            return guard.start(command, environment)
        _, _, module, *arguments = command
        # What a library has set in this process since the server started is not for stages.
        parent = {k: v for k, v in environment.items() if k == PARENT_VARIABLE}
        program = Program(module, arguments, {**self._environment, **parent})
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        output = os.fdopen(read, "rb")
        try:
            with theirs, os.fdopen(write, "wb"), Path(os.devnull).open("rb") as nothing:
                socket.send_fds(self._link, [b"1"], [theirs.fileno()])
                send(ours, program, [nothing.fileno(), write, write])
            return Forked(ours, output)
        except (OSError, EOFError):
            # The server is no more.
            ours.close()
            output.close()
            return guard.start(command, environment)


_kept: list[guard.Start] = []
# The address of a socket has 107 bytes, with a name and a number of ours.
_MAX_FOLDER: Final = 80


@contextmanager
def fork_server(modules: Sequence[str] | None = None) -> Iterator[guard.Start]:
    """Keep a fork server, or the one that is kept already.

    Args:
        modules: What it imports for all that it starts; None: what DVC needs, and our stages where
            the graph of the current folder has one.

    Yields:
        What starts a command under a guard, as ``guard.start`` does. Only Linux ends a process
        with its parent: elsewhere it is ``guard.start``.
    """
    if _kept or not sys.platform.startswith("linux"):
        yield _kept[0] if _kept else guard.start
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    LOG.parent.mkdir(exist_ok=True)
    environment = dvc.environment()
    folder = _folder_of_sockets()
    with theirs, LOG.open("wb") as log, guard.ctrl_c_kept_away():
        process = subprocess.Popen(  # noqa: S603  # no shell, arguments are ours
            [
                sys.executable,
                "-P",
                "-m",
                "tasks.fork_server",
                str(theirs.fileno()),
                folder,
                *(_needed() if modules is None else modules),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    _kept.append(ForkServer(ours, environment).start)
    try:
        yield _kept[0]
    finally:
        _kept.clear()
        ours.close()
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _needed() -> Sequence[str]:
    is_ours = project.GRAPH.is_file() and b"gdc.stages" in project.GRAPH.read_bytes()
    return MODULES if is_ours else DVC_MODULES


def _folder_of_sockets() -> str:
    """Make a folder for its owner alone; where that for temporary files is too deep in another."""
    place = tempfile.gettempdir()
    is_short = len(os.fsencode(place)) <= _MAX_FOLDER
    return tempfile.mkdtemp(prefix="gdc-", dir=place if is_short else "/tmp")  # noqa: S108 - made anew
