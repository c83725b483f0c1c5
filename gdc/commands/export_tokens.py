"""A plan and a file of token ids -> the file to train on: documents dropped and repeated."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.corpus.matching import require_numbered
from gdc.corpus.sources.endings import kind_of
from gdc.corpus.token_files import (
    IDS,
    TokenFile,
    guess_dtype,
    index_of,
    read_indexed,
    read_stream,
    write_like,
)
from gdc.curation.reader import Plan
from gdc.errors import ConfigError, DataError
from gdc.filesystem import durable, table_files
from gdc.filesystem.path_checks import require_other_file
from gdc.workspace import outputs


def export(
    plan: Path, corpus: Path, out: Path, removed: Path, separator: int | None
) -> tuple[int, int, int]:
    """Write the documents that a plan keeps, each as often as it says, and those that it drops.

    Args:
        plan: Of documents by number, from 0, or a plan of the pipeline, whose corpus lies beside
            it. A document that it does not know is kept.
        corpus: The file of ids, with an index beside it or without.
        out: The file to train on; an index lies beside it where one lies beside ``corpus``.
        removed: The same of what is dropped.
        separator: The id that parts documents where there is no index.

    Returns:
        Number of documents of the corpus that are kept, removed, and not in the plan.

    Raises:
        ConfigError: The plan weighs or masks, a file would be replaced, or no separator is named.
        DataError: A file cannot be read, or the plan is of other documents.
        SchemaError: The plan is not there.
    """
    file = _open(corpus, separator)
    is_indexed = file.separator is None
    inputs = [plan, corpus, *([index_of(corpus)] if is_indexed else [])]
    _require_apart(inputs, out, removed)
    written = {"--out": out, "--removed": removed}
    if is_indexed:
        written |= {f"the index of {name}": index_of(path) for name, path in written.items()}
    outputs.require_free_files(written)
    copies, is_planned, is_early = _copies(plan, corpus, len(file))
    kept = np.repeat(np.arange(len(file)), copies)
    kept = kept[np.argsort(~is_early[kept], kind="stable")]
    outputs.claim_files(*written.values())
    with ExitStack() as files:
        for path, rows in ((out, kept), (removed, np.flatnonzero(copies == 0))):
            ids = files.enter_context(durable.new_file(path))
            index = files.enter_context(durable.new_file(index_of(path))) if is_indexed else None
            write_like(file, rows.tolist(), ids, index)
    num_removed = int((copies == 0).sum())
    return len(file) - num_removed, num_removed, int((~is_planned).sum())


def _open(corpus: Path, separator: int | None) -> TokenFile:
    if corpus.suffix.lower() != IDS:
        raise ConfigError(f"{corpus}: expected the {IDS} file. Name it; its index lies beside it.")
    if index_of(corpus).exists():
        if separator is not None:
            raise ConfigError(
                f"--separator {separator}: expected none, as {index_of(corpus)} parts the "
                "documents. Leave it out."
            )
        return read_indexed(corpus)
    if separator is None:
        raise ConfigError(
            f"{corpus}: expected {index_of(corpus).name} beside it, or the id that parts documents "
            "(50256 is GPT-2's end of text), got neither. Name it: --separator."
        )
    return read_stream(corpus, guess_dtype(corpus), separator)


def _require_apart(inputs: Sequence[Path], out: Path, removed: Path) -> None:
    for path in (out, removed):
        if kind_of(path.name) != "tokens" or path.suffix.lower() != IDS:
            raise ConfigError(f"--out {path}: expected a name that ends in {IDS}. Name one.")
        for written in (path, index_of(path)):
            require_other_file(written, inputs)


def _copies(
    plan: Path, corpus: Path, num_documents: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """How often each document is written, and whether the plan knows it, and has it come first."""
    table = Plan.load(plan).table
    kept = table.filter(pl.col("action") != "drop")
    num_odd = kept.filter((pl.col("weight") != 1) | (pl.col("masked").list.len() > 0)).height
    if num_odd:
        raise ConfigError(
            f"{plan}: expected documents kept, dropped or repeated whole, as a file of ids holds "
            f"nothing else, got {num_odd:,} with a weight or masked spans. Plan by another rule, "
            "or weigh in training: gdc.Plan."
        )
    rows = _rows_of(table, plan, corpus, num_documents)
    planned = table.select("sample_id", "action", "copies").join(rows, on="sample_id")
    copies = np.ones(num_documents, np.int64)
    is_planned, is_early = np.zeros(num_documents, bool), np.zeros(num_documents, bool)
    at = planned["row"].to_numpy()
    is_dropped = (planned["action"] == "drop").to_numpy()
    copies[at] = np.where(is_dropped, 0, planned["copies"].to_numpy())
    is_planned[at] = True
    is_early[at] = (planned["action"] == "early").to_numpy()
    return copies, is_planned, is_early


def _rows_of(table: pl.DataFrame, plan: Path, corpus: Path, num_documents: int) -> pl.DataFrame:
    """``sample_id`` and ``row``, the number of its document from 0."""
    numbers = table["sample_id"].cast(pl.Int64, strict=False)
    if not numbers.null_count():
        require_numbered(table["sample_id"], num_documents, names=(str(plan), str(corpus)))
        rows = table.select("sample_id", row=numbers)
    else:
        rows = _rows_in_corpus(table, plan, corpus)
    if not rows["row"].is_between(0, num_documents - 1).all() or rows["row"].is_duplicated().any():
        raise DataError(
            f"{plan}: expected documents of {corpus}, numbers from 0 to {num_documents - 1}, each "
            "once, got others. Give the file that was mapped."
        )
    return rows


def _rows_in_corpus(table: pl.DataFrame, plan: Path, corpus: Path) -> pl.DataFrame:
    """The same of a plan of the pipeline, whose corpus says where each sample stood."""
    path = plan.absolute().parent.parent / "corpus.parquet"
    if not path.exists():
        raise DataError(
            f"{plan}: expected ids that are numbers of documents, or the corpus of the pipeline at "
            f"{path}, got neither: {table['sample_id'][0]!r}. Give a plan of this file."
        )
    found = (
        table_files.read_parquet(path)
        .select("sample_id", "source")
        .filter(pl.col("source").str.contains(rf"(?:^|/){re.escape(corpus.name)}:\d+$"))
        .join(table, on="sample_id", how="semi")
    )
    number = pl.col("source").str.extract(r":(\d+)$").cast(pl.Int64)
    if found.is_empty():
        raise DataError(
            f"{plan}: expected samples that were read from {corpus.name}, got none. Give the file "
            "that the run read."
        )
    return found.select("sample_id", row=number - 1)
