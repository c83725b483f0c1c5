"""What a run in this folder has done, does and has before it: a file that other programs read."""

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean
from threading import RLock
from typing import Any, Final

import psutil

from gdc.filesystem.durable import new_file
from gdc.filesystem.json_values import JsonObject

PROGRESS: Final = Path("work/progress.json")
# How long each target took when it last ran.
SECONDS: Final = Path("work/seconds.json")
WRITE_SECONDS: Final = 1.0
# Of a tqdm bar: percent, steps, and what follows the times.
_BAR: Final = re.compile(r"(\d+)%\|[^|]*\| *(\S+/\S+) \[[^,\]]*(?:, (.*?))?\]")
_DONE: Final = ("executed", "restored", "skipped")


@dataclass(frozen=True)
class TargetState:
    """One target of a run.

    Args:
        outcome: What became of it; None until it ends.
        started: When it started, in seconds since 1970; None until it does.
        seconds: How long it took; None until it ends.
        detail: Of what it said last, its share done and its rate.
    """

    outcome: str | None = None
    started: float | None = None
    seconds: float | None = None
    detail: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self.outcome is None and self.started is not None


@dataclass(frozen=True)
class RunState:
    """One run, as it stands.

    Args:
        process: Number of its process, and when that was made: numbers are given again.
        created: See ``process``.
        started: When it started, in seconds since 1970.
        ended: When it ended; None while it runs.
        num_workers: Targets that run at the same time at most.
        usual: How long each target took when it last ran, in seconds.
        targets: Its targets, in an order in which they can run.
    """

    process: int
    created: float
    started: float
    num_workers: int
    ended: float | None = None
    usual: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, TargetState] = field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether its process still runs it."""
        if self.ended is not None:
            return False
        try:
            created = _created(self.process)
        except psutil.Error:
            return False
        return abs(created - self.created) < 1

    def num_done(self) -> int:
        """How many targets have ended well."""
        return sum(state.outcome in _DONE for state in self.targets.values())

    def seconds_left(self, now: float) -> tuple[float, bool]:
        """Estimate the seconds that are left, from earlier targets of the same stage.

        Returns:
            The seconds, and whether nothing is known of some targets, so that they come on top.
        """
        known = self._usual_of_stages()
        left, is_more = [], False
        for target, state in self.targets.items():
            if state.outcome is not None:
                continue
            usual = self.usual.get(target, known.get(stage_of(target)))
            if usual is None:
                is_more = True
            else:
                # A clock that was set back would make it longer than ever.
                gone = max(0.0, now - state.started) if state.started else 0.0
                left.append(max(0.0, usual - gone))
        return max(sum(left) / self.num_workers, max(left, default=0.0)), is_more

    def _usual_of_stages(self) -> dict[str, float]:
        """Mean seconds of a stage's targets, of this run before those of earlier ones."""
        known: dict[str, float] = {}
        for seconds in (self.usual, self.seconds_here()):
            by_stage = defaultdict[str, list[float]](list)
            for target, value in seconds.items():
                by_stage[stage_of(target)].append(value)
            known |= {stage: mean(values) for stage, values in by_stage.items()}
        return known

    def seconds_here(self) -> dict[str, float]:
        """How long each target took that was executed in this run."""
        return {
            target: state.seconds
            for target, state in self.targets.items()
            if state.outcome == "executed" and state.seconds is not None
        }


def _created(process: int) -> float:
    """When a process began, in seconds since the machine did: whatever its clock is set to."""
    found: float = psutil.Process(process).create_time() - psutil.boot_time()
    return found


def stage_of(target: str) -> str:
    """The stage of a target: ``retrain`` of ``retrain@none-1``."""
    return target.partition("@")[0]


def detail_of(line: str) -> str | None:
    """Share done, steps and rate of a progress bar; None of a line that is none."""
    found = _BAR.search(line)
    if found is None:
        return None
    # As tqdm has it: "4.71step/s, 4.44k tokens/s"; the last is what training is measured in.
    rate = (found[3] or "").rpartition(", ")[2]
    return f"{found[1]} %  {found[2]}  {rate}".rstrip()


class Progress:
    """Keeps the file of a run up to date; its methods may be called from any thread."""

    def __init__(self, targets: Iterable[str], num_workers: int) -> None:
        number = os.getpid()
        self._lock = RLock()
        self._written = 0.0
        self.state = RunState(
            process=number,
            created=_created(number),
            started=time.time(),
            num_workers=num_workers,
            usual=read_seconds(),
            targets=dict.fromkeys(targets, TargetState()),
        )
        self._write()

    def start(self, target: str) -> None:
        """Note that a target starts."""
        self._change(target, started=time.time())

    def say(self, target: str, line: str) -> bool:
        """Note what a target says; returns whether it was a progress bar."""
        detail = detail_of(line)
        if detail is None:
            return False
        self._change(target, detail=detail)
        return True

    def end(self, target: str, outcome: str, seconds: float) -> None:
        """Note what became of a target."""
        self._change(target, outcome=outcome, seconds=seconds, detail="")

    def close(self) -> None:
        """Note that the run has ended, and keep how long its targets took."""
        with self._lock:
            self.state = replace(self.state, ended=time.time())
            self._write()
            with new_file(SECONDS) as temporary:
                usual = {**self.state.usual, **self.state.seconds_here()}
                temporary.write_text(json.dumps(usual), encoding="utf-8")

    def _change(self, target: str, **changes: Any) -> None:  # noqa: ANN401  # fields of TargetState
        with self._lock:
            state = replace(self.state.targets.get(target, TargetState()), **changes)
            self.state = replace(self.state, targets={**self.state.targets, target: state})
            # A bar may move often.
            if set(changes) != {"detail"} or time.monotonic() - self._written > WRITE_SECONDS:
                self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        # A picture for others: a full disk ends the run elsewhere, with a word on it.
        with suppress(OSError), new_file(PROGRESS) as temporary:
            temporary.write_text(json.dumps(asdict(self.state)), encoding="utf-8")


def read_seconds() -> dict[str, float]:
    """How long each target took when it was last executed in this folder."""
    return {k: v for k, v in _read(SECONDS).items() if isinstance(v, int | float)}


def read_progress() -> RunState | None:
    """The run in this folder that started last; None where there was none yet."""
    content = _read(PROGRESS)
    try:
        targets = {name: TargetState(**state) for name, state in content["targets"].items()}
        return RunState(**{**content, "targets": targets})
    except (KeyError, TypeError, AttributeError):
        return None


def _read(path: Path) -> JsonObject:
    """A JSON object; empty where there is none, or the file is of another version or damaged."""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    return {}
