"""Requests of a flow run -> programs that start with their imports done: forks of this process.

This process imports what DVC and the stages need, and never runs any of it. For each target it
forks a guard, and the guard forks DVC, and then the stage that DVC starts and that hands itself
over (see ``gdc.workspace.handover``). A guard's children are in its process group; they end with
it, and it ends with the flow.
"""

import atexit
import ctypes
import gc
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import FileIO, TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TextIO

import psutil

from tasks import lock_entries

if TYPE_CHECKING:
    from gdc.workspace.handover import Program

# Of prctl(2).
_SET_NAME: Final = 15
_END_WITH_PARENT: Final = 1
_ANSWER_SECONDS: Final = 10.0


def main() -> None:
    """Serve the flow at the other end of a socket until it ends, and import modules meanwhile.

    Our arguments are the number of the socket, a folder for others and the names of the modules.
    """
    if "PYTHONSAFEPATH" not in os.environ:
        # As for `python -m`: what lies in the workspace takes the place of what is installed.
        sys.path.insert(0, str(Path.cwd()))
    number, folder, *modules = sys.argv[1:]
    program = _serve(socket.socket(fileno=int(number)), Path(folder), modules)
    # In a child, and outside of all that the server has open.
    if program is not None:
        _run(program)


def handover() -> ModuleType:
    """How programs are sent: a module of the workspace, once that is first in the path."""
    return import_module("gdc.workspace.handover")


# ---- the server


def _serve(link: socket.socket, folder: Path, modules: Sequence[str]) -> "Program | None":
    """Fork a guard for each request; returns a program to run in a child, None at the end."""
    like = handover().likeness(os.environ)
    ended = _wakened_by(signal.SIGCHLD)
    to_import = [*reversed(modules)]
    while True:
        ready = _readable([link.fileno(), ended], 0 if to_import else None)
        if ended in ready:
            _reap(ended)
        if link.fileno() in ready:
            _, files, _, _ = socket.recv_fds(link, 1, 1)
            if not files:
                shutil.rmtree(folder, ignore_errors=True)
                return None
            request = socket.socket(fileno=files[0])
            if not _fork():
                link.close()
                os.close(ended)
                return _Guard(request, like, folder).run()
            request.close()
        elif to_import:
            _import(to_import.pop())


def _import(module: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        # It fails again where it is needed, if it is, and is told of there.
        sys.stderr.write(f"{module}: {error}\n")


def _reap(ended: int) -> None:
    os.read(ended, 100)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# ---- a guard: one DVC, and the stages that it starts


class _Guard:
    """Runs the DVC of one request; as ``tasks.guard`` does it for any program."""

    def __init__(self, request: socket.socket, like: str, folder: Path) -> None:
        os.setsid()
        self._request = request
        self._like = like
        self._woken = _wakened_by(signal.SIGCHLD, signal.SIGTERM)
        self._address = folder / str(os.getpid())
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._address))
        self._listener.listen()
        self._dvc = 0
        self._code = 128 + signal.SIGKILL
        self._stages: dict[int, socket.socket] = {}  # by the number of the process
        self._asked: set[psutil.Process] = set()
        self._is_stopping = False

    def run(self) -> "Program | None":
        """Run it to its end; returns only in a child, with the program that it is to run."""
        program: Program
        program, files = handover().receive(self._request)
        program.environment[handover().VARIABLE] = str(self._address)
        self._request.sendall(handover().ANSWER.pack(os.getpid()))
        self._dvc = self._fork(program, files)
        if not self._dvc:
            return program
        while True:
            ready = self._ready()
            if self._request.fileno() in ready:
                # The flow is no more: it sends nothing.
                os.killpg(0, signal.SIGKILL)
            if self._listener.fileno() in ready and (stage := self._start_stage()) is not None:
                return stage
            for number, connection in list(self._stages.items()):
                if connection.fileno() in ready:
                    # The program that handed the stage over is no more.
                    self._stages.pop(number).close()
                    os.kill(number, signal.SIGKILL)
            self._heed_signals(ready)

    def _ready(self) -> list[int]:
        files = (self._request, self._listener, *self._stages.values())
        # In short steps: DVC may start something after it was asked to stop.
        seconds = 0.1 if self._is_stopping else None
        return _readable([self._woken, *(file.fileno() for file in files)], seconds)

    def _heed_signals(self, ready: list[int]) -> None:
        if self._woken in ready:
            self._is_stopping |= signal.SIGTERM in os.read(self._woken, 100)
        if self._is_stopping:
            self._ask()
        self._reap()

    def _start_stage(self) -> "Program | None":
        """Fork the stage that hands itself over; returns it in the child."""
        connection, _ = self._listener.accept()
        connection.settimeout(_ANSWER_SECONDS)
        number = handover().REFUSED
        with suppress(OSError, EOFError):
            program: Program
            program, files = handover().receive(connection)
            if program.like == self._like:
                number = self._fork(program, files)
                if not number:
                    connection.close()
                    return program
                self._stages[number] = connection
            else:
                _close(files)
            connection.sendall(handover().ANSWER.pack(number))
        if number == handover().REFUSED:
            connection.close()
        return None

    def _fork(self, program: "Program", files: list[int]) -> int:
        parent = os.getpid()
        number = _fork()
        if number:
            _close(files)
            return number
        for connection in (self._request, self._listener, *self._stages.values()):
            connection.close()
        os.close(self._woken)
        _become(program, files)
        if os.getppid() != parent:
            # It died before we could ask to end with it.
            os._exit(128 + signal.SIGKILL)
        return 0

    def _ask(self) -> None:
        """Ask what DVC runs to end; DVC itself would die in the middle of a write."""
        with suppress(psutil.NoSuchProcess):
            for process in set(psutil.Process(self._dvc).children(recursive=True)) - self._asked:
                process.terminate()
                self._asked.add(process)

    def _reap(self) -> None:
        """Tell how what has ended has ended; does not return once nothing is left."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                number, code = ended[0], os.waitstatus_to_exitcode(ended[1])
                if number == self._dvc:
                    self._code = code if code >= 0 else 128 - code
                    for left in self._stages:
                        os.kill(left, signal.SIGKILL)
                elif (connection := self._stages.pop(number, None)) is not None:
                    with suppress(OSError):
                        connection.sendall(handover().ANSWER.pack(code))
                    connection.close()
            return
        self._address.unlink(missing_ok=True)
        with suppress(OSError):
            self._request.sendall(handover().ANSWER.pack(self._code))
        os._exit(self._code)


# ---- processes


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads that wait in what was imported, and that their libraries restart in a child.
        warnings.simplefilter("ignore")
        # What is here now is kept for good: no look of a child's collector copies its pages.
        gc.freeze()
        return os.fork()


def _become(program: "Program", files: list[int]) -> None:
    """Make this process what a new one would find itself to be, and have it end with its parent."""
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    prctl = ctypes.CDLL(None).prctl
    prctl(_END_WITH_PARENT, signal.SIGKILL)
    prctl(_SET_NAME, program.module.rpartition(".")[2].encode())
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    for name, place in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, _text_file(place, like=getattr(sys, name)))
    os.environ.clear()
    os.environ.update(program.environment)
    sys.argv = [program.module, *program.arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    # A stage runs as `__main__`, not as the module that was imported; DVC is a package and stays.
    if not hasattr(sys.modules.get(program.module), "__path__"):
        sys.modules.pop(program.module, None)
    if "numpy" in sys.modules:
        # Python seeds its own numbers anew.
        sys.modules["numpy"].random.seed()


def _run(program: "Program") -> None:
    """Run a program to its end.

    Modules are not taken apart at the end: in a fork that copies the pages of all that was
    imported, which takes half a second. An error ends the program as in any process.
    """
    if program.module == "dvc":
        lock_entries.install()
    code = 0
    try:
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        code = int(end.code or 0)
    # What Python itself does before it takes its modules apart.
    threading._shutdown()  # type: ignore[attr-defined] # Python's own
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


def _text_file(number: int, *, like: TextIO) -> TextIO:
    """An open file of which nothing is known from before; unbuffered, as dvc.environment asks."""
    raw = FileIO(number, "wb", closefd=False)
    return TextIOWrapper(raw, like.encoding, like.errors, newline="\n", write_through=True)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _readable(files: list[int], seconds: float | None) -> list[int]:
    return select.select(files, [], [], seconds)[0]


def _wakened_by(*signals: signal.Signals) -> int:
    """The end of a pipe from which the numbers of these signals can be read as they come."""
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    former = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if former != -1:
        os.close(former)
    for number in signals:
        signal.signal(number, lambda *_: None)
    return read


if __name__ == "__main__":
    main()
