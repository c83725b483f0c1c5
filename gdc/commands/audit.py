"""Any causal language model, its training text, held-out text and canaries -> tables and report."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl
from polars.testing import assert_frame_equal

from gdc.audit import membership_table, model_audit
from gdc.audit.model_audit import AuditedTexts, Subject
from gdc.commands.own_files import MAX_CHARS, naming_options, read_canaries
from gdc.comparison import leakage
from gdc.config import Source
from gdc.corpus import samples, sources
from gdc.corpus.sources import unread
from gdc.corpus.tokenizer import TextTokenizer, load_pretrained_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.filesystem import durable
from gdc.report import build, page, plots
from gdc.report.model import AuditReport, AuditSettings, to_json
from gdc.schema import AUDIT, MEMBERSHIP, TOKEN_RECORDS
from gdc.statistics import wording
from gdc.training import models
from gdc.training.token_records import TokenRecords
from gdc.workspace import files, outputs, paths, tables

# A model that names no limit, or a far one, is asked in windows of this size.
MAX_BLOCK_SIZE: Final = 1024
BATCH_TOKENS: Final = 8192
MIN_K_SHARE: Final = 0.2  # the best of Shi et al. 2023, arXiv:2310.16789
WRITTEN: Final = (
    "tokens.parquet", "audit.parquet", "membership.parquet", "roc.png", "report.json",
    "report.html",
)  # fmt: skip
_AGAIN: Final = "Audit again: gdc audit."


@dataclass(frozen=True)
class Request:
    """What to audit."""

    model: str  # folder or Hub name
    tokenizer: str  # folder or Hub name
    corpus: Source  # texts the model was trained on
    heldout: Source | None  # texts of the same kind it was not trained on
    canaries: Path | None  # Parquet or JSON lines with the fields of ``CANARIES`` but ``text``
    block_size: int | None  # tokens of a window; None: what the model sees at most
    seed: int


@dataclass(frozen=True)
class Measured:
    """What follows from the token records of one audit."""

    canaries: pl.DataFrame  # ``AUDIT`` table
    membership: pl.DataFrame  # ``MEMBERSHIP`` table
    attack: leakage.Attack  # the strongest
    report: AuditReport


def run_audit(request: Request, num_members: int, folder: Path) -> AuditReport:
    """Audit a model; write ``tokens``, ``membership`` and ``audit``, all Parquet, and the report.

    Args:
        request: The model and the texts.
        num_members: Members asked at most, chosen by hash.
        folder: Where the files are written.

    Returns:
        The content of ``report.json``.

    Raises:
        ConfigError: The model, its tokenizer or the folder cannot be used.
        DataError: A source or the canaries cannot be used.
        TransientError: The Hub did not answer.
    """
    outputs.require_free(folder, WRITTEN, _paths_read(request))
    durable.make_folder(folder)
    inputs = read_inputs(request, num_members)
    subject = subject_of(request)
    records = model_audit.record_texts(subject, inputs.texts, batch_tokens=BATCH_TOKENS)
    asked = replace(request, block_size=subject.block_size)
    measured = _measure(records, inputs, subject.tokenizer, asked)
    for name, table in (
        ("tokens", records.to_table()),
        ("audit", measured.canaries),
        ("membership", measured.membership),
    ):
        with durable.new_file(folder / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    roc = _draw_roc(measured, folder) if request.heldout else None
    files.write_json(folder / "report.json", to_json(measured.report))
    files.write_text(folder / "report.html", page.render_audit(measured.report, roc))
    return measured.report


def measure_again(folder: Path) -> Measured:
    """Make the tables and the report of an audit again from the tokens it recorded; no model runs.

    Args:
        folder: Where ``run_audit`` wrote its files.

    Raises:
        ConfigError: The tokenizer cannot be used.
        DataError: A file is damaged, or a source is another one than that of the audit.
        SchemaError: A file is missing.
    """
    request, num_members = request_of(folder)
    records = tables.read_table(folder / "tokens.parquet", TOKEN_RECORDS, _AGAIN)
    with naming_options():
        tokenizer = load_pretrained_tokenizer(request.tokenizer, None)
    inputs = read_inputs(request, num_members)
    return _measure(TokenRecords.from_table(records), inputs, tokenizer, request)


def different_tables(folder: Path, measured: Measured) -> Iterator[str]:
    """Tables of an audit that are not what its tokens give, a sentence each.

    Raises:
        DataError: A table is damaged.
        SchemaError: One is missing.
    """
    for name, schema, table in (
        ("audit", AUDIT, measured.canaries),
        ("membership", MEMBERSHIP, measured.membership),
    ):
        path = folder / f"{name}.parquet"
        try:
            assert_frame_equal(tables.read_table(path, schema, _AGAIN), table)
        except AssertionError as error:
            words = " ".join(str(error).split())
            yield f"{path}, made again from the tokens: {words}"


def request_of(folder: Path) -> tuple[Request, int]:
    """What an audit was asked for, and how many members at most.

    Raises:
        DataError: Its report does not say so.
        SchemaError: There is no report.
    """
    path = folder / "report.json"
    content = files.read_json(path)
    settings = content.get("settings")
    num_members = settings.get("num_members") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(num_members, int):
        raise DataError(f"{path}: expected the report of an audit, got another one. {_AGAIN}")
    given = {name: settings.get(name) for name in Request.__dataclass_fields__}
    return files.parse_json(Request, given, path), num_members


def _paths_read(request: Request) -> dict[str, Path | None]:
    """The texts and canaries by their options; the folder of a model may hold its audit."""
    given = {"--corpus": request.corpus, "--heldout": request.heldout}
    paths = {option: getattr(source, "path", None) for option, source in given.items()}
    texts = {option: None if path is None else Path(path) for option, path in paths.items()}
    return {**texts, "--canaries": request.canaries}


def tokenizer_of(model: str) -> str:
    """A model's own tokenizer; of a model that the pipeline made, the one beside its folder."""
    folder = Path(model)
    if not folder.is_dir():
        # A name of the Hub has one slash at most and no leading dot.
        if model.startswith((".", "/", "~")) or model.count("/") > 1:
            raise ConfigError(
                f"--model {model}: expected a folder or a Hub name, got no such folder."
            )
        return model
    if any(folder.glob("tokenizer*")) or any(folder.glob("vocab*")):
        return model
    beside = folder.resolve().parent.parent / paths.TOKENIZER.name
    if beside.is_dir():
        return str(beside)
    raise ConfigError(
        f"--model {model}: expected a folder with its tokenizer, got none. Name it: --tokenizer."
    )


def findings(report: AuditReport) -> list[str]:
    """What an audit found, one sentence for each kind of leak that was measured."""
    audits = report.arm_audits[report.queried]
    samples, planted = audits.samples, audits.canaries.planted
    found = (
        ("planted secrets extracted", planted.extracted, wording.percent),
        (
            "second halves of training texts extracted",
            samples.members.extracted,
            wording.percent,
        ),
        (
            "second halves of held-out texts extracted",
            samples.heldout.extracted,
            wording.percent,
        ),
        (f"AUC of membership attack {samples.attack}", samples.auc, wording.number),
    )
    return [
        f"{name}: {wording.interval(value, form)}"
        for name, value, form in found
        if value is not None
    ]


@dataclass(frozen=True)
class Inputs:
    """The texts of an audit."""

    trained: pl.DataFrame  # ``content_id``, ``text`` and ``source`` of every training text
    texts: AuditedTexts
    num_members: int  # at most
    num_shared: int  # held-out texts that are training texts too


def read_inputs(request: Request, num_members: int) -> Inputs:
    """Read the texts of a request, at most so many members.

    Raises:
        DataError: A source or the canaries cannot be used.
    """
    trained = _read(request.corpus, "corpus", request)
    chosen, num_shared = _samples(trained, request, num_members)
    texts = AuditedTexts(read_canaries(request.canaries), chosen)
    return Inputs(trained, texts, num_members, num_shared)


def _measure(
    records: TokenRecords, inputs: Inputs, tokenizer: TextTokenizer, request: Request
) -> Measured:
    """All that follows from the token records; the request names the window that they are of."""
    assert request.block_size is not None  # noqa: S101 - of the model, where none was asked for
    canaries, membership = model_audit.audit_records(
        records, inputs.texts, tokenizer, block_size=request.block_size, min_k_share=MIN_K_SHARE
    )
    attack = leakage.Attack("loss")
    if request.heldout is not None:
        attack = leakage.strongest_attack([membership])
    report = build.build_audit(
        build.AuditTables(
            model=request.model,
            canaries=canaries,
            membership=membership,
            attack=attack,
            sources=inputs.trained.select("source", sample_id="content_id"),
            has_heldout=request.heldout is not None,
        ),
        summary=[*_summary(inputs.texts, request.block_size), *_unread(request)],
        warnings=_shared_warning(inputs.num_shared),
        settings=AuditSettings(**vars(request), num_members=inputs.num_members),
    )
    return Measured(canaries, membership, attack, report)


def _samples(trained: pl.DataFrame, request: Request, num_members: int) -> tuple[pl.DataFrame, int]:
    """Members, chosen by hash, then all held-out texts that are none; and how many were some."""
    heldout = trained.head(0)
    num_shared = 0
    if request.heldout is not None:
        given = _read(request.heldout, "heldout", request)
        heldout = given.join(trained, on="content_id", how="anti", maintain_order="left")
        num_shared = given.height - heldout.height
        if heldout.is_empty():
            raise DataError("--heldout: every text of it stands in the corpus too. Give others.")
    table = pl.concat(
        [
            trained.with_columns(split=pl.lit("train")),
            heldout.with_columns(split=pl.lit("validation")),
        ]
    ).with_columns(sample_id="content_id", canary_id=pl.lit(None, pl.String))
    return membership_table.choose_samples(table, num_members, seed=request.seed), num_shared


def _read(source: Source, name: str, request: Request) -> pl.DataFrame:
    """``content_id``, ``text`` and ``source`` of every distinct text of a source."""
    with naming_options(f"--{name}"):
        rows = sources.read_source(source, max_chars=MAX_CHARS, seed=request.seed)
        sources.check_bad_rows(rows.bad_rows, rows.rows.height, on_bad_row="fail")
    return samples.contents_of(rows.rows).unique("content_id", keep="first", maintain_order=True)


def subject_of(request: Request) -> Subject:
    """The model of a request with its tokenizer, on the device it is to run on.

    Raises:
        ConfigError: The model or its tokenizer cannot be used.
        DataError: It sees fewer tokens at once than are asked for.
    """
    with naming_options():
        tokenizer = load_pretrained_tokenizer(request.tokenizer, None)
        model, positions = models.open_model(request.model, vocab_size=tokenizer.vocab_size)
    most = min(positions or MAX_BLOCK_SIZE, MAX_BLOCK_SIZE)
    block_size = request.block_size or most
    if positions is not None and block_size > positions:
        raise DataError(
            f"--block-size: expected at most the {positions} positions of {request.model}, "
            f"got {block_size}"
        )
    return Subject(models.on_device(model), tokenizer, block_size)


def _shared_warning(num_shared: int) -> list[str]:
    if not num_shared:
        return []
    return [f"{num_shared} held-out texts stand in the corpus too and were left out."]


def _summary(texts: AuditedTexts, block_size: int) -> list[str]:
    num_members = int(texts.samples["is_member"].sum())
    num_repeats = texts.canaries["num_repeats"]
    return [
        f"{num_members:,} distinct training texts and {texts.samples.height - num_members:,} "
        f"held-out ones, {(num_repeats > 0).sum():,} planted canaries and "
        f"{(num_repeats == 0).sum():,} twins, in windows of {block_size:,} tokens."
    ]


def _unread(request: Request) -> list[str]:
    """What is not read of each folder of texts, in a sentence."""
    given = (("corpus", request.corpus), ("heldout", request.heldout))
    found = [
        (name, unread.sentence(unread.summarize(sources.find_unread(source))))
        for name, source in given
        if source is not None
    ]
    return [f"--{name}: {sentence}" for name, sentence in found if sentence]


def _draw_roc(measured: Measured, folder: Path) -> bytes:
    path = folder / "roc.png"
    curves = {build.MODEL: leakage.roc_curve([measured.membership], measured.attack)}
    with durable.new_file(path) as temporary:
        plots.roc_png(curves, measured.attack.name, temporary)
    return path.read_bytes()
