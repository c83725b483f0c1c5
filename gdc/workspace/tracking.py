"""Stage -> MLflow run, in the store that ``mlflow_store`` opens.

Runs are written through ``MlflowClient`` with explicit ids: no global active run, so the threads
of a flow never share one, and ``MLFLOW_RUN_ID`` of an outer program has no effect.
"""

import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import polars as pl

from gdc.environment import PARENT_VARIABLE
from gdc.errors import without_secrets
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.table_files import scan_parquet
from gdc.statistics import markdown
from gdc.workspace.files import read_as, write_json
from gdc.workspace.mlflow_store import answering, experiment_of, open_client
from gdc.workspace.paths import lineage_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

WORKSPACE_TAG: Final = "gdc.workspace"

Entry = TypeVar("Entry")

_log = logging.getLogger(__name__)


class Run:
    """An open MLflow run."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Log numbers; a metric that is None has no value and is left out."""
        points = [(name, step or 0, value) for name, value in metrics.items() if value is not None]
        self._log_points(points)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run; long values are cut at MLflow's limit."""
        from mlflow.entities import RunTag
        from mlflow.utils.validation import MAX_PARAMS_TAGS_PER_BATCH, MAX_TAG_VAL_LENGTH

        entries = [
            RunTag(key, without_secrets(value)[:MAX_TAG_VAL_LENGTH]) for key, value in tags.items()
        ]
        for batch in _batches(entries, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, tags=batch)

    def log_artifact(self, path: Path) -> None:
        """Store a file, or a folder under its own name."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
        else:
            self._client.log_artifact(self.run_id, str(path))

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]
    ) -> None:
        """Store rows as ``<name>.json`` and, to be read, ``<name>.md``."""
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        self._client.log_text(self.run_id, json.dumps(records, indent=2) + "\n", f"{name}.json")
        cells = [[str(cell) for cell in row] for row in rows]
        text = markdown.table(columns, cells) if rows else ""
        self._client.log_text(self.run_id, text, f"{name}.md")

    def log_params(self, params: JsonObject) -> None:
        """Log nested params under dotted names; long values are cut at MLflow's limit."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

        entries = [
            Param(name, value[:MAX_PARAM_VAL_LENGTH]) for name, value in flatten(params).items()
        ]
        for batch in _batches(entries, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, params=batch)

    def log_dataset(self, name: str, path: Path, context: str) -> None:
        """Record that this run read or wrote the table in the Parquet file ``path``."""
        from mlflow.data.dataset_source_registry import get_registered_sources
        from mlflow.data.polars_dataset import from_polars
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        # MLflow registers the local source twice and warns when it has to choose by itself.
        sources = get_registered_sources()
        local = next(source for source in sources if source._get_source_type() == "local")
        source = local.from_dict({"uri": str(path)})
        table = scan_parquet(path)
        columns, num_rows = table.collect_schema(), table.select(pl.len()).collect().item()
        # Of the columns alone: a table need not fit into memory, and its number of rows is known.
        empty = from_polars(
            pl.DataFrame(schema=columns), source, name=name, digest=md5[:MAX_DATASET_DIGEST_SIZE]
        )
        profile = {"num_rows": num_rows, "num_elements": num_rows * len(columns)}
        # Fields of MLflow's data set.
        known: dict[str, Any] = {**empty.to_dict(), "profile": json.dumps(profile)}
        dataset = Dataset(**known)
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
        _write_shared(lambda: self._client.log_inputs(self.run_id, datasets=inputs))

    @contextmanager
    def child(self, name: str, tags: Mapping[str, str]) -> Iterator["Run"]:
        """Record a run below this one."""
        parent = {"mlflow.parentRunId": self.run_id}
        with _opened(name, {**tags, **parent}) as (client, run_id, _):
            yield Run(client, run_id)

    def _log_points(self, points: Sequence[tuple[str, int, float]]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.validation import MAX_METRICS_PER_BATCH

        now = int(time.time() * 1000)
        entries = [Metric(name, float(value), now, step) for name, step, value in points]
        for batch in _batches(entries, MAX_METRICS_PER_BATCH):
            self._client.log_batch(self.run_id, metrics=batch)


@dataclass(frozen=True)
class Lineage:
    """The run that wrote the present files of a stage, as its ``lineage/`` file says.

    ``cell`` is the item of a matrix; ``model_id`` names the model that was logged. None: there is
    no such.
    """

    stage: str
    cell: str | None
    run_id: str
    model_id: str | None


class StageRun(Run):
    """The run of one executed stage."""

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str) -> None:
        super().__init__(client, run_id)
        self._experiment_id = experiment_id
        self.model_id: str | None = None
        self._num_points: dict[str, int] = {}

    def log_curve(self, name: str, points: Sequence[tuple[int, float]]) -> None:
        """Log (step, value) points as one metric; of a curve that grew, what is new."""
        known = self._num_points.get(name, 0)
        self._log_points([(name, step, value) for step, value in points[known:]])
        self._num_points[name] = len(points)

    def log_model(self, folder: Path, metrics: Mapping[str, float] | None = None) -> None:
        """Store a ``save_pretrained`` folder as this run's model, with metrics of its own."""
        from mlflow.entities import LoggedModelOutput

        model = self._client.create_logged_model(
            self._experiment_id, name=folder.name, source_run_id=self.run_id
        )
        self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(self.run_id, models=[LoggedModelOutput(model.model_id, step=0)])
        for name, value in (metrics or {}).items():
            self._client.log_metric(self.run_id, name, value, model_id=model.model_id)
        self.model_id = model.model_id

    def use_model(self, lineage: Path) -> None:
        """Record as input the model that another stage's lineage file names."""
        from mlflow.entities import LoggedModelInput

        model_id = read_lineage(lineage).model_id
        if model_id is not None and self._has_model(model_id):
            self._client.log_inputs(self.run_id, models=[LoggedModelInput(model_id)])
        else:
            # The lineage came out of DVC's cache, from a run that another MLflow store recorded.
            self.set_tags({"gdc.model": "unknown here"})

    def _has_model(self, model_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_logged_model(model_id)
        except MlflowException:
            return False
        return True


@contextmanager
def stage_run(stage: str, params: JsonObject, cell: str | None = None) -> Iterator[StageRun]:
    """Record one execution of a stage and write its ``lineage/`` file when it succeeds.

    Args:
        stage: The stage's name.
        params: The sections of params.yaml that the stage reads, nested as they stand there.
        cell: The matrix item, such as ``none-1``.
    """
    name = stage if cell is None else f"{stage}/{cell}"
    parent = os.environ.get(PARENT_VARIABLE)
    tags = {"gdc.stage": stage, "launcher": "prefect" if parent else "dvc"}
    if parent:
        tags["mlflow.parentRunId"] = parent
    with _opened(name, tags) as (client, run_id, experiment_id):
        run = StageRun(client, run_id, experiment_id)
        run.log_params(params)
        yield run
        lineage = Lineage(stage, cell, run_id, run.model_id)
        write_json(lineage_path(stage, cell), asdict(lineage))


def read_lineage(path: Path) -> Lineage:
    """Read what ``stage_run`` wrote.

    Raises:
        SchemaError: There is no such file.
        DataError: It holds something else.
    """
    return read_as(Lineage, path)


@contextmanager
def parent_run(name: str, tags: Mapping[str, str]) -> Iterator[Run]:
    """Record one run of the whole pipeline; stages started meanwhile become its children."""
    with _opened(name, {**tags, WORKSPACE_TAG: workspace()}) as (client, run_id, experiment_id):
        _end_killed_parents(client, experiment_id, but=run_id)
        try:
            yield Run(client, run_id)
        except BaseException:
            with second_failure("end the runs of stages in MLflow"):
                _end_killed_children(client, experiment_id, run_id)
            raise
        _end_killed_children(client, experiment_id, run_id)


@contextmanager
def second_failure(doing: str) -> Iterator[None]:
    """While an error is under way: another one is logged, and does not take its place."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the first one is the cause
        _log.warning("could not %s: %s", doing, error)


def seconds_of(lineages: Sequence[Path]) -> list[float | None]:
    """How long each run took that a lineage file names; None where this store does not know it."""
    if not lineages:
        return []
    with answering():
        client = open_client()
        return [_seconds_of(lineage, client) for lineage in lineages]


def _seconds_of(lineage: Path, client: "MlflowClient") -> float | None:
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(read_lineage(lineage).run_id).info
    except MlflowException:
        return None  # the lineage came out of DVC's cache, from another store
    # Not below 0 where the clock was set back meanwhile.
    return None if info.end_time is None else max(0.0, info.end_time - info.start_time) / 1000


class VersionNote(NamedTuple):
    """What a version of a registered model says of itself: its tag ``gdc.gate``, and its text."""

    gate: str
    description: str


def register(model_id: str, name: str, alias: str | None, note: VersionNote) -> str:
    """Make a logged model a version of the registered model ``name``, once; return the version.

    Args:
        model_id: Of the logged model.
        name: Of the registered model.
        alias: Is pointed at the version; None: no alias moves.
        note: Replaces what the version said.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    with answering():
        client = open_client()
        model = client.get_logged_model(model_id)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        versions = client.search_model_versions(f"name = '{name}'")
        # A version that is read back does not know its model_id.
        known = [entry.version for entry in versions if entry.source == model.artifact_location]
        version = str(known[0] if known else _new_version(client, name, model))
        client.update_model_version(name, version, description=note.description)
        client.set_model_version_tag(name, version, "gdc.gate", note.gate)
        if alias is not None:
            _write_shared(lambda: client.set_registered_model_alias(name, alias, version))
    return version


def workspace() -> str:
    """The current folder, as a tag of runs: of all machines that one server may serve."""
    return f"{socket.gethostname()}:{Path.cwd()}"


def flatten(params: JsonObject, prefix: str = "") -> dict[str, str]:
    """Nested params -> dotted names and values as text."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        flat |= (
            flatten(value, f"{name}.")
            if isinstance(value, dict)
            else {name: without_secrets(str(value))}
        )
    return flat


@contextmanager
def _opened(name: str, tags: Mapping[str, str]) -> Iterator[tuple["MlflowClient", str, str]]:
    with answering():
        client = open_client()
        experiment_id = experiment_of(client)
        run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
        try:
            yield client, run.info.run_id, experiment_id
        except BaseException:
            with second_failure("end the run in MLflow"):
                client.set_terminated(run.info.run_id, "FAILED")
            raise
        client.set_terminated(run.info.run_id, "FINISHED")


def _end_killed_children(client: "MlflowClient", experiment_id: str, parent: str) -> None:
    """A stage that was killed could not end its run."""
    children = client.search_runs(
        [experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'",
    )
    for child in children:
        client.set_terminated(child.info.run_id, "KILLED")


def _end_killed_parents(client: "MlflowClient", experiment_id: str, but: str) -> None:
    """A flow that was killed could not end its run, nor those of its stages.

    Whoever opens a run of the whole pipeline is alone in the workspace.
    """
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        if run.info.run_id != but and run.data.tags.get(WORKSPACE_TAG) == workspace():
            _end_killed_children(client, experiment_id, run.info.run_id)
            client.set_terminated(run.info.run_id, "KILLED")


def _new_version(client: "MlflowClient", name: str, model: "LoggedModel") -> str:
    version = client.create_model_version(
        name, model.artifact_location, run_id=model.source_run_id, model_id=model.model_id
    )
    return str(version.version)


def _write_shared(write: Callable[[], object]) -> None:
    """Write a row that other runs write too, of a data set or an alias.

    MLflow looks for the row and inserts it where it is missing. Where another process inserts it in
    between, the database refuses the second one, and MLflow undoes the whole write. Done again, it
    finds the row.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode

    try:
        write()
    except MlflowException as error:
        # So a refusal of the database is called, also by a server.
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        write()


def _batches(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
