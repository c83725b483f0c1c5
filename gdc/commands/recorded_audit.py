"""The folder of an audit -> what was asked, and what its recorded tokens give; no model runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from polars.testing import assert_frame_equal

from gdc.commands import audit
from gdc.errors import ConfigError, DataError
from gdc.schema import AUDIT, MEMBERSHIP, TOKEN_RECORDS
from gdc.training.token_records import TokenRecords
from gdc.workspace import files, tables

_AGAIN: Final = "Audit again: gdc audit."


def measure_again(folder: Path) -> audit.Measured:
    """Make the tables and the report of an audit again from the tokens it recorded; no model runs.

    Args:
        folder: Where ``run_audit`` wrote its files.

    Raises:
        ConfigError: The tokenizer cannot be used.
        DataError: A file is damaged, or a source is another one than that of the audit.
        SchemaError: A file is missing.
    """
    request, num_members = request_of(folder)
    reference = None if request.reference is None else read_records(folder, audit.REFERENCE_TOKENS)
    recorded = audit.Recorded(read_records(folder), reference)
    tokenizer = audit.open_tokenizer(request)
    inputs = audit.read_inputs(request, num_members, tokenizer)
    return audit.measure(recorded, inputs, tokenizer, request)


def read_records(folder: Path, name: str = "tokens.parquet") -> TokenRecords:
    """The token records that an audit wrote.

    Raises:
        DataError: The file is damaged.
        SchemaError: It is missing.
    """
    return TokenRecords.from_table(tables.read_table(folder / name, TOKEN_RECORDS, _AGAIN))


def different_tables(folder: Path, measured: audit.Measured) -> Iterator[str]:
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


def request_of(folder: Path) -> tuple[audit.Request, int]:
    """What an audit was asked for, and how many members at most.

    Raises:
        ConfigError: It is not the folder of an audit.
        DataError: Its report does not say so.
    """
    path = folder / "report.json"
    if not path.exists():
        got = f"one without {path.name}" if folder.is_dir() else "none"
        raise ConfigError(
            f"{folder}: expected the folder of an audit, the --out of gdc audit, got {got}. Name "
            "that folder; to certify a run, go to its folder and name none."
        )
    content = files.read_json(path, _AGAIN)
    settings = content.get("settings")
    num_members = settings.get("num_members") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(num_members, int):
        raise DataError(f"{path}: expected the report of an audit, got another one. {_AGAIN}")
    given = {name: settings.get(name) for name in audit.Request.__dataclass_fields__}
    return files.parse_json(audit.Request, given, path), num_members
