"""A certificate -> what differs: its signature, the files it names, the results they give."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gdc.commands import audit_certificate, certificate, recorded_audit
from gdc.commands.certificate import Certificate
from gdc.corpus import sources
from gdc.errors import ConfigError, DataError, GdcError
from gdc.report import build
from gdc.report.model import AuditReport, Report, to_json
from gdc.stages import report as report_stage
from gdc.workspace import files, paths, signatures

# The same sums in another order, or on another processor.
_TOLERANCE: Final = 1e-9


def require_results(made: Certificate) -> None:
    """Refuse to certify a report that does not follow from its tables.

    Raises:
        DataError: It does not, or a file is damaged or missing.
    """
    found = list(_different_results(made))
    if found:
        raise DataError(
            f"{made.folder}: expected a report that follows from the tables, got {len(found)} "
            f"differences, first: {found[0]}. "
            f"Make it again: {'gdc run' if made.kind == 'run' else 'gdc audit'}."
        )


def verify(path: Path, signer: Path | None = None) -> tuple[list[str], list[str]]:
    """Compare a certificate with the files it names, and its results with what these give.

    Args:
        path: The certificate. Its relative paths count from the current folder.
        signer: The public key that has to have signed it; None: a signature is checked if there
            is one, by whatever key.

    Returns:
        What differs, and notes that are no difference; a sentence each.

    Raises:
        ConfigError: The public key or ssh-keygen is missing.
        DataError: It is no certificate.
        SchemaError: There is none.
    """
    made = certificate.read(path)
    different, notes = _check_signature(path, signer)
    different += [*different_files(made), *_different_digests(made)]
    more, more_notes = _check_source(made)
    different += [*more, *_different_results(made)]
    notes += more_notes
    now = certificate.made_with()
    notes += [
        f"made with {name} {was}, checked with {now.get(name, 'none')}"
        for name, was in made.made_with.items()
        if now.get(name) != was
    ]
    return different, notes


def _check_signature(path: Path, signer: Path | None) -> tuple[list[str], list[str]]:
    if signer is None and not signatures.signature_path(path).exists():
        return [], ["not signed"]
    try:
        said = signatures.check(path, signer)
    except ConfigError:
        raise
    except GdcError as error:
        return [str(error)], []
    whose = "" if signer else " Whose key that is was not checked: --signer KEY.pub"
    return [], [f"{said}.{whose}"]


def different_files(made: Certificate) -> Iterator[str]:
    """Files that are missing or have another content than the certified one, a sentence each."""
    for role, named in made.files.items():
        for name, known in named.items():
            try:
                found = certificate.hash_file(Path(name))
            except (OSError, GdcError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                yield f"{role}: {name}: expected the certified file, got: {reason}"
                continue
            if found != known:
                yield f"{role}: {name}: expected SHA-256 {known}, got {found}"


def _different_digests(made: Certificate) -> Iterator[str]:
    if made.kind != "audit":
        return
    try:
        request, _ = recorded_audit.request_of(Path(made.folder))
        now = audit_certificate.digests(request)
    except GdcError as error:
        yield f"sources: {error}"
        return
    yield from _differences(made.digests, now, "digests")


def _check_source(made: Certificate) -> tuple[list[str], list[str]]:
    """Compare the source of a run with what the certified manifest says of it, if it is here."""
    if made.kind != "run":
        return [], []
    try:
        source = files.load_params().ingest.source
        path: str | None = getattr(source, "path", None)
        if path is None:
            return [], ["source: not checked, only files are"]
        if not Path(path).exists():
            return [], [f"source: {path}: not checked, it is not here"]
        found, seen = sources.fingerprint(source), files.read_json(paths.MANIFEST)
    except GdcError as error:
        return [f"source: {error}"], []
    seen.pop("unread", None)
    if found == seen:
        return [], []
    return [f"source: {path}: expected the content that {paths.MANIFEST} has seen, got other"], []


def _different_results(made: Certificate) -> Iterator[str]:
    """Results that are not those of the report, and a report that its tables do not give."""
    is_run = made.kind == "run"
    path = paths.REPORT if is_run else Path(made.folder) / paths.REPORT.name
    names: tuple[str, ...] = certificate.RUN_RESULTS if is_run else audit_certificate.RESULTS
    try:
        again: Report | AuditReport
        if is_run:
            again = _report_again()
        else:
            measured = recorded_audit.measure_again(Path(made.folder))
            yield from recorded_audit.different_tables(Path(made.folder), measured)
            again = measured.report
        stored = files.read_json(path)
    except GdcError as error:
        yield f"results: {error}"
        return
    content = json.loads(json.dumps(to_json(again)))
    results = {name: content.get(name) for name in names}
    if made.made_with.get("code") != certificate.made_with()["code"]:
        content, results = _certified_keys(stored, content), _certified_keys(made.results, results)
    yield from _differences(stored, content, f"{path}, made again from the tables")
    yield from _differences(made.results, results, "results of the certificate")


def _certified_keys(certified: object, found: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """What was found, without keys that an older gdc did not know: nobody certified them."""
    if isinstance(certified, dict) and isinstance(found, dict):
        known = found.keys() & certified.keys()
        return {key: _certified_keys(certified[key], found[key]) for key in known}
    if isinstance(certified, list) and isinstance(found, list) and len(certified) == len(found):
        return [_certified_keys(*pair) for pair in zip(certified, found, strict=True)]
    return found


def _report_again() -> Report:
    params = files.load_params()
    tables = report_stage.with_audits(report_stage.read_tables(params), params)
    return build.build_report(tables, params)


def _differences(certified: object, found: object, name: str) -> Iterator[str]:
    """Where two values of JSON differ; numbers by more than rounding."""
    if isinstance(certified, dict) and isinstance(found, dict):
        for key in sorted({*certified, *found}):
            yield from _differences(certified.get(key), found.get(key), f"{name}: {key}")
    elif isinstance(certified, list) and isinstance(found, list) and len(certified) == len(found):
        for i, (one, other) in enumerate(zip(certified, found, strict=True)):
            yield from _differences(one, other, f"{name}[{i}]")
    elif not _is_equal(certified, found):
        yield f"{name}: expected {_shown(certified)}, got {_shown(found)}"


def _is_equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
