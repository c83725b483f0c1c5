"""A run of the pipeline, a signal for one of its processes at one moment -> what is left."""

import os
import pkgutil
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
from filelock import FileLock, Timeout

import gdc.stages
from tests.flows.builders import digests, start_flow

# In the environment of all that a round starts, whoever its parent is by then.
MARK = "KILL_ROUND"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("flow", "all of it", "a stage", "DVC", "fork server", "a guard", "Prefect's server")
# What the command of a process that no fork server started holds; a guard's holds another.
COMMANDS = (
    ("tasks.guard", "a guard"), ("tasks.fork_server", "a guard"), ("dvc repro", "DVC"),
    ("uvicorn", "Prefect's server"), ("gdc.stages.", "a stage"),
)  # fmt: skip
STAGES = {module.name for module in pkgutil.iter_modules(gdc.stages.__path__)}
# When the signal is sent: at any moment, or as soon as this is being written.
ANY = "any"
MOMENTS = (ANY, "dvc.lock", "mlflow.db", "a checkpoint", "a table")
NO_STAGE = "between stages"
SPARED_SHARE = 0.85
STOP_SECONDS = 60.0
RUN_SECONDS = 900.0
MOST_RUNS = 3
RESULTS = ("data", "metrics", "reports")


@dataclass(frozen=True)
class Kill:
    """One round: what was killed, how, when, and what was found afterwards."""

    victim: str
    how: str
    moment: str
    during: str  # the stage that ran, or that none ran
    seconds: float
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Moment:
    """A run that is held: what was being written, what ran, whom to kill, and who waits."""

    moment: str
    during: str
    victims: list[int]
    held: list[int]


class Flow(Protocol):
    """A run that was started: a part of ``Popen``."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float) -> tuple[str, object]: ...


# Starts a run in a folder for a victim, with these variables in its environment.
Start = Callable[[Path, str, Mapping[str, str]], Flow]


def start_alone(folder: Path, _victim: str, variables: Mapping[str, str]) -> Flow:
    return start_flow(folder, **variables)


@dataclass
class Trial:
    """A workspace that is run until it is done, and killed on the way."""

    folder: Path
    chance: random.Random
    longest: float  # seconds within which a signal is sent
    victims: Sequence[str] = VICTIMS
    moments: Sequence[str] = MOMENTS
    start: Start = start_alone
    is_done: bool = False

    def kill_often(self, num_kills: int) -> Iterator[Kill]:
        """Start runs and kill them; fewer where a run was done before its moment came."""
        for _ in range(num_kills):
            kill = self.kill_once()
            if kill is None:
                return
            yield kill

    def finish(self, expected: Mapping[str, str]) -> list[str]:
        """Run until it is done; returns what is not as in a run that nobody killed."""
        output = ""
        for _ in range(MOST_RUNS):
            if self.is_done:
                break
            process = self.start(self.folder, "flow", {})
            output, _ = process.communicate(timeout=RUN_SECONDS)
            self.is_done = process.returncode == 0
        if not self.is_done:
            return [f"does not go on: {_last_line(output)}"]
        found = digests(self.folder, RESULTS)
        names = sorted(
            name for name in {*expected, *found} if expected.get(name) != found.get(name)
        )
        faults = [f"other bytes: {name}" for name in names]
        if count := runs_without_end(self.folder):
            faults.append(f"{count} MLflow runs without an end")
        return faults

    def kill_once(self) -> Kill | None:
        """Start a run, and kill it; None: it was done before its moment came."""
        mark = f"{self.folder}-{self.chance.random()}"
        aimed = self.chance.choice(self.moments)
        victim = self.chance.choice(self.victims)
        number = self.chance.choice(SIGNALS)
        started = time.monotonic()
        with self.folder.with_suffix(".log").open("ab") as log:
            process = self.start(self.folder, victim, {MARK: mark})
            try:
                found = self._wait_for(process, victim, aimed)
                if found is None:
                    output, _ = process.communicate(timeout=RUN_SECONDS)
                    self.is_done = process.returncode == 0
                    return None
                _send(found.victims, number)
                _send(found.held, signal.SIGCONT)
                output, _ = process.communicate(timeout=RUN_SECONDS)
            finally:
                process.kill()
            log.write(output.encode())
        faults = tuple(self._faults(mark, output))
        seconds = time.monotonic() - started
        return Kill(victim, number.name, found.moment, found.during, seconds, faults)

    def _wait_for(self, process: Flow, victim: str, aimed: str) -> Moment | None:
        """Hold the run at the moment that was aimed at; None: it was done before."""
        is_time = self._moment(aimed)
        # Every run begins with it: else it would be hit in most rounds.
        is_first_spared = self.chance.random() < SPARED_SHARE
        deadline = time.monotonic() + self.longest
        while process.poll() is None:
            is_late = time.monotonic() > deadline
            if is_late or is_time():
                held = _hold(process.pid)
                # Whatever was being written may have been done before all were held.
                if is_late or aimed == ANY or _writing(self.folder, aimed):
                    with suppress(psutil.NoSuchProcess):
                        during, victims = _victims(process.pid, victim)
                        is_spared = is_first_spared and during == "manifest"
                        if victims and not is_spared:
                            return Moment(ANY if is_late else aimed, during, victims, held)
                _send(held, signal.SIGCONT)
                # A look at all processes takes long.
                time.sleep(0.1 if aimed == ANY else 0.01)
            time.sleep(0.05 if aimed == ANY else 0.002)
        return None

    def _moment(self, name: str) -> Callable[[], bool]:
        if name == ANY:
            at = time.monotonic() + self.chance.uniform(0, self.longest)
            return lambda: time.monotonic() >= at
        # One of the first two: the rounds before it brought the run to where it is.
        left = self.chance.randint(0, 1)
        was_written = False

        def is_written() -> bool:
            nonlocal left, was_written
            is_new = not was_written
            was_written = _writing(self.folder, name)
            left -= was_written and is_new
            return was_written and left < 0

        return is_written

    def _faults(self, mark: str, output: str) -> list[str]:
        """What a round must not leave: a process, a lock, a traceback."""
        faults = [f"left running: {' '.join(words)[:120]}" for words in _orphans(mark)]
        try:
            with FileLock(self.folder / "work/.lock", timeout=0):
                pass
        except Timeout:
            faults.append("the folder is held")
        if "Traceback (most recent call last)" in output:
            faults.append(f"traceback: {_last_line(output)}")
        return faults


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["no word"])[-1][:200]


def runs_without_end(folder: Path) -> int:
    """MLflow runs that look as if they were still going on."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        query = "select count(*) from runs where status = 'RUNNING'"
        return int(database.execute(query).fetchone()[0])


def _victims(pid: int, name: str) -> tuple[str, list[int]]:
    """The stage that runs, and the processes of this name."""
    leader = psutil.Process(pid)
    family = leader.children(recursive=True)
    kinds = {child: _kind(child, leader) for child in family}
    stages = [_stage(child) for child, kind in kinds.items() if kind == "a stage"]
    during = stages[0] if stages else NO_STAGE
    if name == "flow":
        return during, [pid]
    if name == "all of it":
        return during, [pid, *(child.pid for child in family)]
    return during, [child.pid for child, kind in kinds.items() if kind == name]


def _stage(process: psutil.Process) -> str:
    """Its name; of one that no fork server started the module that it runs."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        words = [process.name(), *(word.rpartition(".")[2] for word in process.cmdline())]
        return next((word for word in words if word in STAGES), NO_STAGE)
    return NO_STAGE


def _kind(process: psutil.Process, leader: psutil.Process) -> str | None:
    """What a process below the flow is; a fork has a name of its own, and the server's command."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        line, name = " ".join(process.cmdline()), process.name()
        if name in STAGES:
            return "a stage"
        if name == "dvc":
            return "DVC"
        if "tasks.fork_server" in line and process.ppid() == leader.pid:
            return "fork server"
        return next((kind for words, kind in COMMANDS if words in line), None)
    return None


def _writing(folder: Path, name: str) -> bool:
    """Whether a file of this kind is being written at this moment."""
    if name == "dvc.lock":
        with suppress(FileNotFoundError):
            # DVC writes in place: nearly empty, it is in the middle of it.
            return (folder / "dvc.lock").stat().st_size < 2000
        return False
    if name == "mlflow.db":
        return (folder / "mlflow.db-journal").exists()
    place = folder / ("work/checkpoints" if name == "a checkpoint" else "data")
    return next(place.rglob("*.tmp"), None) is not None


def _hold(pid: int) -> list[int]:
    """Stop a process and all below it, so that nothing goes on while a victim is looked for."""
    held, left = [], [pid]
    while left:
        held.append(each := left.pop())
        _send([each], signal.SIGSTOP)
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                left += map(int, children.read_text().split())
    return held


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _orphans(mark: str) -> list[list[str]]:
    """Processes of a round that are there after a while; they are ended."""
    deadline = time.monotonic() + STOP_SECONDS
    left = _marked(mark)
    while left and time.monotonic() < deadline:
        time.sleep(0.5)
        left = _marked(mark)
    words = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            words.append(process.cmdline())
            process.kill()
    return words


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found
