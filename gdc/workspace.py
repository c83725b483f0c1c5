"""The folder that a run works in: its params.yaml, its graph, its source of text."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gdc.environment import child_environment
from gdc.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gdc.config import Params, Source

GRAPH: Final = Path("dvc.yaml")
IGNORED: Final = (
    "/data/", "/lineage/", "/metrics/", "/reports/", "work/", "/mlflow.db*", "/.mlflow.db*",
    "/mlartifacts/",
)  # fmt: skip
_SOURCE: Final = "--source"
# As `store` names them.
TEMPORARIES: Final = ".*.tmp"


def require_workspace() -> None:
    """Raise ``ConfigError`` unless params.yaml and dvc.yaml are here."""
    from gdc import store

    for path in (store.PARAMS, GRAPH):
        if not path.exists():
            raise ConfigError(f"{path}: not found in {Path.cwd()}. Write it: gdc init docs")


def edited_stages() -> set[str]:
    """Stages whose code here is not that which ``manifest`` has seen; all where it never ran."""
    from gdc import store
    from gdc.code_digests import code_digests

    known = store.read_json(store.CODE) if store.CODE.exists() else {}
    # What lies in the workspace takes the place of what is installed.
    package = Path("gdc").resolve()
    digests = code_digests(package) if package.is_dir() else code_digests()
    return {stage for stage, digest in digests.items() if digest != known.get(stage)}


# ---- gdc run --source


def describe_source(source: str, text_field: str, option: str = _SOURCE) -> dict[str, Any]:
    """The value of ``ingest.source`` that reads a file or folder.

    Raises:
        DataError: Nothing is there, or nothing that can be read.
    """
    from gdc.sources import huggingface

    if source == "python-docs":
        return {"kind": "python-docs"}
    path = Path(source)
    kind = _kind_at(path, option)
    if kind == "text":
        return {"kind": kind, "path": source, "unit": "paragraph"}
    if kind == huggingface.KIND:
        more = {"name": None, "split": "train", "revision": None}
        return {"kind": kind, "path": source, **more, "text_field": text_field}
    return {"kind": kind, "path": source, "text_field": text_field, "key_field": None}


def _kind_at(path: Path, option: str) -> str:
    from gdc.sources import folders, huggingface
    from gdc.sources.endings import ENDINGS, listed_endings

    kinds = folders.kinds_at(path) if path.exists() else {}
    if len(kinds) == 1:
        return next(iter(kinds))
    if not kinds and huggingface.is_saved(path):
        return huggingface.KIND
    expected = "; ".join(f"{kind}: {listed_endings(kind)}" for kind in ENDINGS)
    # An audit reads no params.yaml.
    more = " Other sources: ingest.source in params.yaml." if option == _SOURCE else ""
    raise DataError(
        f"{option} {path}: expected a file, a folder of one kind ({expected}), a saved data set of "
        f"Hugging Face, or python-docs, got {_found_at(path, kinds)}.{more}"
    )


def _found_at(path: Path, kinds: Mapping[str, int]) -> str:
    """What is there instead of a source, and what to do."""
    from gdc.sources.endings import ending_of
    from gdc.sources.shapes import is_array

    if not path.exists():
        return "nothing there. Mend the path"
    if kinds:
        counts = " and ".join(f"{num} {kind}" for kind, num in sorted(kinds.items()))
        return f"a folder with files of several kinds: {counts}. Name a folder of one of them"
    if path.is_dir():
        return "a folder with none of them"
    if ending_of(path.name) == ".json":
        program = ".[]" if is_array(path) else "."
        return f"a .json file. Make JSON lines of it: jq -c '{program}' FILE > NEW.jsonl"
    return path.suffix or "no suffix"


def source_of(source: str, text_field: str, option: str) -> "Source":
    """The same, typed; ``option`` is what an error names."""
    from pydantic import TypeAdapter

    from gdc import config

    adapter: TypeAdapter[Source] = TypeAdapter(config.Source)
    return adapter.validate_python(describe_source(source, text_field, option))


def write_source(source: Mapping[str, Any]) -> None:
    """Put ``source`` into params.yaml; every other line stays as it is, with its comments.

    Raises:
        ConfigError: The file would not be valid with it; it is left as it was.
    """
    from gdc import store
    from gdc.config import parse_params

    text = store.read_text(store.PARAMS)
    spliced = splice_source(text, source)
    parse_params(store.parse_yaml(spliced, store.PARAMS), name=str(store.PARAMS))
    if spliced != text:
        store.write_text(store.PARAMS, spliced)


def splice_source(text: str, source: Mapping[str, Any]) -> str:
    """Replace the block ``ingest.source`` of a params.yaml; keys that stay keep their comment."""
    from ruamel.yaml import YAML

    document = YAML().load(text)
    lines = text.splitlines()
    ingest = document["ingest"]
    row, column = ingest.lc.key("source")
    after = [ingest.lc.key(key)[0] for key in ingest] + [document.lc.key(k)[0] for k in document]
    end = min((other for other in after if other > row), default=len(lines))
    # The comments above the next key are its own.
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    comments = {line.split(":")[0].strip(): line for line in lines[row + 1 : end] if " #" in line}
    block = [lines[row] if lines[row].rstrip().endswith("source:") else f"{' ' * column}source:"]
    for key, value in source.items():
        entry = f"{' ' * (column + 2)}{key}: {_scalar(value)}"
        old = comments.get(key, "")
        block.append(f"{entry:{max(old.find(' #'), 0)}}{old[old.find(' #') :]}" if old else entry)
    return "\n".join([*lines[:row], *block, *lines[end:]]) + "\n"


# ---- gdc init


def params_or_preset(name: str) -> "Params":
    """The parameters of this folder or, where there is no params.yaml, those of a preset."""
    from gdc import config, store

    if store.PARAMS.exists():
        return store.load_params()
    preset = f"{name}.yaml"
    text = (files("gdc") / "presets" / preset).read_text(encoding="utf-8")
    return config.parse_params(store.parse_yaml(text, Path(preset)), name=preset)


def preset_names() -> list[str]:
    """Names that ``gdc init`` knows."""
    folder = files("gdc") / "presets"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def make_workspace() -> None:
    """Make a folder without gdc's source a git and DVC workspace with our graph."""
    package = Path(__file__).resolve().parent
    installed = package / GRAPH
    shutil.copyfile(installed if installed.exists() else package.parent / GRAPH, GRAPH)
    if not Path(".gitignore").exists():
        Path(".gitignore").write_text("\n".join(IGNORED) + "\n", encoding="utf-8")
    _init_git_and_dvc()
    _ignore_temporaries()


def _ignore_temporaries() -> None:
    # What a kill in the middle of a write leaves must not become a part of a data folder.
    path = Path(".dvcignore")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if TEMPORARIES not in text.splitlines():
        path.write_text(f"{text.rstrip()}\n{TEMPORARIES}\n".lstrip(), encoding="utf-8")


def _init_git_and_dvc() -> None:
    program = shutil.which("git")
    options = ["--no-scm"]
    if program is not None:
        if _quiet([program, "rev-parse", "--git-dir"]) != 0:
            _quiet([program, "init"])
        options = [] if Path(".git").exists() else ["--subdir"]
    if not Path(".dvc").exists() and _quiet([sys.executable, "-m", "dvc", "init", *options]) != 0:
        raise ConfigError(f"{Path.cwd()}: `dvc init` failed. Run it by hand to see why.")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping."""
    from gdc import store

    return store.parse_yaml(store.read_text(path), path)


def _scalar(value: str | None) -> str:
    plain = value is not None and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    keyword = value is not None and value.lower() in ("null", "true", "false")
    if value is not None and plain and not keyword:
        return value
    # JSON's pairs of escapes for one character are two characters in YAML.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _quiet(command: Sequence[str]) -> int:
    environment = child_environment()
    return subprocess.run(  # noqa: S603  # no shell, arguments are ours
        command, env=environment, capture_output=True, check=False
    ).returncode
