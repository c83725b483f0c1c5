"""The workspace as it is -> what a run would do here, and what that costs; nothing is changed."""

from collections import Counter
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from gdc.commands.estimate import Estimate, estimate
from gdc.commands.status import span
from gdc.config import Params
from gdc.corpus import sources
from gdc.environment import workers
from gdc.errors import ConfigError
from gdc.filesystem.json_values import JsonObject
from gdc.workspace import dvc_files, files, paths
from gdc.workspace.progress import read_seconds
from gdc.workspace.project import edited_stages
from tasks.graph import changed_targets, load_graph, phase_of


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Args:
        targets: What would run, at most: of a changed stage the outputs may be what they were.
        cost: Of all models of the workspace; None where no model would be trained.
        usual_seconds: What the targets took when they last ran, side by side; None: not all ran.
    """

    targets: list[str]
    cost: Estimate | None
    usual_seconds: float | None

    def to_json(self) -> JsonObject:
        """The same for programs."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """The same for people."""
        if not self.targets:
            return ["Nothing changed since the last run: only stage manifest would run."]
        stages = Counter(map(phase_of, self.targets))
        counted = [name if count == 1 else f"{name} ({count})" for name, count in stages.items()]
        told = [f"would run, at most: {', '.join(counted)}"]
        if self.usual_seconds is not None:
            told.append(f"time: about {span(self.usual_seconds)}, as when they last ran")
        if self.cost is not None:
            told += _cost(self.cost, is_timed=self.usual_seconds is not None)
        return told


def dry_run(params: Params, max_workers: int | None = None) -> DryRun:
    """Find what would run in this folder; measure what training costs where it is not known.

    Args:
        params: Those of params.yaml, or with another source.
        max_workers: Models trained at the same time; None: as the cores allow.

    Raises:
        ConfigError: dvc.lock is damaged, which a run would mend, or dvc.yaml.
    """
    if (damage := dvc_files.damage()) is not None:
        raise ConfigError(damage)
    graph = load_graph(Path())
    edited = edited_stages()
    changed = changed_targets()
    if _source_changed(params):
        changed |= {"ingest"}
    is_counted = "ingest" not in changed
    changed |= {t for t in graph.upstream if phase_of(t) in edited}
    unchanged = graph.unchanged(changed)
    order = TopologicalSorter(graph.upstream).static_order()
    targets = [t for t in order if t not in unchanged and t != "manifest"]
    num_workers = max_workers or workers(params.training.num_threads)
    seconds = read_seconds()
    usual = [seconds[target] for target in targets if target in seconds]
    trains = any(phase_of(target) in ("train", "reference", "retrain") for target in targets)
    return DryRun(
        targets,
        estimate(params, num_workers, is_counted=is_counted) if trains else None,
        sum(usual) / num_workers if len(usual) == len(targets) else None,
    )


def _source_changed(params: Params) -> bool:
    if not paths.MANIFEST.exists() or params.ingest.source != files.load_params().ingest.source:
        return True
    known = files.read_json(paths.MANIFEST).get("digest")
    return bool(sources.fingerprint(params.ingest.source)["digest"] != known)


def _cost(cost: Estimate, *, is_timed: bool) -> list[str]:
    told = [
        f"a whole run trains {cost.num_models} models on about {cost.num_tokens:,} tokens a pass"
    ]
    if cost.tokens_per_second is not None and cost.minutes is not None:
        speed = f"measured now: {cost.tokens_per_second:,.0f} tokens/s a model"
        told.append(f"{speed}; its trainings take about {span(60 * cost.minutes)}")
        if not is_timed:
            told[-1] += "; audits and other stages come on top"
    told.append(f"models and traces fill about {cost.gigabytes:.2f} GB")
    return told
