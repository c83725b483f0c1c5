"""Any causal language model, its training text, held-out text and canaries -> tables and report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from gdc.audit import membership_table, model_audit, windows
from gdc.audit.attack_inputs import References
from gdc.audit.model_audit import AuditedTexts, Subject
from gdc.audit.predictability import Stretch
from gdc.commands.own_files import (
    MAX_CHARS,
    chat_format,
    naming_options,
    read_canaries,
    read_chat_template,
    tokenizer_of,
)
from gdc.comparison import leakage
from gdc.config import Source
from gdc.corpus import samples, sources
from gdc.corpus.chat import say_canaries, turns_of, with_unscored
from gdc.corpus.sources import unread
from gdc.corpus.tokenizer import TextTokenizer, load_pretrained_tokenizer
from gdc.errors import ConfigError, DataError
from gdc.filesystem import durable, table_files
from gdc.report import build, page, plots
from gdc.report.model import AuditReport, AuditSettings, to_json
from gdc.schema import CANARIES
from gdc.training import models
from gdc.training.token_records import TokenRecords
from gdc.workspace import files, outputs

# A model that names no limit, or a far one, is asked in windows of this size.
MAX_BLOCK_SIZE: Final = 1024
BATCH_TOKENS: Final = 8192
MIN_K_SHARE: Final = 0.2  # the best of Shi et al. 2023, arXiv:2310.16789
REFERENCE_TOKENS: Final = "reference_tokens.parquet"
ELSEWHERE: Final = "elsewhere.parquet"
# A row is a text of which a window comes out; `sequence` is its number among the samples.
ELSEWHERE_BITS: Final = pl.Schema(
    {
        "sequence": pl.Int64,
        "bits_elsewhere": pl.Float64,  # per token of that window after unrelated texts; null: none
    }
)
WRITTEN: Final = (
    "tokens.parquet", REFERENCE_TOKENS, ELSEWHERE, "audit.parquet", "membership.parquet", "roc.png",
    "report.json", "report.html",
)  # fmt: skip


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
    reference: str | None = None  # a model that did not see the texts: folder or Hub name
    chat_template: Path | None = None  # of conversations; None: the tokenizer's own


@dataclass(frozen=True)
class Recorded:
    """What the models said of each token: the audited one, and the reference of the samples."""

    tokens: TokenRecords
    reference: TokenRecords | None


@dataclass(frozen=True)
class Measured:
    """What follows from the token records of one audit."""

    canaries: pl.DataFrame  # ``AUDIT`` table
    membership: pl.DataFrame  # ``MEMBERSHIP`` table
    attack: leakage.Attack  # the strongest
    report: AuditReport


@dataclass(frozen=True)
class Audited:
    """An audit, and what more its models said of the samples."""

    measured: Measured
    samples: pl.DataFrame  # as in ``AuditedTexts``
    rows: pl.DataFrame  # as in ``Inputs``
    tokenizer: TextTokenizer
    windows: pl.DataFrame  # ``WINDOWS`` of the samples with ``bits_elsewhere``
    records: TokenRecords  # of the samples
    reference: TokenRecords | None  # of the samples


def run_audit(request: Request, num_members: int, folder: Path) -> Audited:
    """Audit a model; write its tokens, the tables ``membership`` and ``audit``, and the report.

    Args:
        request: The model and the texts.
        num_members: Members asked at most, chosen by hash.
        folder: Where the files are written.

    Returns:
        What was measured; its report is the content of ``report.json``.

    Raises:
        ConfigError: The model, its tokenizer or the folder cannot be used.
        DataError: A source or the canaries cannot be used.
        TransientError: The Hub did not answer.
    """
    outputs.require_free(folder, WRITTEN, _paths_read(request))
    outputs.claim(folder, WRITTEN)
    tokenizer = open_tokenizer(request)
    inputs = read_inputs(request, num_members, tokenizer)
    samples = inputs.texts.samples
    tokens, found, block_size = _record(request, inputs.texts, tokenizer)
    asked = replace(request, block_size=block_size)
    recorded = Recorded(tokens, _record_reference(asked, tokenizer, samples))
    measured = measure(recorded, inputs, tokenizer, asked)
    written = {
        "tokens.parquet": tokens.to_table(),
        ELSEWHERE: found.filter("extracted").select(ELSEWHERE_BITS.names()),
        "audit.parquet": measured.canaries,
        "membership.parquet": measured.membership,
    }
    if recorded.reference is not None:
        written[REFERENCE_TOKENS] = recorded.reference.to_table()
    for name, table in written.items():
        table_files.write_parquet(folder / name, table)
    roc = _draw_roc(measured, folder) if request.heldout else None
    files.write_json(folder / "report.json", to_json(measured.report))
    files.write_text(folder / "report.html", page.render_audit(measured.report, roc))
    of_samples = inputs.texts.records_of_samples(tokens)
    return Audited(measured, samples, inputs.rows, tokenizer, found, of_samples, recorded.reference)


def _paths_read(request: Request) -> dict[str, Path | None]:
    """The texts and canaries by their options; the folder of a model may hold its audit."""
    given = {"--corpus": request.corpus, "--heldout": request.heldout}
    paths = {option: getattr(source, "path", None) for option, source in given.items()}
    texts = {option: None if path is None else Path(path) for option, path in paths.items()}
    return {**texts, "--canaries": request.canaries, "--chat-template": request.chat_template}


@dataclass(frozen=True)
class Inputs:
    """The texts of an audit."""

    trained: pl.DataFrame  # ``content_id``, ``text`` and ``source`` of every training text
    texts: AuditedTexts
    # Of members: ``sample_id`` (key or number), ``source`` and ``content_id``, and of
    # conversations ``turns``.
    rows: pl.DataFrame
    num_members: int  # at most
    num_shared: int  # held-out texts that are training texts too


def open_tokenizer(request: Request) -> TextTokenizer:
    """The tokenizer of a request, for texts as its source makes them.

    Raises:
        ConfigError: It cannot be used, or the chat template.
    """
    with naming_options():
        tokenizer = load_pretrained_tokenizer(request.tokenizer, None)
    if request.chat_template is not None:
        template = read_chat_template(request.chat_template, request.corpus)
        tokenizer = replace(tokenizer, chat_template=template)
    chat = chat_format(request.corpus, tokenizer)
    return tokenizer if chat is None else chat.tokenizer(tokenizer)


def read_inputs(request: Request, num_members: int, tokenizer: TextTokenizer) -> Inputs:
    """Read the texts of a request, at most so many members.

    Raises:
        DataError: A source or the canaries cannot be used.
    """
    rows = _read(request.corpus, "corpus", request, tokenizer)
    trained = _distinct(rows)
    chosen, num_shared = _samples(trained, request, num_members, tokenizer)
    asked = rows.select("sample_id", "source", "content_id", *_turns(rows)).filter(
        pl.col("content_id").is_in(chosen.filter("is_member")["sample_id"].implode())
    )
    canaries, chat = read_canaries(request.canaries), chat_format(request.corpus, tokenizer)
    texts = AuditedTexts(canaries if chat is None else say_canaries(canaries, chat)[0], chosen)
    return Inputs(trained, texts, asked, num_members, num_shared)


def _record(
    request: Request, texts: AuditedTexts, tokenizer: TextTokenizer
) -> tuple[TokenRecords, pl.DataFrame, int]:
    """Ask the audited model: tokens, windows as in ``Audited``, and what it saw at once."""
    subject = open_subject(request.model, tokenizer, request.block_size)
    records = model_audit.record_texts(subject, texts, batch_tokens=BATCH_TOKENS)
    found = windows.worst_windows(
        texts.records_of_samples(records), texts.samples.height, block_size=subject.block_size
    )
    out = found.filter("extracted")
    stretches = [Stretch(*row) for row in out.select("sequence", "start", "end").iter_rows()]
    bits = model_audit.ask_elsewhere(
        subject,
        texts.samples["text"],
        texts.samples["is_member"].to_numpy(),
        stretches,
        batch_tokens=BATCH_TOKENS,
    )
    of_windows = out.select("sequence", bits_elsewhere=pl.Series(bits, nan_to_null=True))
    found = found.join(
        of_windows.match_to_schema(ELSEWHERE_BITS),
        on="sequence",
        how="left",
        maintain_order="left",
    )
    return records, found, subject.block_size


def _record_reference(
    request: Request, tokenizer: TextTokenizer, samples: pl.DataFrame
) -> TokenRecords | None:
    """Ask the reference model of the samples; its tokens must be those of the audited model."""
    if request.reference is None:
        return None
    with naming_options():
        own = load_pretrained_tokenizer(tokenizer_of(request.reference), None)
    if own.tokenizer.get_vocab() != tokenizer.tokenizer.get_vocab():
        raise ConfigError(
            f"--reference {request.reference}: expected a model with the tokenizer "
            f"{request.tokenizer}, got one with another, whose losses cannot be compared. Name "
            "another."
        )
    texts = AuditedTexts(pl.DataFrame(schema=CANARIES), samples)
    subject = open_subject(request.reference, tokenizer, request.block_size)
    return model_audit.record_texts(subject, texts, batch_tokens=BATCH_TOKENS)


def _references(records: TokenRecords | None, num_texts: int) -> References | None:
    """The losses of a reference model as those of a model that saw none of the texts."""
    if records is None:
        return None
    losses = np.bincount(records.sequence, weights=records.nll, minlength=num_texts)
    mean = losses / np.bincount(records.sequence, minlength=num_texts)
    return References(mean[:, None], np.zeros((num_texts, 1), dtype=np.bool_), records.nll)


def measure(
    recorded: Recorded, inputs: Inputs, tokenizer: TextTokenizer, request: Request
) -> Measured:
    """All that follows from the token records; the request names the window that they are of."""
    assert request.block_size is not None  # noqa: S101 - of the model, where none was asked for
    references = None
    # Without held-out texts there is nothing to compare members with.
    if request.heldout is not None:
        references = _references(recorded.reference, inputs.texts.samples.height)
    canaries, membership = model_audit.audit_records(
        recorded.tokens,
        inputs.texts._replace(references=references),
        tokenizer,
        block_size=request.block_size,
        min_k_share=MIN_K_SHARE,
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


def _samples(
    trained: pl.DataFrame, request: Request, num_members: int, tokenizer: TextTokenizer
) -> tuple[pl.DataFrame, int]:
    """Members, chosen by hash, then held-out texts; how many of these were left out as members."""
    heldout = trained.head(0)
    num_shared = 0
    if request.heldout is not None:
        given = _distinct(_read(request.heldout, "heldout", request, tokenizer))
        if ("unscored" in given.columns) != ("unscored" in trained.columns):
            raise DataError(
                "--heldout: expected text of the same kind as --corpus, got conversations beside "
                "texts. Give both alike."
            )
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


def _read(source: Source, name: str, request: Request, tokenizer: TextTokenizer) -> pl.DataFrame:
    """``content_id``, ``text``, ``source`` and ``sample_id`` (key or number) of every row.

    Of conversations there are ``unscored`` too, the spans outside of what the assistant says, and
    ``turns``.
    """
    chat = chat_format(source, tokenizer)
    with naming_options(f"--{name}"):
        rows = sources.read_source(
            source, max_chars=MAX_CHARS, seed=request.seed, chat=chat, tokenizer=tokenizer
        )
        sources.check_bad_rows(rows.bad_rows, rows.rows.height, on_bad_row="fail")
    contents = samples.contents_of(rows.rows)
    if chat is not None:
        contents = with_unscored(contents, turns_of(contents["content_id"], rows.rows["turns"]))
    ids = rows.rows.get_column("key", default=pl.int_range(pl.len()).cast(pl.String))
    return contents.with_columns(rows.rows.select(_turns(rows.rows)), sample_id=ids)


def _turns(rows: pl.DataFrame) -> list[str]:
    return [name for name in ("turns",) if name in rows.columns]


def _distinct(rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.drop("sample_id", *_turns(rows))
    return rows.unique("content_id", keep="first", maintain_order=True)


def open_subject(model: str, tokenizer: TextTokenizer, block_size: int | None) -> Subject:
    """A model, a folder or Hub name, on the device it is to run on.

    Args:
        model: Folder or Hub name.
        tokenizer: Of its texts.
        block_size: Tokens of a window; None: what the model sees, ``MAX_BLOCK_SIZE`` at most.

    Raises:
        ConfigError: The model cannot be used.
        DataError: It sees fewer tokens at once than are asked for.
    """
    with naming_options():
        opened, positions = models.open_model(model, vocab_size=tokenizer.vocab_size)
    if positions is not None and block_size is not None and block_size > positions:
        raise DataError(
            f"--block-size: expected at most the {positions} positions of {model}, got {block_size}"
        )
    most = min(positions or MAX_BLOCK_SIZE, MAX_BLOCK_SIZE)
    return Subject(models.on_device(opened), tokenizer, block_size or most)


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
