"""A stage that was started as a program -> the fork server of its run, which has the imports.

The stage's program hands over its arguments, its folder, its environment and its three open files,
and ends with the exit code that comes back. Where no server takes it, it goes on by itself.
"""
# The half of a second that this saves must not go into its own imports.

import hashlib
import json
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gdc.environment import PARENT_VARIABLE

# Path of the socket of the server that started this program's DVC.
VARIABLE: Final = "GDC_FORK_SERVER"
# A server's answer: the number of the process that it made, or none; then how that ended.
ANSWER: Final = struct.Struct("!i")
REFUSED: Final = 0
# Set by DVC and shells for a single program; nothing reads them when it is imported.
_OF_ONE_PROGRAM: Final = {
    VARIABLE, PARENT_VARIABLE, "DVC_ROOT", "DVC_STAGE", "OLDPWD", "PWD", "SHLVL", "_",
}  # fmt: skip
_FORWARDED: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Program:
    """A module to run as a program, with its arguments and its environment.

    ``like`` is the ``likeness`` of the process that hands it over.
    """

    module: str
    arguments: list[str]
    environment: dict[str, str]
    like: str = ""

    def encoded(self) -> bytes:
        """As ``receive`` reads it."""
        text = json.dumps(asdict(self)).encode()
        return ANSWER.pack(len(text)) + text


def send(connection: socket.socket, program: Program, files: list[int]) -> None:
    """Send a program and its open files."""
    content = program.encoded()
    # With the first byte, which is sent whole.
    socket.send_fds(connection, [content[:1]], files)
    connection.sendall(content[1:])


def receive(connection: socket.socket) -> tuple[Program, list[int]]:
    """What ``send`` has sent.

    Raises:
        EOFError: The connection ended before it was whole.
    """
    head, files, _, _ = socket.recv_fds(connection, 1, 8)
    (length,) = ANSWER.unpack(head + receive_exactly(connection, ANSWER.size - len(head)))
    return Program(**json.loads(receive_exactly(connection, length))), files


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: The connection ended before.
    """
    content = b""
    while len(content) < size:
        piece = connection.recv(size - len(content))
        if not piece:
            raise EOFError
        content += piece
    return content


def receive_answer(connection: socket.socket) -> int:
    """A number that a server sends.

    Raises:
        EOFError: The server has ended.
    """
    (number,) = ANSWER.unpack(receive_exactly(connection, ANSWER.size))
    return int(number)


def likeness(environment: Mapping[str, str]) -> str:
    """A digest of what a process inherits or imports: Python, paths, code, folder, environment.

    An edit of our code changes it, so a server runs no code that is no longer there.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    # What this flag does stands in the path.
    flags = re.sub(r"safe_path=\w+", "", str(sys.flags))
    package = Path(__file__).parent.parent
    stamps = sorted(
        (entry.path, entry.stat().st_size, entry.stat().st_mtime_ns, entry.stat().st_ino)
        for folder, _, _ in os.walk(package)
        for entry in os.scandir(folder)
        if Path(folder).name != "__pycache__" and entry.is_file()
    )
    variables = {k: v for k, v in environment.items() if k not in _OF_ONE_PROGRAM}
    whole = [
        sys.version, sys.prefix, sys.path, flags, sys.warnoptions, str(Path.cwd()), umask, stamps,
        variables,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def hand_over() -> None:
    """Have this program run by the fork server, and exit as it does; return where none takes it."""
    # Of several processes each is started by the launcher.
    if "RANK" in os.environ or os.environ.get("GDC_LAUNCHER") or sys.orig_argv[1:2] != ["-m"]:
        return
    environment = dict(os.environ)
    path = environment.pop(VARIABLE)
    program = Program(
        module=sys.orig_argv[2],
        arguments=sys.orig_argv[3:],
        environment=environment,
        like=likeness(environment),
    )
    # A signal on the way is kept until it is known to whom it goes.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        connection = _connected(path, program)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    if connection is not None:
        _end_as(connection)


def _connected(path: str, program: Program) -> socket.socket | None:
    """A connection to the server that has started the program; None: it has not."""
    connection = socket.socket(socket.AF_UNIX)
    with suppress(OSError, EOFError):
        connection.connect(path)
        send(connection, program, [0, 1, 2])
        number = receive_answer(connection)
        if number != REFUSED:
            _forward_signals(number)
            return connection
    connection.close()
    return None


def _forward_signals(number: int) -> None:
    def forward(signum: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(number, signum)

    for signum in _FORWARDED:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, forward)


def _end_as(connection: socket.socket) -> None:
    try:
        code = receive_answer(connection)
    except EOFError:
        # The server was killed, and what it had started with it.
        code = -signal.SIGKILL
    if code < 0:
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)
