"""A finished workspace -> pushed data, a commit of dvc.lock, and the champion model."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final

from prefect import task
from prefect.cache_policies import NO_CACHE

from gdc.commands import certificate
from gdc.comparison.results import ArmAudits
from gdc.config import Params
from gdc.errors import ConfigError, TransientError
from gdc.report.model import read_report
from gdc.report.verdict import verdict
from gdc.statistics.wording import decimals, ends, points
from gdc.workspace import dvc, paths, tracking
from gdc.workspace.project import edited_stages
from gdc.workspace.signatures import KEY_VARIABLE, require_key, sign
from tasks.graph import changed_targets
from tasks.lineage import LOCK, git

MODEL_NAME: Final = "gdc-curated"
ALIAS: Final = "champion"
# A choice, not a result: a curated model may be a little worse at its task, not visibly worse.
MAX_PERPLEXITY_RATIO: Final = 1.05
# Leakage must not grow; equal is good enough, so that a corpus without leaks can pass.
MAX_EXTRACTION_DIFFERENCE: Final = 0.0
# A new file that git does not track matters only at these paths, as it can change results.
DECIDING: Final = (str(paths.PARAMS), "dvc.yaml", ".dvc", ".dvcignore", "gdc")
IDENTITY: Final[Mapping[str, str]] = {
    "GIT_AUTHOR_NAME": "gdc",
    "GIT_AUTHOR_EMAIL": "gdc@localhost",
    "GIT_COMMITTER_NAME": "gdc",
    "GIT_COMMITTER_EMAIL": "gdc@localhost",
}


def require_publishable() -> None:
    """Check before any stage runs that the workspace can be published.

    Raises:
        ConfigError: The repository has no commit, files differ from it, DVC has no default
            remote, or there is no key of that name to sign with.
    """
    if git("rev-parse", "--verify", "HEAD") is None:
        raise ConfigError(
            "publish: expected a git repository with a commit, got none. Commit once."
        )
    require_committed()
    key = _signing_key()
    if key is not None:
        require_key(key)
    done = dvc.run("config", "core.remote")
    if done.returncode != 0 or not done.stdout.strip():
        raise ConfigError(
            "publish: expected a default DVC remote, got none. "
            "Add one: dvc remote add --default storage <path or URL>."
        )


def require_committed() -> None:
    """Check that the code and params that made the data are committed, as dvc.lock will be.

    Raises:
        ConfigError: Tracked files differ from the commit, or files that change results are not
            tracked.
    """
    others = f":(exclude){LOCK}"
    edited = _git("diff", "--name-only", "--relative", "HEAD", "--", ".", others).splitlines()
    added = _git("ls-files", "--others", "--exclude-standard", "--", *DECIDING).splitlines()
    if edited or added:
        raise ConfigError(
            f"publish: expected everything but {LOCK} as committed, got changes in "
            f"{', '.join(sorted(edited + added))}. Commit or undo them, then run again; nothing "
            "was pushed."
        )


def publish(run: tracking.Run, params: Params, day: date) -> None:
    """Push the data, commit dvc.lock to ``curation/<day>`` and move the alias if the model passes.

    Raises:
        ConfigError: A stage is not up to date, its code is not committed, or other code ran.
        TransientError: The push to the remote failed.
    """
    require_committed()
    changed = changed_targets() | edited_stages()
    if changed:
        raise ConfigError(
            f"publish: expected every stage up to date, got changed {sorted(changed)}. "
            "Run the flow again; nothing was pushed."
        )
    push()
    branch = f"curation/{day.isoformat()}"
    run.set_tags({"gdc.published": f"{branch}:{commit_lock(branch, certify())}"})
    run.set_tags({"gdc.gate": decide(params)})


@task(
    name="push",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=30,
)
def push() -> None:
    done = dvc.run("push", "--run-cache")
    if done.returncode != 0:
        raise TransientError(f"dvc push: {done.stderr.strip()}")


def certify() -> list[Path]:
    """Write the certificate of the run, signed where there is a key; returns its files.

    Raises:
        ConfigError: It cannot be signed.
    """
    certificate.write(certificate.certificate_of_run(), certificate.RUN)
    key = _signing_key()
    return [certificate.RUN] if key is None else [certificate.RUN, sign(certificate.RUN, key)]


def _signing_key() -> Path | None:
    name = os.environ.get(KEY_VARIABLE)
    return Path(name).expanduser() if name else None


def commit_lock(branch: str, others: Sequence[Path] = ()) -> str:
    """Commit dvc.lock to a branch, leaving the checkout and its index as they are.

    All other files of the commit are those of HEAD, whose code made the data.

    Args:
        branch: Its name; it is made where there is none.
        others: Further files of the workspace to commit.

    Returns:
        Hash of the new commit, or of the branch's last one if that has the same content.
    """
    reference = f"refs/heads/{branch}"
    head = _git("rev-parse", "--verify", "HEAD")
    tip = git("rev-parse", "--verify", "--quiet", reference)
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", head, **index)
        prefix = _git("rev-parse", "--show-prefix")
        for path in (LOCK, *others):
            blob = _git("hash-object", "-w", "--", str(path))
            _git("update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{path}", **index)
        tree = _git("write-tree", **index)
    last = tip or head
    if tree == _git("rev-parse", f"{last}^{{tree}}"):
        commit = last
    else:
        message = f"Curate: data of {branch.rpartition('/')[2]}"
        identity = {} if git("var", "GIT_COMMITTER_IDENT") else IDENTITY
        is_merged = git("merge-base", "--is-ancestor", head, last) is not None
        parents = ["-p", last] if is_merged else ["-p", last, "-p", head]
        commit = _git("commit-tree", tree, *parents, "-m", message, **identity)
    _git("update-ref", reference, commit, tip or "0" * len(commit))
    return commit


def decide(params: Params) -> str:
    """Register the model of the curated arm, and move the alias to it if it passed; say why.

    The reason stands on the version of the model too, whether the alias moved or not.
    """
    report = read_report()
    arm = report.choice.arm
    if arm not in params.retrain.arms:
        return f"kept: arm {arm} was not retrained"
    reason = objection(arm, report.arm_audits.get(arm))
    lineage = paths.lineage_path("retrain", f"{arm}-{params.retrain.seeds[0]}")
    model_id = tracking.read_lineage(lineage).model_id
    if model_id is None:
        return f"kept: {lineage} names no model"
    gate = "passed" if reason is None else f"kept: {reason}"
    about = tracking.VersionNote(gate, f"{verdict(report).worked} Gate {gate}.")
    try:
        version = tracking.register(model_id, MODEL_NAME, ALIAS if reason is None else None, about)
    except ConfigError as error:
        return f"kept: {error}"
    return f"passed: {ALIAS} is version {version}, {model_id}" if reason is None else gate


def objection(arm: str, audits: ArmAudits | None) -> str | None:
    """Why an arm's model must not become champion, by the worse ends of its intervals, or None."""
    ratio = None if audits is None else audits.perplexity_ratio
    change = None if audits is None else audits.extraction_change
    if ratio is None or change is None:
        return f"{arm} was not compared: no arm keeps everything, or no canaries"
    if change.high > MAX_EXTRACTION_DIFFERENCE:
        return (
            f"{arm} is not shown to leak no more: extraction {points(change.value)} points "
            f"{ends(change, points)}"
        )
    if ratio.high > MAX_PERPLEXITY_RATIO:
        return (
            f"{arm} is not shown to cost at most x{MAX_PERPLEXITY_RATIO}: perplexity "
            f"x{decimals(ratio.value)} {ends(ratio, decimals)}"
        )
    return None


def _git(*arguments: str, **environment: str) -> str:
    output = git(*arguments, environment={**os.environ, **environment})
    if output is None:
        raise ConfigError(f"publish: git {arguments[0]} failed. Look at the repository's state.")
    return output
