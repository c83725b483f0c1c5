"""The paths that the pipeline writes, and checks that none of them holds a file of the user's.

DVC deletes a stage's outputs before it runs the stage, so a user's file there would be lost.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gdc.config import HuggingFaceSource, Params, PretrainedTokenizer
from gdc.errors import ConfigError
from gdc.filesystem import durable
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import links_below, overlapping
from gdc.workspace import files, paths

GRAPH: Final = Path("dvc.yaml")
LOCK: Final = Path("dvc.lock")
# Written by gdc too, but not listed in the graph.
_NOT_IN_GRAPH: Final = (
    paths.PARAMS, GRAPH, LOCK, Path(".dvc"), Path(".git"), Path("work"), Path("mlflow.db"),
    Path("mlartifacts"), Path("reports/leaderboard.json"), Path("reports/leaderboard.md"),
    Path("reports/leaderboard.png"), Path("reports/certificate.json"),
)  # fmt: skip
_TEMPLATE: Final = "${"
# In an ``--out`` folder: the names of the files there that are ours to write again.
RESULTS: Final = ".gdc-results.json"


def graph_outputs(graph: JsonObject) -> list[Path]:
    """Return the files and folders that a dvc.yaml lists as outputs.

    An output of a matrix stands for the folder that holds it for all items.

    Args:
        graph: The parsed dvc.yaml.
    """
    return list(dict.fromkeys(_known_part(Path(name)) for name in _named_outs(graph)))


def pipeline_outputs() -> list[Path]:
    """Return every path that the pipeline writes in the current folder; none without a dvc.yaml."""
    return [*graph_outputs(_graph()), *_NOT_IN_GRAPH] if GRAPH.exists() else []


def require_outside_outputs(params: Params) -> None:
    """Refuse a source or a pretrained tokenizer that lies among the pipeline's outputs.

    Raises:
        ConfigError: Its path is, contains or lies inside an output, directly or through a link.
    """
    source, tokenizer = params.ingest.source, params.ingest.tokenizer
    path = getattr(source, "path", None)
    if path is not None and (not isinstance(source, HuggingFaceSource) or Path(path).exists()):
        _require_outside(Path(path), "ingest.source.path")
    if isinstance(tokenizer, PretrainedTokenizer) and Path(tokenizer.name).exists():
        _require_outside(Path(tokenizer.name), "ingest.tokenizer.name")


def require_folders_here() -> None:
    """Refuse an output folder that is a link to somewhere outside of the current folder.

    Raises:
        ConfigError: A folder that holds outputs is such a link.
    """
    here = Path(os.path.realpath(Path.cwd()))
    for name in _named_outs(_graph()):
        parent = _known_part(Path(name).parent)
        for folder in (*reversed(parent.parents), parent):
            target = Path(os.path.realpath(folder))
            if folder.is_symlink() and not target.is_relative_to(here):
                raise ConfigError(
                    f"{folder}: expected a folder of this workspace, got a link to {target}: DVC "
                    "keeps no outputs outside of its repository. Remove the link, which leaves "
                    "what it leads to. To keep the data on another disk, put the whole workspace "
                    "there; or DVC's cache, of which the outputs are then links: dvc config "
                    "--local cache.dir FOLDER, dvc config --local cache.type symlink"
                )


def require_free(out: Path, names: Iterable[str], inputs: Mapping[str, Path | None]) -> None:
    """Refuse an ``--out`` folder in which results would overwrite something else.

    Args:
        out: The folder given as ``--out``.
        names: Names of the files that will be written there.
        inputs: Paths that the command reads, by the option that names them.

    Raises:
        ConfigError: The folder cannot be created or written, or a result would overwrite an input,
            an output of the pipeline, or a file that ``claim`` does not know.
    """
    _require_makeable(out)
    results = [out / name for name in names]
    owned = pipeline_outputs()
    for result in results:
        found = overlapping(result, owned)
        if found is not None:
            raise ConfigError(
                f"--out {out}: expected a folder apart from what the pipeline writes, got one in "
                f"which {result.name} would lie at, above or below {found}. Name another."
            )
    for option, path in inputs.items():
        found = None if path is None else overlapping(path, results)
        if found is not None:
            raise ConfigError(
                f"--out {out}: expected a folder apart from {option} {path}, got one whose "
                f"{found.name} would lie at, above or below it. Name another."
            )
    ours = _claimed(out)
    for result in results:
        if os.path.lexists(result) and result.name not in ours:
            raise ConfigError(
                f"--out {out}: expected a folder without other files of the same names, got "
                f"{result.name}, which was not written there as a result. Name another, or move "
                "that file away."
            )


def claim(out: Path, names: Iterable[str]) -> None:
    """Make an ``--out`` folder, and keep in it that these files are results: ours to replace."""
    durable.make_folder(out)
    files.write_json(out / RESULTS, {"results": sorted(_claimed(out) | set(names))})


def drop_former(out: Path, names: Iterable[str], inside: re.Pattern[str]) -> None:
    """Remove results of former calls that would be taken for new ones, and no longer claim them.

    What ``claim`` does not know stays.

    Args:
        out: The ``--out`` folder.
        names: Of files and folders in it.
        inside: Names of the files that may go from one of these folders; others stay.
    """
    former = _claimed(out) & set(names)
    for path in (out / name for name in former):
        if path.is_dir() and not path.is_symlink():
            for file in path.iterdir():
                if inside.fullmatch(file.name):
                    file.unlink()
            if not any(path.iterdir()):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    if former:
        files.write_json(out / RESULTS, {"results": sorted(_claimed(out) - former)})


def require_free_files(written: Mapping[str, Path]) -> None:
    """Refuse to replace files that ``claim_files`` does not know.

    Args:
        written: Files that a command will write, by the option that names each.

    Raises:
        ConfigError: One is there already, and is not ours.
    """
    for option, path in written.items():
        if os.path.lexists(path) and path.name not in _claimed(path.parent):
            raise ConfigError(
                f"{option} {path}: expected no such file, or one that gdc wrote, got another. Name "
                "another file, or move that one away."
            )


def claim_files(*paths: Path) -> None:
    """Make the folders of some files, and keep there that they are ours to replace.

    Raises:
        DataError: One cannot be made; then none is ours.
    """
    for path in paths:
        durable.require_place(path)
    for path in paths:
        claim(path.parent, [path.name])


def _claimed(out: Path) -> set[str]:
    path = out / RESULTS
    return set(files.read_json(path)["results"]) if os.path.lexists(path) else set()


def _require_makeable(out: Path) -> None:
    place = out.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        found = "a file" if place == out.absolute() else f"the file {place} on its way"
        raise ConfigError(f"--out {out}: expected a folder, got {found}. Name another.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {out}: expected a folder that can be written, got {place}, which this user may "
            "not write. Name another."
        )
    try:
        # Some file systems refuse what their rights allow.
        Path(tempfile.mkdtemp(prefix=".gdc-", dir=place)).rmdir()
    except OSError as error:
        raise ConfigError(
            f"--out {out}: expected a folder that can be written, got {place}: {error.strerror}. "
            "Name another."
        ) from None


def foreign_files(graph: JsonObject) -> Iterator[Path]:
    """Yield files at the outputs of a graph that dvc.lock does not list, hidden files apart."""
    known = {Path(out["path"]) for out in locked_outs()}
    for out in graph_outputs(graph):
        for path in [out, *sorted(out.rglob("*"))] if out.is_dir() else [out]:
            is_foreign = path.is_symlink() or path.is_file()
            if is_foreign and not path.name.startswith(".") and not known & {path, *path.parents}:
                yield path


def locked_outs() -> Iterator[JsonObject]:
    """What dvc.lock lists of each output, ``path`` and ``md5`` among it; nothing without one."""
    if LOCK.exists():
        stages = files.parse_yaml(files.read_text(LOCK), LOCK).get("stages") or {}
        for stage in stages.values():
            yield from stage.get("outs") or ()


def _require_outside(path: Path, where: str) -> None:
    owned = pipeline_outputs()
    found = overlapping(path, owned)
    leading = path
    if found is None:
        for link in links_below(path):
            leading, found = link, overlapping(link, owned)
            if found is not None:
                break
    if found is not None:
        by_link = "" if leading == path else f" with the link {leading}"
        raise ConfigError(
            f"{where}: expected a path apart from what the pipeline writes, got {str(path)!r}"
            f"{by_link}, at, above or below {found}, which is deleted and written anew. "
            "Copy it out of there, and name the copy."
        )


def _graph() -> JsonObject:
    return files.parse_yaml(files.read_text(GRAPH), GRAPH)


def _named_outs(graph: JsonObject) -> Iterator[str]:
    """Output paths as written in the file, with the templates of a matrix."""
    for stage in (graph.get("stages") or {}).values():
        definition = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            for out in definition.get(kind) or ():
                # An output with options is a mapping with one key.
                name = out if isinstance(out, str) else next(iter(out))
                yield str(Path(definition.get("wdir", ""), name))


def _known_part(path: Path) -> Path:
    """Return the path up to, and without, its first part that contains a template."""
    known = Path()
    for part in path.parts:
        if _TEMPLATE in part:
            break
        known /= part
    return known
