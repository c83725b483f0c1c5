"""A plan and the user's own file -> the file to train on, its lines and columns as they were."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.commands import export_tokens
from gdc.commands.own_files import OwnRows, planted_texts, read_canaries, read_rows
from gdc.corpus.samples import normalize
from gdc.corpus.sources.endings import compression_of, kind_of
from gdc.corpus.sources.files import BYTE_ORDER_MARK, unpacked
from gdc.curation.reader import Plan
from gdc.errors import ConfigError
from gdc.filesystem import durable, table_files
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import require_other_file
from gdc.schema import PLAN
from gdc.workspace import outputs

NOT_PLANNED: Final = "not in the plan"
PLANTED: Final = "planted canary"
EARLY: Final = "early"
_KEPT: Final = ("weight", "copies", "masked", "reason")
_DROPPED: Final = ("reason", "duplicate_of")


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        plan: Of the samples.
        corpus: The user's file: JSON lines, Parquet or token ids.
        out: The file to train on, of the same kind.
        removed: The file of what is left out; None: beside ``out``.
        canaries: What was planted into the corpus, which is left out; None: nothing.
        text_field: The field that holds the text.
        id_field: The field that holds the ids of the plan; None: as for ``read_rows``.
        prefix: Of the names of the fields that are added.
        repeat: Whether a row stands there as often as it is to be trained on; documents of token
            ids always do.
        separator: The id that parts documents in token ids without an index.
    """

    plan: Path
    corpus: Path
    out: Path
    removed: Path | None = None
    canaries: Path | None = None
    text_field: str = "text"
    id_field: str | None = None
    prefix: str = ""
    repeat: bool = False
    separator: int | None = None


@dataclass(frozen=True)
class Exported:
    """What was written: ``num_planted`` of the removed rows are canaries, removed as such.

    ``num_not_planned`` of the kept ones are not in the plan.
    """

    num_kept: int
    num_removed: int
    num_not_planned: int
    out: Path
    removed: Path
    num_planted: int = 0


def export(request: Request) -> Exported:
    """Write the rows that the plan keeps, and beside them those that it removes.

    Of token ids (``.bin``) these are whole documents, as ``export_tokens`` writes them.

    A row is as it was, byte by byte in JSON lines, with ``weight``, ``copies``, ``masked`` (spans
    in characters of the text) and ``reason`` added. Where a row has a masked span, the first row
    has one too, if only of no character: readers take the type of a field from the first rows. A
    removed one gets ``reason`` and ``duplicate_of``, the id of the kept row that it repeats, or
    null. A row that the plan does not know is kept. By a plan of rule ``order`` the rows that come
    first in an epoch stand first, the others behind them; otherwise rows keep their order.

    Raises:
        ConfigError: The files are of two kinds, would be replaced, or have such fields already.
        DataError: A row cannot be used, or a sample of the plan has no row.
        SchemaError: The plan is not there.
    """
    if kind_of(request.corpus.name) == "tokens":
        return _export_tokens(request)
    removed = request.removed or request.out.with_name(
        f"{request.out.stem}.removed{request.out.suffix}"
    )
    _require_apart(request, removed)
    outputs.require_free_files({"--out": request.out, "--removed": removed})
    name = str(request.corpus)
    own = read_rows(name, request.text_field, request.id_field, name)
    added = _added(request, own)
    outputs.claim_files(request.out, removed)
    write = _write_lines if kind_of(request.corpus.name) == "jsonl" else _write_parquet
    with ExitStack() as files:
        kept_file = files.enter_context(durable.new_file(request.out))
        removed_file = files.enter_context(durable.new_file(removed))
        write(request, added, kept_file, removed_file)
    is_kept = added["action"] != "drop"
    return Exported(
        num_kept=int(is_kept.sum()),
        num_removed=int((~is_kept).sum()),
        num_not_planned=int((added["reason"] == NOT_PLANNED).sum()),
        out=request.out,
        removed=removed,
        num_planted=int((added["reason"] == PLANTED).sum()),
    )


def _export_tokens(request: Request) -> Exported:
    """Write whole documents, each as often as it is to be trained on."""
    removed = request.removed or request.out.with_name(
        f"{request.out.stem}.removed{request.out.suffix}"
    )
    if request.canaries is not None:
        raise ConfigError(
            "--canaries: expected none beside token ids, into which gdc plant puts nothing, got "
            f"{request.canaries}. Leave it out."
        )
    counts = export_tokens.export(
        request.plan, request.corpus, request.out, removed, request.separator
    )
    return Exported(*counts, out=request.out, removed=removed)


def _require_apart(request: Request, removed: Path) -> None:
    kinds = [kind_of(path.name) for path in (request.corpus, request.out, removed)]
    if kinds[0] not in {"jsonl", "parquet"} or len({*kinds}) > 1:
        raise ConfigError(
            f"--out {request.out}: expected the kind of the file, JSON lines or Parquet, got "
            f"{request.corpus.name}. Name both alike: .jsonl or .parquet."
        )
    if compression_of(request.out.name) or compression_of(removed.name):
        raise ConfigError(f"--out {request.out}: expected a file that is not compressed.")
    inputs = [path for path in (request.plan, request.corpus, request.canaries) if path]
    for path in (request.out, removed):
        require_other_file(path, inputs)


def _added(request: Request, own: OwnRows) -> pl.DataFrame:
    """What is added to each row, in the order of the file; ``PLAN`` and ``duplicate_of``."""
    plan = Plan.load(request.plan).table
    own.of(plan["sample_id"], names=(str(request.plan), str(request.corpus)))
    if "duplicate_of" not in plan.columns:
        plan = plan.with_columns(duplicate_of=pl.lit(None, pl.String))
    added = own.rows.select("sample_id", "text").join(
        plan.select(*PLAN.names(), "duplicate_of"),
        on="sample_id",
        how="left",
        maintain_order="left",
    )
    planted = read_canaries(request.canaries).filter(pl.col("num_repeats") > 0)
    texts = {normalize(text) for text in planted_texts(planted, own.chat)}
    is_planted = pl.Series([normalize(text) in texts for text in added["text"]], dtype=pl.Boolean)
    filled = added.with_columns(
        action=pl.when(is_planted)
        .then(pl.lit("drop"))
        .otherwise(pl.col("action").fill_null("keep")),
        weight=pl.col("weight").fill_null(1.0),
        copies=pl.col("copies").fill_null(1),
        masked=pl.col("masked").fill_null([]),
        reason=pl.when(is_planted)
        .then(pl.lit(PLANTED))
        .otherwise(pl.col("reason").fill_null(NOT_PLANNED)),
    ).drop("text")
    return _with_typed_masks(filled)


def _with_typed_masks(added: pl.DataFrame) -> pl.DataFrame:
    """Mask no character of the first kept row where only later ones have a masked span.

    ``load_dataset`` takes lists that are empty in its first 10 MB for lists of nothing, and fails
    at the first span behind them.
    """
    is_kept = pl.col("action") != "drop"
    num_spans = pl.col("masked").list.len()
    is_first = is_kept & (is_kept.cum_sum() == 1) & (num_spans == 0)
    has_spans = (is_kept & (num_spans > 0)).any()
    nothing = pl.lit(pl.Series([[{"start": 0, "end": 0}]], dtype=PLAN["masked"])).first()
    return added.with_columns(
        masked=pl.when(is_first & has_spans).then(nothing).otherwise(pl.col("masked"))
    )


def _write_lines(request: Request, added: pl.DataFrame, kept: Path, removed: Path) -> None:
    with kept.open("wb") as kept_file, removed.open("wb") as removed_file:
        for line, row in _planned_lines(request, added):
            is_dropped = row["action"] == "drop"
            fields = _DROPPED if is_dropped else _KEPT
            more = {f"{request.prefix}{name}": row[name] for name in fields}
            num_times = row["copies"] if request.repeat and not is_dropped else 1
            if request.repeat and not is_dropped:
                more[f"{request.prefix}copies"] = 1
            file = removed_file if is_dropped else kept_file
            file.write(with_fields(line, more, str(request.corpus)) * num_times)


def _planned_lines(request: Request, added: pl.DataFrame) -> Iterator[tuple[bytes, JsonObject]]:
    """Each line with what is added to it, those first that come first in an epoch."""
    for is_early in (True, False) if (added["action"] == EARLY).any() else (False,):
        rows = zip(_lines(request.corpus), added.iter_rows(named=True), strict=True)
        yield from ((line, row) for line, row in rows if (row["action"] == EARLY) == is_early)


def with_fields(line: bytes, fields: JsonObject, name: str) -> bytes:
    """A line of JSON with fields added at its end, and nothing else changed.

    Raises:
        ConfigError: It has such a field already.
    """
    body = line.removeprefix(BYTE_ORDER_MARK).rstrip()
    record = json.loads(body)
    if clash := [field for field in fields if field in record]:
        raise ConfigError(
            f"{name}: expected no field {clash[0]!r}, got one, which would be hidden. Choose other "
            "names for what is added, such as --prefix gdc_"
        )
    added = json.dumps(fields, ensure_ascii=False)[1:-1]
    comma = b", " if record else b""
    return body[:-1].rstrip() + comma + added.encode() + b"}\n"


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are rows."""
    with unpacked(path) as file:
        yield from (line for line in file if line.strip())


def _write_parquet(request: Request, added: pl.DataFrame, kept: Path, removed: Path) -> None:
    table = table_files.read_parquet(request.corpus)
    fields = [*_KEPT, "duplicate_of"]
    names = {name: f"{request.prefix}{name}" for name in fields}
    if clash := [name for name in names.values() if name in table.columns]:
        raise ConfigError(
            f"{request.corpus}: expected no column {clash[0]!r}, got one. Choose other names for "
            "what is added, such as --prefix gdc_"
        )
    both = pl.concat([table, added.select(fields).rename(names)], how="horizontal")
    is_early = added["action"] == EARLY
    order = is_early.arg_true().append((~is_early).arg_true())
    both, is_dropped = both[order], (added["action"] == "drop")[order]
    rows = both.filter(~is_dropped).drop(names["duplicate_of"])
    if request.repeat:
        rows = _repeated(rows, names["copies"])
    table_files.write_parquet(kept, rows)
    table_files.write_parquet(
        removed, both.filter(is_dropped).drop(*(names[name] for name in _KEPT[:3]))
    )


def _repeated(rows: pl.DataFrame, copies: str) -> pl.DataFrame:
    times: Sequence[int] = rows[copies].to_list()
    order = [row for row, number in enumerate(times) for _ in range(number)]
    return rows[order].with_columns(pl.lit(1, pl.Int64).alias(copies))


def as_plain(done: Exported) -> JsonObject:
    """What was exported as values of JSON."""
    return {**asdict(done), "out": str(done.out), "removed": str(done.removed)}


def _planted(done: Exported) -> str:
    if not done.num_planted:
        return ""
    if done.num_planted < done.num_removed:
        return f", {done.num_planted:,} of them planted canaries"
    return ", all of them planted canaries: the plan drops no row of yours"


def sentences(done: Exported) -> list[str]:
    """What was exported, for the terminal."""
    others = f", {done.num_not_planned:,} of them not in the plan" if done.num_not_planned else ""
    return [
        f"{done.num_kept:,} rows kept{others}; {done.num_removed:,} removed{_planted(done)}",
        f"to train on   {done.out.resolve()}",
        f"removed       {done.removed.resolve()}",
    ]
