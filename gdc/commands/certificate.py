"""A finished run -> a certificate: hashes of its files, its results, how to repeat it."""

import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

import gdc
from gdc.errors import ConfigError, GdcError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import require_file
from gdc.workspace import files, outputs, paths

RUN: Final = Path("reports/certificate.json")
NAME: Final = "certificate.json"
_PACKAGE: Final = Path(gdc.__file__).resolve().parent
# Whose versions decide on the numbers.
_PACKAGES: Final[tuple[str, ...]] = (
    "numpy", "polars", "pyarrow", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
# Files of a run by what they are, the first that fits; all others are evidence.
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "params": ("params.yaml",),
    "lock": ("dvc.lock", "dvc.yaml", "requirements.lock"),
    "code": ("data/code.json",),
    "source": ("data/manifest.json", "data/pretrained.json"),
    "corpus": (
        "data/corpus.parquet",
        "data/corpus.json",
        "data/keys.parquet",
        "data/quarantine.parquet",
    ),
    "canaries": ("data/canaries.parquet",),
    "model": ("data/models", "data/tracked", "data/tokenizer"),
    "curated": ("data/curated", "data/choice.json"),
    "report": ("reports",),
}
EVIDENCE: Final = "evidence"
# Which MLflow run made a file is no result.
_LINEAGE: Final = Path("lineage")
RUN_RESULTS: Final = (
    "baseline", "queried", "quadrants", "choice", "curated", "arms", "arm_audits", "attacks",
    "num_leaked", "recommendation",
)  # fmt: skip


class Certificate(BaseModel):
    """What a certificate says.

    Attributes:
        schema_version: Of this model.
        kind: Of a run of the pipeline, or of ``gdc audit``.
        folder: The certified folder: that of the audit, or ``.``.
        made_with: Versions of gdc, Python and what computes, and a hash of gdc's code.
        commit: Of the workspace; None outside of git.
        files: Path to SHA-256, by what the files are. Paths count from the folder in which
            ``gdc certify`` ran; a name of the Hub stands as ``hub:NAME@COMMIT``.
        digests: Hash of the content of each source of an audit, whatever its kind.
        results: Numbers of the report, with their intervals.
        repeat: Commands that make all of it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: Literal["run", "audit"]
    folder: str
    made_with: dict[str, str]
    commit: str | None
    files: dict[str, dict[str, str]]
    digests: dict[str, str]
    results: JsonObject
    repeat: list[str]


def write(certificate: Certificate, path: Path) -> None:
    """Write a certificate; equal ones are equal bytes."""
    files.write_json(path, certificate.model_dump(mode="json"))


def read(path: Path) -> Certificate:
    """Read a certificate.

    Raises:
        DataError: It is damaged or something else.
        SchemaError: There is none.
    """
    try:
        return files.parse_json(Certificate, files.read_json(path), path)
    except GdcError as error:
        said = str(error).replace("what gdc run writes there", "what gdc certify writes there")
        raise type(error)(said.replace("gdc run.", "gdc certify.")) from None


def certificate_of_run() -> Certificate:
    """What the last run in the current folder used, made and found.

    Raises:
        ConfigError: No run has finished here.
        DataError: The report is damaged.
    """
    _require_run()
    report = files.read_json(paths.REPORT)
    written = outputs.graph_outputs(files.parse_yaml(files.read_text(outputs.GRAPH), outputs.GRAPH))
    outs = [path for path in written if path != _LINEAGE and _LINEAGE not in path.parents]
    everything = [paths.PARAMS, outputs.LOCK, outputs.GRAPH, Path("requirements.lock"), *outs]
    by_role: dict[str, list[Path]] = {}
    for path in _files_at(everything):
        by_role.setdefault(_role(path), []).append(path)
    commit = head_commit()
    checkout = [] if commit is None else [f"git checkout {commit}"]
    return Certificate(
        kind="run",
        folder=".",
        made_with=made_with(),
        commit=commit,
        files={role: hash_files(named) for role, named in by_role.items()},
        digests={},
        results={name: report.get(name) for name in RUN_RESULTS},
        repeat=[*checkout, "gdc run", f"gdc verify {RUN}"],
    )


def _require_run() -> None:
    needed = (paths.PARAMS, outputs.GRAPH, outputs.LOCK, paths.REPORT)
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise ConfigError(
            f"{Path.cwd()}: expected a folder in which a run has finished, got one without "
            f"{', '.join(missing)}. Go to that folder; or name that of an audit: "
            "gdc certify reports/audit"
        )


def _files_at(named: Iterable[Path]) -> list[Path]:
    """The regular files at or below paths, without what a kill may have left."""
    found = (
        file
        for path in named
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    )
    return sorted(set(found))


def _role(path: Path) -> str:
    return next(
        (
            role
            for role, places in _ROLES.items()
            if any(path == Path(place) or Path(place) in path.parents for place in places)
        ),
        EVIDENCE,
    )


def hash_files(named: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, by path."""
    return {str(path): hash_file(path) for path in sorted(named)}


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    require_file(path)
    with path.open("rb") as file:
        return file_digest(file, sha256).hexdigest()


def made_with() -> dict[str, str]:
    """Versions of what computes here, and a hash of the code of gdc."""
    code = sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        code.update(f"{path.relative_to(_PACKAGE)} {hash_file(path)}\n".encode())
    return {
        "gdc": gdc.__version__,
        "code": code.hexdigest(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def head_commit() -> str | None:
    """The commit of the current folder; None outside of git."""
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run(  # noqa: S603 - no shell, arguments are ours
        [program, "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
