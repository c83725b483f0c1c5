"""A PostgreSQL for a test, as the servers of a team keep their records in one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.builders import free_port
from tests.flows.programs import running, wait_for

# It refuses to run as root.
OWNER = "postgres" if os.geteuid() == 0 else None


def program(name: str) -> str | None:
    """Where a program of PostgreSQL lies, on PATH or where Debian puts it; None: nowhere."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))


@contextmanager
def databases(log: Path) -> Iterator[str | None]:
    """Host and port of a PostgreSQL with an empty database for MLflow and one for Prefect.

    None where none is installed.
    """
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        yield None
        return
    # Its owner can enter no folder of ours.
    folder = Path(tempfile.mkdtemp(prefix="gdc-postgres-"))
    if OWNER is not None:
        shutil.chown(folder, OWNER)
    data, port = folder / "data", free_port()
    options = ["--auth=trust", "--username=gdc", "--encoding=UTF8", "--no-locale", "--no-sync"]
    subprocess.run([initdb, *options, "--pgdata", data], cwd=folder, user=OWNER, check=True)
    command = [server, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    try:
        with running(command, log, os.environ, folder, user=OWNER) as process:
            wait_for(lambda: _created(port), process, log)
            yield f"127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder)


def _created(port: int) -> str | None:
    address = f"host=127.0.0.1 port={port} user=gdc"
    try:
        with psycopg.connect(f"{address} dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE mlflow")
            connection.execute("CREATE DATABASE prefect")
    except psycopg.OperationalError:
        return None
    with psycopg.connect(f"{address} dbname=prefect") as connection:
        connection.execute("CREATE EXTENSION pg_trgm")
    return "created"
