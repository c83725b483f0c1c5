"""The folder that a run works in: its params.yaml, its graph, its source of text."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gdc.environment import child_environment
from gdc.errors import ConfigError
from gdc.filesystem.json_values import JsonObject
from gdc.workspace import dvc

if TYPE_CHECKING:
    from gdc.config import Params

GRAPH: Final = Path("dvc.yaml")  # as in `outputs`
DEPLOYMENT: Final = Path("prefect.yaml")
IGNORED: Final = (
    "/data/", "/lineage/", "/metrics/", "/reports/", "work/", "/mlflow.db*", "/.mlflow.db*",
    "/mlartifacts/",
)  # fmt: skip
# Names of files in graphs of an older version -> their names now.
_FORMER_OUTS: Final = {"data/probes.parquet": "data/canary_memorization.parquet"}
_FIRST: Final = "manifest"
# As ``files`` names what is not yet written whole.
TEMPORARIES: Final = ".*.tmp"


def require_workspace() -> None:
    """Refuse a folder that no run can work in.

    Raises:
        ConfigError: It lacks params.yaml or our dvc.yaml, DVC cannot keep its outputs here, or
            nothing has run yet and files lie where a run writes.
    """
    from gdc.workspace import outputs, paths

    for path in (paths.PARAMS, GRAPH):
        if not path.exists():
            raise ConfigError(f"{path}: not found in {Path.cwd()}. Write it: gdc init docs")
    require_our_graph()
    outputs.require_folders_here()
    # What a first stage that failed has left is no file of the user's.
    later = {name: stage for name, stage in read_yaml(GRAPH)["stages"].items() if name != _FIRST}
    _require_no_foreign_files({"stages": later})


def require_our_graph() -> None:
    """Raise ``ConfigError`` unless dvc.yaml has our stages, and no file of a former name."""
    from gdc.workspace.outputs import graph_outputs

    graph = read_yaml(GRAPH)
    found = _stages_of(graph)
    missing = [name for name in _stages_of(read_yaml(_installed(GRAPH))) if name not in found]
    if missing:
        raise ConfigError(
            f"{GRAPH}: expected the stages of gdc, got {', '.join(map(str, found)) or 'none'}, "
            f"without {', '.join(missing)}. If it is a pipeline of your own, go to another folder; "
            f"if it is one of an older gdc, move {GRAPH} away. Then: gdc init docs"
        )
    for out in graph_outputs(graph):
        if (former := out.as_posix()) in _FORMER_OUTS:
            raise ConfigError(
                f"{GRAPH}: `{former}` is called `{_FORMER_OUTS[former]}` now, so this graph is one "
                f"of an older gdc. Move {GRAPH} away. Then: gdc init docs --force, which keeps a "
                "copy of params.yaml."
            )


def load_params() -> "Params":
    """Read and validate params.yaml, and that what it names is safe from the pipeline.

    Raises:
        ConfigError: A value is wrong, or a source lies where the pipeline writes.
    """
    from gdc.workspace import files, outputs

    params = files.load_params()
    outputs.require_outside_outputs(params)
    return params


def edited_stages() -> set[str]:
    """Stages whose code here is not that which ``manifest`` has seen; all where it never ran."""
    from gdc.workspace import files, paths
    from gdc.workspace.code_digests import PACKAGE, code_digests

    known = files.read_json(paths.CODE) if paths.CODE.exists() else {}
    # What lies in the workspace takes the place of what is installed.
    package = Path("gdc").resolve()
    # None is made: a dry run asks here, and it writes nothing.
    cache = paths.CODE_CACHE if paths.CODE_CACHE.exists() else None
    digests = code_digests(package if package.is_dir() else PACKAGE, cache)
    return {stage for stage, digest in digests.items() if digest != known.get(stage)}


# ---- gdc init


def params_or_preset(name: str) -> "Params":
    """The parameters of this folder or, where there is no params.yaml, those of a preset."""
    from gdc import config
    from gdc.workspace import files, paths

    if paths.PARAMS.exists():
        return files.load_params()
    preset = f"{name}.yaml"
    text = (resources.files("gdc") / "presets" / preset).read_text(encoding="utf-8")
    return config.parse_params(files.parse_yaml(text, Path(preset)), name=preset)


def preset_names() -> list[str]:
    """Names that ``gdc init`` knows."""
    folder = resources.files("gdc") / "presets"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def init(params: str, *, force: bool) -> Path | None:
    """Write params.yaml, and make this folder a workspace if it is none; nothing else is replaced.

    Args:
        params: The content of params.yaml.
        force: Replace a params.yaml of ours, of which a copy is kept.

    Returns:
        The copy; None: there was no other params.yaml.

    Raises:
        ConfigError: Something of the user's is in the way, or git or DVC failed; nothing is left.
    """
    from gdc.workspace import files, paths

    if GRAPH.exists():
        require_our_graph()
    before = _params_before(force=force)
    _require_no_foreign_files(read_yaml(_installed(GRAPH)))
    if not GRAPH.exists():
        _make_workspace()
    if before in (None, params):
        files.write_text(paths.PARAMS, params)
        return None
    backup = _free_name(paths.PARAMS)
    paths.PARAMS.rename(backup)
    files.write_text(paths.PARAMS, params)
    return backup


def _params_before(*, force: bool) -> str | None:
    """The content of params.yaml if it may be replaced; None: there is none."""
    from gdc.config import Params
    from gdc.workspace import files, paths

    if not (paths.PARAMS.exists() or paths.PARAMS.is_symlink()):
        return None
    text = files.read_text(paths.PARAMS)
    try:
        missing = sorted(set(Params.model_fields) - set(files.parse_yaml(text, paths.PARAMS)))
    except ConfigError:
        missing = sorted(Params.model_fields)
    if missing:
        raise ConfigError(
            f"{paths.PARAMS}: expected none, or one with the sections of gdc, got one without "
            f"{', '.join(missing)}. Move it away, or go to another folder."
        )
    if not force:
        raise ConfigError(
            f"{paths.PARAMS}: exists already. Add --force to replace it; a copy is kept."
        )
    return text


def _require_no_foreign_files(graph: JsonObject) -> None:
    from gdc.workspace import outputs

    # A run that failed may leave outputs that dvc.lock does not know.
    if GRAPH.exists() and (outputs.LOCK.exists() or Path("work").exists()):
        return
    found = list(outputs.foreign_files(graph))
    if found:
        raise ConfigError(
            f"{found[0]}: expected nothing where the pipeline writes, got {len(found)} file(s) "
            f"that {outputs.LOCK} does not know, and that a run would delete. Move them away, or "
            "go to another folder."
        )


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.bak{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def _installed(name: Path) -> Path:
    """Our copy of a file of every workspace: in the package or, in a checkout, beside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / name
    return installed if installed.exists() else package.parent / name


def _stages_of(graph: JsonObject) -> list[str]:
    stages = graph.get("stages")
    return list(stages) if isinstance(stages, Mapping) else []


def _make_workspace() -> None:
    """Make a folder without gdc's source a git and DVC workspace with our graph and deployment."""
    _init_git_and_dvc()
    _add_lines(Path(".gitignore"), IGNORED)
    # What a kill in the middle of a write leaves must not become a part of a data folder.
    _add_lines(Path(".dvcignore"), [TEMPORARIES])
    if not DEPLOYMENT.exists():
        shutil.copyfile(_installed(DEPLOYMENT), DEPLOYMENT)
    shutil.copyfile(_installed(GRAPH), GRAPH)


def _add_lines(path: Path, lines: Sequence[str]) -> None:
    """Add the lines that a text lacks to its end."""
    from gdc.workspace import files

    text = files.read_text(path) if path.exists() else ""
    missing = [line for line in lines if line not in text.splitlines()]
    if missing:
        head = f"{text}\n" if text and not text.endswith("\n") else text
        files.write_text(path, head + "\n".join(missing) + "\n")


def _init_git_and_dvc() -> None:
    new = [path for path in map(Path, (".git", ".dvc", ".dvcignore")) if not path.exists()]
    try:
        _start_git_and_dvc()
    except ConfigError:
        # The next try must not meet the half of this one.
        for path in new:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        raise


def _start_git_and_dvc() -> None:
    program = shutil.which("git")
    options = ["--no-scm"]
    if program is not None:
        git_folder = [program, "rev-parse", "--git-dir"]
        if "not a git repository" in _words(git_folder):
            _require_success([program, "init"])
        _require_success(git_folder)
        options = [] if Path(".git").exists() else ["--subdir"]
    if not Path(".dvc").exists():
        _require_success(dvc.command("init", "--quiet", *options))


def read_yaml(path: Path) -> JsonObject:
    """Read a YAML mapping."""
    from gdc.workspace import files

    return files.parse_yaml(files.read_text(path), path)


def _require_success(command: Sequence[str]) -> None:
    words = _words(command)
    if words:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        raise ConfigError(f"{Path.cwd()}: `{shown}` failed: {words}")


def _words(command: Sequence[str]) -> str:
    """What a program says that fails; nothing of one that does not."""
    # English words are looked for.
    environment = {**child_environment(), "LC_ALL": "C"}
    done = subprocess.run(  # noqa: S603  # no shell, arguments are ours
        command, env=environment, capture_output=True, check=False, text=True, errors="replace"
    )
    said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    return said if done.returncode else ""
