"""A flow run -> its parent MLflow run: the code, the data, the stages that ran, the results."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from ruamel.yaml import YAML

from gdc.report.headline import arm_numbers, note
from gdc.report.model import Report, read_report
from gdc.report.verdict import verdict
from gdc.workspace import files, paths, tables, tracking
from tasks.stages import StageResult

LOCK: Final = Path("dvc.lock")


@dataclass(frozen=True)
class Record:
    """The open parent run, and the results of the stages that the flow has run so far."""

    run: tracking.Run
    results: list[StageResult] = field(default_factory=list)

    def log_state(self) -> None:
        """Log the stages that ran and the state of the workspace, also after a failure."""
        rows = [stage_row(result) for result in self.results]
        self.run.log_table("stages", StageRow._fields, rows)
        self.run.set_tags(code_tags() | data_tags() | origin_tags(rows))
        for path in (LOCK, paths.PARAMS):
            if path.exists():
                self.run.log_artifact(path)

    def log_report(self) -> None:
        """Log the report of a finished run; before its end the files are an earlier run's."""
        report = read_report()
        self.run.log_artifact(paths.REPORT.parent)
        self.run.log_params(files.load_params().model_dump(mode="json"))
        self.run.log_metrics(headline(report))
        told = {"mlflow.note.content": run_note(report), "mlflow.source.name": "gdc run"}
        self.run.set_tags(verdict_tags(report) | told)
        proof = "curated" if report.choice.is_shown else "curated-unproven"
        self.run.log_dataset("corpus", tables.TABLES["corpus"][0], "corpus")
        self.run.log_dataset(proof, tables.TABLES["curated/train"][0], "curated")
        self._log_arms(report)

    def _log_arms(self, report: Report) -> None:
        """A run for each arm, so that MLflow compares them within a run and between runs."""
        arms = files.load_params().intervene.arms
        for arm, numbers in arm_numbers(report).items():
            with self.run.child(f"arm/{arm}", {"gdc.arm": arm}) as run:
                run.log_params({"arm": arm, **arms[arm].model_dump(mode="json")})
                run.log_metrics(numbers)
                run.log_dataset(f"plan/{arm}", paths.plan_path(arm), "plan")


@contextmanager
def recorded_run() -> Iterator[Record]:
    """Open the parent run of a flow run; the runs of its stages become its children."""
    paths.UNRECORDED.parent.mkdir(exist_ok=True)
    paths.UNRECORDED.touch()
    with tracking.parent_run("curate", {"launcher": "prefect"}) as run:
        record = Record(run)
        try:
            yield record
            record.log_report()
        except BaseException:
            with tracking.second_failure("record what the run has done so far"):
                record.log_state()
            raise
        record.log_state()
    paths.UNRECORDED.unlink(missing_ok=True)


class StageRow(NamedTuple):
    """A row of the stage table; ``run_id`` is the run that wrote the present files."""

    stage: str
    outcome: str
    seconds: float
    run_id: str | None


def stage_row(result: StageResult) -> StageRow:
    """Return the row of a result."""
    phase, _, cell = result.target.partition("@")
    lineage = paths.lineage_path(phase, cell or None)
    known = result.outcome not in ("failed", "not run") and lineage.exists()
    return StageRow(
        stage=result.target.replace("@", "/"),
        outcome=result.outcome,
        seconds=round(result.seconds, 1),
        run_id=tracking.read_lineage(lineage).run_id if known else None,
    )


def origin_tags(rows: Sequence[StageRow]) -> dict[str, str]:
    """Return, for each skipped or restored stage, the earlier run that wrote its files."""
    return {
        f"gdc.origin.{row.stage}": row.run_id
        for row in rows
        if row.outcome in ("skipped", "restored") and row.run_id
    }


def code_tags() -> dict[str, str]:
    """Return the commit of the workspace, and whether tracked files differ from it."""
    commit = git("rev-parse", "--verify", "HEAD")
    if commit is None:
        return {"gdc.git.commit": "none"}
    dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
    return {"gdc.git.commit": commit, "gdc.git.dirty": str(dirty).lower()}


def data_tags() -> dict[str, str]:
    """Return digests of the source's content and of every stage's inputs and outputs."""
    tags = {}
    if paths.MANIFEST.exists():
        tags["gdc.manifest.digest"] = str(files.read_json(paths.MANIFEST).get("digest", ""))
    if LOCK.exists():
        tags["gdc.dvc_lock.sha256"] = lock_digest(LOCK.read_text(encoding="utf-8"))
    return tags


def lock_digest(text: str) -> str:
    """Return the sha256 of a dvc.lock that ignores the order of its stages."""
    canonical = json.dumps(YAML(typ="safe").load(text), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def headline(report: Report) -> dict[str, float]:
    """Return the numbers that decide: those of the curated arm, and two of every arm."""
    numbers = arm_numbers(report)
    curated = numbers.get(report.choice.arm, {})
    means = {f"curated/{name}": value for name, value in curated.items()}
    for arm, of_arm in numbers.items():
        two = ("perplexity", "extraction")
        means |= {f"{arm}/{name}": of_arm[name] for name in two if name in of_arm}
    return {**means, "num_memorized_texts": report.memorized.num_texts}


def run_note(report: Report) -> str:
    """Return what stands at the top of the run's page: the verdict, and where to read on."""
    links = {
        "report": str(paths.PAGE.resolve()),
        "all texts": str(paths.SAMPLES.resolve()),
        "curated data": str(paths.CURATED_FOLDER.resolve()),
        "pages": "gdc ui",
    }
    return note(report, links)


def verdict_tags(report: Report) -> dict[str, str]:
    """What the run found and whether its curated data are proven."""
    said = verdict(report)
    return {
        "gdc.axis": said.axis,
        "gdc.curated.arm": said.arm,
        "gdc.curated.proof": "shown" if said.is_shown else "unproven",
        **{f"gdc.verdict.{heading.strip('?').lower()}": text for heading, text in said.lines},
    }


def git(*arguments: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Run git in the workspace; return its output, or None if it fails or is not installed."""
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run(  # noqa: S603  # arguments are ours, never a shell
        [program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None
