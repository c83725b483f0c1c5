"""A run of the pipeline, a signal for one of its processes at one moment -> what is left."""

import os
import pkgutil
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

import gdc.stages
from tests.flows.builders import digests, start_flow

# In the environment of all that a round starts, whoever its parent is by then.
MARK = "KILL_ROUND"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("flow", "all of it", "a stage", "DVC", "fork server", "a guard", "Prefect's server")
STAGES = {module.name for module in pkgutil.iter_modules(gdc.stages.__path__)}
# When the signal is sent: at any moment, or as soon as this is being written.
MOMENTS = ("any", "dvc.lock", "mlflow.db", "a checkpoint", "a table")
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
    seconds: float
    faults: tuple[str, ...]


@dataclass
class Trial:
    """A workspace that is run until it is done, and killed on the way."""

    folder: Path
    chance: random.Random
    longest: float  # seconds within which a signal is sent
    victims: Sequence[str] = VICTIMS
    moments: Sequence[str] = MOMENTS
    environment: Mapping[str, str] = field(default_factory=dict)

    def kill_often(self, num_kills: int) -> list[Kill]:
        """Start runs and kill them; fewer where a run was done before its moment came."""
        found = (self.kill_once() for _ in range(num_kills))
        return list(takewhile(lambda kill: kill is not None, found))  # type: ignore[arg-type]

    def finish(self, expected: Mapping[str, str]) -> list[str]:
        """Run until it is done; returns what is not as in a run that nobody killed."""
        for _ in range(MOST_RUNS):
            process = start_flow(self.folder, **self.environment)
            output, _ = process.communicate(timeout=RUN_SECONDS)
            if process.returncode == 0:
                break
        else:
            return [f"does not go on: {output.strip().splitlines()[-1][:200]}"]
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
        moment = self.chance.choice(self.moments)
        victim = self.chance.choice(self.victims)
        number = self.chance.choice(SIGNALS)
        started = time.monotonic()
        with self.folder.with_suffix(".log").open("ab") as log:
            process = start_flow(self.folder, **{MARK: mark}, **self.environment)
            try:
                victims = self._wait_for(process.pid, victim, moment, started)
                if victims is None:
                    return None
                for each in victims:
                    with suppress(psutil.NoSuchProcess):
                        each.send_signal(number)
                output, _ = process.communicate(timeout=RUN_SECONDS)
                log.write(output.encode())
            finally:
                process.kill()
        seconds = time.monotonic() - started
        return Kill(victim, number.name, moment, seconds, tuple(self._faults(mark, output)))

    def _wait_for(
        self, pid: int, victim: str, moment: str, started: float
    ) -> list[psutil.Process] | None:
        """The processes to be killed, once their moment has come; None: the run is done."""
        is_time = self._moment(moment)
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            waited = time.monotonic() - started
            if is_time() or waited > self.longest:
                with suppress(psutil.NoSuchProcess):
                    victims = _victims(pid, victim)
                    if victims:
                        return victims
            time.sleep(0.002)
        return None

    def _moment(self, name: str) -> Callable[[], bool]:
        if name == "any":
            at = time.monotonic() + self.chance.uniform(0, self.longest)
            return lambda: time.monotonic() >= at
        # Of many writes one somewhere in the middle.
        left = self.chance.randint(0, 3)
        seen: set[object] = set()

        def is_written() -> bool:
            nonlocal left
            found = _writing(self.folder, name)
            if found is None or found in seen:
                return False
            seen.add(found)
            left -= 1
            return left < 0

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
            faults.append(f"traceback: {output.strip().splitlines()[-1][:160]}")
        return faults


def runs_without_end(folder: Path) -> int:
    """MLflow runs that look as if they were still going on."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        query = "select count(*) from runs where status = 'RUNNING'"
        return int(database.execute(query).fetchone()[0])


def _victims(pid: int, name: str) -> list[psutil.Process]:
    leader = psutil.Process(pid)
    if name == "flow":
        return [leader]
    family = leader.children(recursive=True)
    if name == "all of it":
        return [leader, *family]
    return [child for child in family if _kind(child, leader) == name]


def _kind(process: psutil.Process, leader: psutil.Process) -> str | None:
    """What a process below the flow is; a fork has a name of its own, and the server's command."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        line, name = " ".join(process.cmdline()), process.name()
        if "uvicorn" in line:
            return "Prefect's server"
        if name == "dvc" or "dvc repro" in line:
            return "DVC"
        if name in STAGES or "gdc.stages." in line:
            return "a stage"
        if "tasks.fork_server" in line:
            return "fork server" if process.ppid() == leader.pid else "a guard"
        if "tasks.guard" in line:
            return "a guard"
    return None


def _writing(folder: Path, name: str) -> object | None:
    """What is being written at this moment, if it is of this kind."""
    if name == "dvc.lock":
        with suppress(FileNotFoundError):
            state = (folder / "dvc.lock").stat()
            # DVC writes in place: nearly empty, it is in the middle of it.
            return (state.st_mtime_ns, state.st_size) if state.st_size < 2000 else None
        return None
    if name == "mlflow.db":
        journal = folder / "mlflow.db-journal"
        with suppress(FileNotFoundError):
            return journal.stat().st_ino, journal.stat().st_mtime_ns
        return None
    place = folder / ("work/checkpoints" if name == "a checkpoint" else "data")
    return next(place.rglob("*.tmp"), None)


def _orphans(mark: str) -> list[list[str]]:
    """Processes of a round that are there after a while; they are ended."""
    deadline = time.monotonic() + STOP_SECONDS
    left = _marked(mark)
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
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
