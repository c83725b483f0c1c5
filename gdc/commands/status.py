"""The progress of a run -> a table and sentences, live in its terminal or from another one."""

from collections.abc import Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table

from gdc.filesystem.json_values import JsonObject
from gdc.workspace.progress import RunState, TargetState


def span(seconds: float) -> str:
    """A span of time as people say it: ``48 s``, ``3 min 5 s``, ``2 h 10 min``."""
    # Where the clock was set back meanwhile nothing is known.
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def headline(run: RunState, now: float) -> str:
    """How far a run is, in one line."""
    done = f"{run.num_done()} of {len(run.targets)} done"
    if run.ended is not None:
        return f"{done} in {span(run.ended - run.started)}"
    left, is_more = run.seconds_left(now)
    parts = [done, f"{span(now - run.started)} so far"]
    if left:
        parts.append(f"{'at least' if is_more else 'about'} {span(left)} left")
    return ", ".join(parts)


def table(run: RunState, now: float) -> Table:
    """What runs now, with a line of how far the run is."""
    found = Table(box=SIMPLE_HEAD, caption=headline(run, now), caption_justify="left")
    found.add_column("running", no_wrap=True, min_width=24)
    found.add_column("for", justify="right", no_wrap=True, min_width=10)
    found.add_column("progress", no_wrap=True, min_width=30)
    for target, state in run.targets.items():
        if state.is_running:
            found.add_row(target, span(now - (state.started or now)), state.detail)
    return found


def sentences(run: RunState | None, now: float) -> list[str]:
    """What runs in this folder, how far it is and what is left."""
    if run is None:
        return ["No run in this folder yet. Start one: gdc run"]
    when = datetime.fromtimestamp(run.started).astimezone().strftime("%Y-%m-%d %H:%M")
    if not run.is_alive():
        ended = "ended" if run.ended is not None else "was cut off"
        failed = _named(run, "failed")
        return [
            f"No run now. The last one started {when} and {ended}: {headline(run, now)}.",
            *([f"Failed: {', '.join(failed)}."] if failed else []),
        ]
    waiting = [name for name, state in run.targets.items() if _waits(state)]
    return [
        f"Process {run.process} runs here since {when}: {headline(run, now)}.",
        *(
            f"running  {name}  {span(now - (state.started or now))}  {state.detail}".rstrip()
            for name, state in run.targets.items()
            if state.is_running
        ),
        *([f"waiting  {', '.join(by_stage(waiting))}"] if waiting else []),
    ]


def by_stage(targets: Sequence[str]) -> list[str]:
    """The targets in order; of several of one stage its name and how many they are."""
    cells: dict[str, list[str]] = {}
    for target in targets:
        cells.setdefault(target.partition("@")[0], []).append(target)
    return [of[0] if len(of) == 1 else f"{stage} ({len(of)})" for stage, of in cells.items()]


def as_plain(run: RunState | None, now: float) -> JsonObject:
    """The same for programs."""
    if run is None:
        return {"is_running": False, "targets": {}}
    left, is_more = run.seconds_left(now)
    return {
        "is_running": run.is_alive(),
        "process": run.process,
        "started": run.started,
        "ended": run.ended,
        "num_done": run.num_done(),
        "num_targets": len(run.targets),
        "seconds_left": left if run.is_alive() else None,
        "seconds_left_is_a_minimum": is_more,
        "targets": {
            name: {"outcome": state.outcome, "seconds": state.seconds, "detail": state.detail}
            for name, state in run.targets.items()
        },
    }


def _named(run: RunState, outcome: str) -> list[str]:
    return [name for name, state in run.targets.items() if state.outcome == outcome]


def _waits(state: TargetState) -> bool:
    return state.outcome is None and not state.is_running
