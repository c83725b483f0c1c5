"""The user's training file -> the same with canaries behind its lines, and the table of twins."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.commands.own_files import OwnRows, naming_options, read_rows
from gdc.config import CanariesConfig, ChatSource
from gdc.corpus import canaries as canary_texts
from gdc.corpus.chat import CANARY_PROMPT, UnusableError
from gdc.corpus.samples import contents_of
from gdc.corpus.sources import conversations
from gdc.corpus.sources.endings import compression_of, kind_of
from gdc.corpus.sources.rows import Fields
from gdc.errors import ConfigError, DataError
from gdc.filesystem import durable
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import overlapping
from gdc.schema import CANARIES
from gdc.workspace import outputs, tables
from gdc.workspace.source_option import source_of

FAMILIES: Final[Mapping[str, Mapping[str, str | int]]] = {
    "digits": {
        "template": "The access code of user {key} is", "key_digits": 4, "secret_digits": 8,
    },
    "words": {"prefix_words": 6, "secret_words": 6},
}  # fmt: skip
# A planted share above which the canaries are what is measured.
_MANY: Final = 0.2


@dataclass(frozen=True)
class Request:
    """What to plant.

    Attributes:
        corpus: JSON lines.
        out: The training file with canaries.
        canaries: The Parquet file of the canaries and their twins.
        families: Names of ``FAMILIES``.
        repeats: Times that a canary is planted, a level each.
        per_level: Canaries of each level and family.
        num_twins: Canaries of each family that are not planted.
        text_field: The field that holds the text.
        id_field: The field that holds the ids; None: as for ``read_rows``.
        seed: Of all choices.
    """

    corpus: Path
    out: Path
    canaries: Path
    families: tuple[str, ...]
    repeats: tuple[int, ...]
    per_level: int
    num_twins: int
    text_field: str = "text"
    id_field: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Planted:
    """What was planted."""

    num_rows: int
    num_canaries: int
    num_twins: int
    num_planted_rows: int
    out: Path
    canaries: Path

    @property
    def is_many(self) -> bool:
        """Whether planted rows are so many that they change what is measured."""
        return self.num_planted_rows > _MANY * (self.num_rows + self.num_planted_rows)


def plant(request: Request) -> Planted:
    """Write the training file with canaries behind its own lines, which stay as they are.

    A planted line has the text and, where the file has ids, an id of its own. Of conversations it
    is one in which the assistant says the text, in the fields that the file has.

    Raises:
        ConfigError: A family or number is wrong, or a file would be replaced.
        DataError: A row cannot be used, or there are too few words for so many canaries.
    """
    _require_apart(request)
    outputs.require_free_files({"--out": request.out, "--canaries": request.canaries})
    name = str(request.corpus)
    own = read_rows(name, request.text_field, request.id_field, name)
    found = _make(request, own)
    repeated = found.select("canary_id", "text", pl.col("num_repeats"))
    texts = [
        text
        for _, text, num_repeats in repeated.iter_rows()
        for _ in range(num_repeats)
    ]  # fmt: skip
    outputs.claim_files(request.out, request.canaries)
    with durable.new_file(request.out) as temporary:
        shutil.copyfile(request.corpus, temporary)
        with temporary.open("r+b") as file:
            file.seek(0, 2)
            if not _ends_in_newline(temporary):
                file.write(b"\n")
            file.writelines(_lines(request, own, texts))
    tables.write_table(request.canaries, found, CANARIES)
    num_twins = int((found["num_repeats"] == 0).sum())
    return Planted(
        num_rows=own.rows.height,
        num_canaries=found.height - num_twins,
        num_twins=num_twins,
        num_planted_rows=len(texts),
        out=request.out,
        canaries=request.canaries,
    )


def _require_apart(request: Request) -> None:
    for path in (request.corpus, request.out):
        if kind_of(path.name) != "jsonl" or compression_of(path.name):
            raise ConfigError(
                f"{path}: expected JSON lines that are not compressed (.jsonl), got another name. "
                "Write the training file so."
            )
    if kind_of(request.canaries.name) != "parquet":
        raise ConfigError(f"--canaries {request.canaries}: expected a .parquet file. Name one.")
    if overlapping(request.out, [request.corpus, request.canaries]) or overlapping(
        request.canaries, [request.corpus]
    ):
        raise ConfigError(f"--out {request.out}: expected three different files. Name another.")


def _make(request: Request, own: OwnRows) -> pl.DataFrame:
    unknown = [name for name in request.families if name not in FAMILIES]
    if unknown or not request.families:
        raise ConfigError(
            f"--families: expected some of {', '.join(FAMILIES)}, got "
            f"{', '.join(request.families) or 'none'}. Mend the list."
        )
    if min(request.repeats, default=0) < 1 or len({*request.repeats}) < len(request.repeats):
        raise ConfigError(
            f"--repeats: expected different numbers of at least 1, got {list(request.repeats)}."
        )
    shared = {
        "repeats": request.repeats, "per_level": request.per_level, "num_twins": request.num_twins,
    }  # fmt: skip
    chosen = {name: {**FAMILIES[name], **shared} for name in request.families}
    config = CanariesConfig.model_validate(
        {"digits": None, "words": None, "natural": None, **chosen}
    )
    num_copies = pl.len().over("content_id").cast(pl.Int64)
    samples = contents_of(own.rows).with_columns(num_copies=num_copies)
    with naming_options(str(request.corpus)):
        return canary_texts.make_canaries(config, [samples], seed=request.seed)


def _lines(request: Request, own: OwnRows, texts: Sequence[str]) -> list[bytes]:
    ids = _new_ids(request, own, len(texts))
    return [
        json.dumps({**more, **of_text}, ensure_ascii=False).encode() + b"\n"
        for of_text, more in zip(_fields(request, texts), ids, strict=True)
    ]


def _fields(request: Request, texts: Sequence[str]) -> Sequence[Fields]:
    """The fields of the rows that hold the texts, or in which the assistant says them."""
    source = source_of(str(request.corpus), request.text_field, str(request.corpus))
    if not isinstance(source, ChatSource):
        return [{request.text_field: text} for text in texts]
    first = _first_record(request.corpus)
    try:
        return [conversations.planted(first, source, (CANARY_PROMPT, text)) for text in texts]
    except UnusableError:
        raise ConfigError(
            f"--text-field {request.text_field}: expected a field of conversations, got templates, "
            "into whose fields nothing can be planted. Plant into rows with messages."
        ) from None


def _new_ids(request: Request, own: OwnRows, size: int) -> list[dict[str, str | int]]:
    """An id for each planted row, of the type of the others; without a field for it, none."""
    if own.id_field is None:
        return [{} for _ in range(size)]
    first = _first_record(request.corpus)[own.id_field]
    if isinstance(first, int):
        start = max(int(value) for value in own.rows["sample_id"]) + 1
        return [{own.id_field: start + number} for number in range(size)]
    known = {*own.rows["sample_id"]}
    names = [f"canary-{number}" for number in range(size)]
    if clash := known & {*names}:
        raise DataError(
            f"{request.corpus}: expected no id {min(clash)!r}, which planted rows get, got one. Is "
            "the file planted already? Give the file without canaries."
        )
    return [{own.id_field: name} for name in names]


def _first_record(path: Path) -> Fields:
    with path.open("rb") as file:
        line = next(line for line in file if line.strip())
    record: Fields = json.loads(line.decode("utf-8-sig"))
    return record


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def names_of(listed: str, option: str) -> tuple[str, ...]:
    """The names of a list with commas.

    Args:
        listed: What was given.
        option: The option that it was given with, for messages.

    Raises:
        ConfigError: One is empty, or stands there twice.
    """
    names = tuple(name.strip() for name in listed.split(","))
    if "" in names or len({*names}) < len(names):
        raise ConfigError(
            f"{option}: expected different names with one comma between two, got {listed!r}. Mend "
            "the list."
        )
    return names


def numbers_of(listed: str, option: str) -> tuple[int, ...]:
    """The numbers of a list with commas; see ``names_of``.

    Raises:
        ConfigError: One is no whole number.
    """
    try:
        return tuple(int(name) for name in names_of(listed, option))
    except ValueError:
        raise ConfigError(
            f"{option}: expected different whole numbers with commas, such as 1,4,16, got "
            f"{listed!r}."
        ) from None


def as_plain(done: Planted) -> JsonObject:
    """What was planted as values of JSON."""
    return {**asdict(done), "out": str(done.out), "canaries": str(done.canaries)}


def sentences(done: Planted) -> list[str]:
    """What was planted, for the terminal."""
    share = done.num_planted_rows / (done.num_rows + done.num_planted_rows)
    many = f"Canaries are {share:.0%} of the rows: they change what is measured. Plant fewer."
    return [
        f"{done.num_canaries:,} canaries in {done.num_planted_rows:,} rows behind your "
        f"{done.num_rows:,}; {done.num_twins:,} twins are in no row",
        *([many] if done.is_many else []),
        "Shuffle when you train: the canaries stand at the end.",
        f"to train on   {done.out.resolve()}",
        f"canaries      {done.canaries.resolve()}",
    ]
