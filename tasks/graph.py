"""dvc.yaml -> its targets, what each needs, and which of them have nothing to do."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gdc.errors import ConfigError
from gdc.workspace import dvc

# `dvc status` says this of a stage that always runs, changed or not.
ALWAYS: Final = "always changed"


@dataclass(frozen=True)
class Graph:
    """The stages of dvc.yaml: each target (``retrain@none-1``) with the targets it reads from."""

    upstream: Mapping[str, frozenset[str]]

    def after(self, first: str) -> "Graph":
        """The graph in which every other target needs ``first`` too."""
        return Graph(
            {
                target: needed if target == first else needed | {first}
                for target, needed in self.upstream.items()
            }
        )

    def above(self, target: str) -> frozenset[str]:
        """Every target that ``target`` depends on, directly or through others."""
        direct = self.upstream.get(target, frozenset())
        return direct.union(*(self.above(other) for other in direct))

    def unchanged(self, changed: Iterable[str]) -> frozenset[str]:
        """Targets that are not changed and have no changed target anywhere upstream.

        A target below a changed stage looks clean until that stage has run.
        """
        dirty = frozenset(changed)
        return frozenset(t for t in self.upstream if not dirty & ({t} | self.above(t)))


def phase_of(target: str) -> str:
    """The stage of a target: ``retrain`` of ``retrain@none-1``."""
    return target.partition("@")[0]


def load_graph(folder: Path) -> Graph:
    """Read the graph of ``folder``'s dvc.yaml.

    Raises:
        ConfigError: The folder is no DVC workspace, or dvc.yaml does not resolve.
    """
    # Half a second of a run that has nothing to do:
    from dvc.exceptions import DvcException, NotDvcRepoError  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph
            return Graph(
                {
                    stage.addressing: frozenset(above.addressing for above in graph.adj[stage])
                    for stage in repo.index.stages
                    if not stage.is_data_source
                }
            )
    except NotDvcRepoError as error:
        raise ConfigError(f"dvc.yaml: {error}. Write a workspace with `gdc init docs`.") from None
    except DvcException as error:
        raise ConfigError(f"dvc.yaml: {error}. `dvc status` shows the place.") from None


def changed_targets() -> frozenset[str]:
    """Targets whose files, params or command differ from dvc.lock.

    Their code as `manifest` has seen it last: see ``gdc.workspace.project.edited_stages``.
    """
    done = dvc.run("status", "--json")
    if done.returncode != 0:
        raise ConfigError(f"dvc status: {done.stderr.strip()}")
    return parse_status(done.stdout)


def parse_status(text: str) -> frozenset[str]:
    """Changed targets from the JSON of ``dvc status``."""
    status = json.loads(text)
    return frozenset(target for target, reasons in status.items() if reasons != [ALWAYS])
