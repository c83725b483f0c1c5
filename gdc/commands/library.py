"""Plain arguments -> what the longer commands do, as functions for programs and notebooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from gdc.commands import map as mapping
from gdc.commands.own_files import tokenizer_of
from gdc.config import Params, parse_params
from gdc.filesystem.table_files import scan_parquet
from gdc.recording.trace import TraceScan
from gdc.workspace import files, project, source_option, traces


@dataclass(frozen=True)
class ModelAudit:
    """What ``audit_model`` measured.

    Attributes:
        canaries: ``AUDIT`` table, one row for each canary; losses in nats.
        samples: ``MEMBERSHIP`` table, one row for each training or held-out text.
        findings: One sentence for each kind of leak that was measured.
        warnings: What limits them, one sentence each.
        report: The page with the tables and pictures.
    """

    canaries: pl.DataFrame
    samples: pl.DataFrame
    findings: tuple[str, ...]
    warnings: tuple[str, ...]
    report: Path


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params.yaml.

    Raises:
        ConfigError: It is missing, is no YAML, or a value is wrong.
    """
    path = Path(path)
    return parse_params(files.parse_yaml(files.read_text(path), path), name=str(path))


def load_trace(folder: str | Path, mode: str | None = None) -> TraceScan:
    """Open the loss trace of a training run, whoever wrote it; its losses stay on disk.

    Args:
        folder: With ``checkpoints.parquet``, ``train/index.parquet`` and a file of losses for each
            checkpoint.
        mode: Checkpoints whose losses are wanted, ``online`` or ``probe``; None: all of them.

    Returns:
        ``samples``, a lazy table with a row for each training sample: ``sample_id``,
        ``num_tokens`` and a Float32 column ``loss_<checkpoint>`` for each checkpoint, in nats per
        token, null where the sample was not seen. ``checkpoints``, a table with a row for each
        checkpoint: its number, step, epoch and mode.

    Raises:
        SchemaError: A file is missing, or has other columns or another number of rows.
        DataError: A file is damaged.
    """
    return traces.scan(Path(folder), mode)


def map_trace(
    trace: str | Path,
    out: str | Path,
    params: Params | None = None,
    mode: str | None = None,
    scores: Sequence[str] = (),
) -> pl.LazyFrame:
    """Score the samples of a trace and place each on the data map; see ``gdc map``.

    Args:
        trace: As for ``load_trace``.
        out: Folder for ``scores.parquet``, ``scores.json`` and ``quadrants.json``. Files of these
            names that a former call wrote are replaced.
        params: Its ``score``, but for the enabled ones, and ``partition`` are used; None:
            params.yaml of the current folder, or preset docs where there is none.
        mode: Checkpoints read, ``online`` or ``probe``; None: as ``params`` says or, where the
            trace has none of these, the others.
        scores: Names of further scores that need nothing but losses, ``memorization``,
            ``first_learned`` and ``never_learned`` among them.

    Returns:
        A lazy table of what was written, in the order of the trace: ``sample_id``, ``difficulty``
        (nats per token), the score of the axis, the further scores, and ``quadrant``;
        ``memorization`` (share of checkpoint steps, in [0, 1]) comes with ``never_learned``.

    Raises:
        ConfigError: A score or the axis cannot be computed from losses alone, or ``out`` holds
            files of another origin.
        SchemaError: A file of the trace is missing, or has other columns or rows.
        DataError: A file is damaged, or holds ids or losses that cannot be.
    """
    folder = Path(out)
    request = mapping.Request(Path(trace), folder, mode=mode, scores=tuple(scores))
    rules = mapping.rules_of(request, params or project.params_or_preset("docs"))
    mapping.map_trace(request.trace, folder, *rules)
    return scan_parquet(folder / "scores.parquet")


def audit_model(  # noqa: PLR0913 - the options of `gdc audit`
    model: str | Path,
    corpus: str | Path,
    out: str | Path,
    *,
    heldout: str | Path | None = None,
    canaries: str | Path | None = None,
    tokenizer: str | Path | None = None,
    reference: str | Path | None = None,
    chat_template: str | Path | None = None,
    text_field: str = "text",
    block_size: int | None = None,
    num_members: int = 1000,
    seed: int = 0,
) -> ModelAudit:
    """Measure what a causal language model leaks of its training text; see ``gdc audit``.

    Args:
        model: Its folder, or its name on the Hugging Face Hub.
        corpus: Text it was trained on: a file, or a folder of files of one kind.
        out: Folder of the tables and the report.
        heldout: Text of the same kind that it was not trained on; None: membership inference is
            not measured.
        canaries: Planted secrets and their twins, as Parquet or JSON lines with ``canary_id``,
            ``family``, ``prefix``, ``secret`` and ``num_repeats``.
        tokenizer: Folder or Hub name; None: the model's own.
        reference: A model with this tokenizer that did not see the texts, for stronger membership
            attacks: folder or Hub name; None: there is none.
        chat_template: File with a Jinja template for conversations; None: the tokenizer's own.
        text_field: The field that holds the text, of files that have fields.
        block_size: Tokens of a window, at least 2; None: what the model sees at most.
        num_members: Training texts that are looked at, at most, chosen by hash.
        seed: Of that choice and of the bootstrap intervals.

    Raises:
        ConfigError: The model, its tokenizer or the folder cannot be used.
        DataError: A text or the canaries cannot be used.
        TransientError: The Hub did not answer.
    """
    # It imports torch.
    from gdc.commands import audit  # noqa: PLC0415
    from gdc.report import console  # noqa: PLC0415 - only for this

    request = audit.Request(
        model=str(model),
        tokenizer=str(tokenizer or tokenizer_of(str(model))),
        corpus=source_option.source_of(str(corpus), text_field, "corpus"),
        heldout=None
        if heldout is None
        else source_option.source_of(str(heldout), text_field, "heldout"),
        canaries=None if canaries is None else Path(canaries),
        block_size=block_size,
        seed=seed,
        reference=None if reference is None else str(reference),
        chat_template=None if chat_template is None else Path(chat_template),
    )
    folder = Path(out)
    measured = audit.run_audit(request, num_members, folder).measured
    return ModelAudit(
        canaries=measured.canaries,
        samples=measured.membership,
        findings=tuple(console.audit_findings(measured.report)),
        warnings=tuple(measured.report.warnings),
        report=folder / "report.html",
    )
