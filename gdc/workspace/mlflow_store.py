"""The MLflow store that runs go to: a server, or a database of the current folder.

MLflow is imported when the store is opened, and its failures get words of ours.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from filelock import FileLock

from gdc.environment import QUIET, knock, split_address
from gdc.errors import ConfigError, GdcError, TransientError
from gdc.filesystem.durable import new_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE: Final = "mlflow.db"
LOOK_SECONDS: Final = 2.0
_SQLITE: Final = "sqlite:///"
# Where a server listens whose address names no port.
_PORTS: Final = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Whether MLflow knows another kind it is asked itself, which takes seconds to import.
_KNOWN: Final = {"", "file", "sqlite", *_PORTS}
_REVISION: Final = re.compile(r"(?m)^(revision|down_revision) = [\"'](\w+)[\"']")
_MOVE_AWAY: Final = (
    f"Move the file away (mv {DATABASE} {DATABASE}.old): the next run makes a new one."
)


def load_mlflow() -> None:
    """Import MLflow ahead of its use, in a thread while something else is waited for."""
    _prepare_import()
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # the slowest part


def experiment_id() -> str:
    """Id of the experiment that runs go to, made when missing."""
    with answering():
        return experiment_of(open_client())


def require_answer() -> None:
    """Look for the store, without MLflow's patience of minutes, before a run begins.

    Raises:
        TransientError: Nobody listens where the server is said to be.
        ConfigError: The database is a file of another kind, or MLflow knows no such address.
    """
    parts = split_address("MLFLOW_TRACKING_URI", tracking_uri())
    kind = parts.scheme.partition("+")[0]
    if kind not in _KNOWN:
        with answering():
            open_client()
    port = parts.port or _PORTS.get(kind)
    if parts.hostname and port:
        try:
            knock(parts, port, LOOK_SECONDS)
        except OSError as error:
            raise TransientError(
                f"MLFLOW_TRACKING_URI: expected a server at {_without_password(tracking_uri())}, "
                f"got none: {error.strerror or error}. Is it up? Without the variable, runs go "
                f"to {DATABASE}."
            ) from None
    require_database()


def require_database() -> None:
    """Refuse a file that MLflow cannot use at once; MLflow itself tries it for a minute.

    Raises:
        ConfigError: It is a file of another kind, was cut off, or has the tables of another version
            of MLflow.
    """
    if not has_database_file():
        return
    path = _database_file()
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("select count(*) from sqlite_master").fetchall()
            revision = _revision_of(database)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise ConfigError(
                f"{path}: expected a database of MLflow, got a damaged or another file: {error}. "
                f"{_MOVE_AWAY}"
            ) from None
        return
    versions = _revisions()
    # The last one is the one that no other follows.
    if revision is not None and revision not in set(versions) - set(versions.values()):
        shown = _without_password(tracking_uri())
        raise ConfigError(f"MLflow at {shown}: {_of_another_version(revision)}")


def has_database_file() -> bool:
    """Whether runs go to a file of SQLite, and it is there."""
    return tracking_uri().startswith(_SQLITE) and _database_file().is_file()


def _database_file() -> Path:
    return Path(tracking_uri().removeprefix(_SQLITE).partition("?")[0])


def _revision_of(database: sqlite3.Connection) -> str | None:
    """The version of the tables that MLflow noted; None: it has made none yet."""
    try:
        row = database.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    return None if row is None else str(row[0])


@cache
def _revisions() -> dict[str, str | None]:
    """Versions of tables that the installed MLflow knows, and the one before each.

    Its folder is found without its import, which takes seconds.
    """
    package = find_spec("mlflow")
    places = [] if package is None else package.submodule_search_locations or []
    known: dict[str, str | None] = {}
    for place in places:
        for file in Path(place, "store/db_migrations/versions").glob("*.py"):
            found = dict(_REVISION.findall(file.read_text(encoding="utf-8")))
            if "revision" in found:
                known[found["revision"]] = found.get("down_revision")
    return known


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the sqlite file of the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(Path.cwd() / DATABASE)


def experiment_name() -> str:
    """``GDC_EXPERIMENT``, or ``gdc``."""
    return os.environ.get("GDC_EXPERIMENT") or "gdc"


@contextmanager
def answering() -> Iterator[None]:
    """Word MLflow's own failures: a server that may answer later, or a store that is wrong."""
    _prepare_import()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise _worded(str(error)) from None


def _worded(problem: str) -> GdcError:
    uri = tracking_uri()
    shown = _without_password(uri)
    message = f"MLflow at {shown}: {problem.replace(uri, shown)}"
    if uri.startswith(("http://", "https://")):
        return TransientError(f"{message}. Is the server up?")
    if found := re.search(r"out-of-date database schema \(found version (\w+)", problem):
        return ConfigError(f"MLflow at {shown}: {_of_another_version(found[1])}")
    if "disk is full" in problem:
        return ConfigError(f"{message}. Make room on the disk, then run again.")
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return ConfigError(f"{message}. Check MLFLOW_TRACKING_URI.")
    return ConfigError(f"{message}. {_MOVE_AWAY}")


def _of_another_version(revision: str) -> str:
    """Where the tables of a database are not those of the MLflow that is installed."""
    installed = version("mlflow")
    if revision in _revisions():
        return (
            f"expected the tables of MLflow {installed}, got older ones. Copy the "
            "database, then bring it up to date: mlflow db upgrade "
            f"{_without_password(tracking_uri())}"
        )
    return (
        f"expected the tables of MLflow {installed} or older, got those of a newer one. "
        "Install that one, or take another database: move this one away or name another in "
        "MLFLOW_TRACKING_URI."
    )


def _prepare_import() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def open_client() -> "MlflowClient":
    """A client of the store, whose database is made where it is missing.

    Raises:
        ConfigError: The database is a file of another kind, its driver is not installed, or MLflow
            knows no such address.
    """
    _prepare_import()
    from mlflow import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException as UnknownKind

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _create_database(Path.cwd() / DATABASE)
    require_database()
    try:
        return MlflowClient(tracking_uri())
    except UnknownKind as error:
        raise ConfigError(
            "MLFLOW_TRACKING_URI: expected a folder or an address that MLflow knows "
            f"({', '.join(filter(None, error.supported_uri_schemes))}), got "
            f"{_without_password(tracking_uri())}. Mend it; without the variable, runs go to "
            f"{DATABASE}."
        ) from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: expected the driver of {urlsplit(tracking_uri()).scheme} "
            f"databases, got none: {error}. Install it: pip install 'gendatacarto[postgres]' for "
            "PostgreSQL."
        ) from None


def _create_database(path: Path) -> None:
    """Migrate a new database beside its place: a kill in a migration would leave it unusable."""
    from mlflow import MlflowClient

    if path.exists():
        return
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            with new_file(path) as temporary:
                MlflowClient(_sqlite_uri(temporary)).search_experiments()
                # Artifacts hold texts, and the database what is said of them.
                temporary.chmod(0o600)
            path.with_name("mlartifacts").mkdir(mode=0o700, exist_ok=True)


def _sqlite_uri(path: Path) -> str:
    """The address of a database at or below the current folder.

    Whether ``?`` and ``%`` of a path must be quoted depends on the version of SQLAlchemy, and
    MLflow makes the folders of a path as it is quoted: the relative one never has them.
    """
    place = path.absolute().relative_to(Path.cwd()) if {"?", "%"} & set(str(path)) else path
    return f"sqlite:///{place}"


def experiment_of(client: "MlflowClient") -> str:
    """Id of the experiment that runs go to, made where it is missing."""
    from mlflow.exceptions import MlflowException

    name = experiment_name()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            location = (Path.cwd() / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # Another process created it between the look and the write.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def _without_password(uri: str) -> str:
    # Not put together from its parts: that loses slashes of a path.
    place = urlsplit(uri).netloc
    return uri.replace(place, place.rpartition("@")[2], 1) if "@" in place else uri
