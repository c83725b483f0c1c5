"""Files that options of the commands name -> the user's own rows and canaries."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from gdc.config import ChatSource, JsonlSource, ParquetSource, Source
from gdc.corpus import sources
from gdc.corpus.chat import ChatFormat, syntax_problem
from gdc.corpus.matching import match_rows, require_numbered
from gdc.corpus.sources.endings import kind_of
from gdc.corpus.tokenizer import TextTokenizer
from gdc.errors import ConfigError, DataError, GdcError
from gdc.filesystem import table_files
from gdc.filesystem.path_checks import require_file
from gdc.recording.sample_ids import USUAL_COLUMNS
from gdc.schema import CANARIES
from gdc.workspace import paths
from gdc.workspace.source_option import source_of

MAX_CHARS: Final = 1_000_000
_CANARY_FIELDS: Final = ("canary_id", "family", "prefix", "secret", "num_repeats")
# What messages about params.yaml say, longer parts first, and what it is here.
_OPTIONS: Final[Mapping[str, str]] = {
    ", or set ingest.on_bad_row: quarantine": "",
    ", or choose another ingest.source.kind": "",
    "; it counts from the project folder": "",
    ", or plant none: set ingest.canaries.digits to null": "",
    ", or plant none: set ingest.canaries.words to null": "",
    "ingest.canaries.": "--families ",
    "ingest.canaries": "--families",
    "set ingest.source.kind: chat.": "leave --text-field out.",
    "Name theirs in ingest.source.turns": "Name theirs: --text-field",
    "make both sides by templates: ingest.source.prompt and completion": "both sides by templates: "
    "--text-field '{{question}}=>{{answer}}'",
    "ingest.source.text_field and key_field": "--text-field and --id-field",
    "ingest.source.text_field": "--text-field",
    "Set text_field": "Set --text-field",
    "ingest.source.path": "{source}",
    "ingest.source": "{source}",
    "ingest.tokenizer.name": "--tokenizer",
    "model.name": "--model",
}


@contextmanager
def naming_options(source: str = "") -> Iterator[None]:
    """Name options where a message names keys of params.yaml, which these commands do not read."""
    try:
        yield
    except GdcError as error:
        message = str(error)
        for key, option in _OPTIONS.items():
            message = message.replace(key, option.format(source=source))
        raise type(error)(message) from None


@dataclass(frozen=True)
class OwnRows:
    """Rows of the user's: ``sample_id``, ``text`` as it stands there, ``source`` (file and line).

    ``id_field`` holds the ids; None: the id of a row is its number, from 0. ``chat`` is the format
    of the texts where the rows are conversations, which have ``turns`` too; None: they are none.
    """

    rows: pl.DataFrame
    id_field: str | None
    chat: ChatFormat | None = None

    def of(self, ids: pl.Series, *, names: tuple[str, str]) -> pl.DataFrame:
        """The rows of some ids, in their order.

        Args:
            ids: Distinct ids, of a trace or a plan.
            names: What holds the ids and what holds the rows, for messages.

        Raises:
            DataError: An id has no row, or row numbers are not those of the ids.
        """
        if self.id_field is None:
            require_numbered(ids, self.rows.height, names=names)
        return match_rows(ids, self.rows, names=names)


def read_rows(
    path: str,
    text_field: str,
    id_field: str | None,
    option: str,
    tokenizer: TextTokenizer | None = None,
) -> OwnRows:
    """Read rows by the ids that a trace or a plan knows them by.

    Args:
        path: A file, a folder of files of one kind, or a saved data set.
        text_field: The field that holds the text.
        id_field: The field that holds the id; None: ``sample_id`` or ``id`` where there is one, as
            for ``TraceRecorder``, else the id is the number of the row, from 0.
        option: What messages call the path.
        tokenizer: Whose template makes texts of conversations; None: they are plain. That which
            made the ids of files of token ids, which need one.

    Raises:
        ConfigError: Ids are asked for of files that have no fields.
        DataError: A row cannot be used.
    """
    source = keyed_source(path, text_field, id_field, option)
    with naming_options(option):
        chat = chat_format(source, tokenizer)
        rows = sources.read_keyed(source, max_chars=MAX_CHARS, chat=chat, tokenizer=tokenizer)
        return OwnRows(rows, getattr(source, "key_field", None), chat)


def keyed_source(path: str, text_field: str, id_field: str | None, option: str) -> Source:
    """The source of rows that have ids: ``key_field`` is the field of the id, None: the number.

    Args:
        path: As ``read_rows``, and so are the others.
        text_field: See there.
        id_field: See there.
        option: See there.

    Raises:
        ConfigError: Ids are asked for of files that have no fields.
        DataError: The source is not there.
    """
    source = source_of(path, text_field, option)
    with naming_options(option):
        if isinstance(source, JsonlSource | ParquetSource | ChatSource):
            return source.model_copy(update={"key_field": id_field or usual_id_field(source)})
        if id_field is not None:
            raise ConfigError(
                f"--id-field {id_field}: expected JSON lines or Parquet in {option}, got "
                f"{source.kind}. Leave it out: the id of a row is then its number, from 0."
            )
    return source


def chat_format(source: Source, tokenizer: TextTokenizer | None) -> ChatFormat | None:
    """How the conversations of a source become texts; None: it has none."""
    if not isinstance(source, ChatSource):
        return None
    return ChatFormat.of(tokenizer, source.chat_template)


def read_chat_template(path: Path, corpus: Source) -> str:
    """The template of a file for the conversations of a source.

    Raises:
        ConfigError: It is no Jinja template, or the source has no conversations.
    """
    where = f"--chat-template {path}"
    if not isinstance(corpus, ChatSource):
        raise ConfigError(
            f"{where}: expected conversations in --corpus, got texts, which have no template. "
            "Leave it out, or name the field of the turns: --text-field."
        )
    try:
        require_file(path, where)
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}: expected a file with a Jinja template, got {type(error).__name__}. Name "
            "one, such as the chat_template.jinja of a model."
        ) from None
    if problem := syntax_problem(template):
        raise ConfigError(f"{where}: expected a Jinja template, got one with {problem}. Mend it.")
    return template


def usual_id_field(source: JsonlSource | ParquetSource | ChatSource) -> str | None:
    """``sample_id`` or ``id``, whichever the first row has; None: neither.

    Raises:
        DataError: The source is not there.
    """
    fields = sources.first_fields(source)
    return next((name for name in USUAL_COLUMNS if name in fields), None)


def planted_texts(canaries: pl.DataFrame, chat: ChatFormat | None) -> pl.Series:
    """The text of the row that plants each canary: of a conversation, all of it."""
    if chat is None:
        return canaries["text"]
    texts = [chat.planted(text) for text in canaries["text"]]
    return pl.Series("text", texts, dtype=pl.String)


def read_canaries(path: Path | None) -> pl.DataFrame:
    """The ``CANARIES`` table of a file, empty without one.

    Raises:
        DataError: It is not there, or is no table of canaries.
    """
    if path is None:
        return pl.DataFrame(schema=CANARIES)
    fields = pl.Schema({name: CANARIES[name] for name in _CANARY_FIELDS})
    try:
        require_file(path, f"--canaries {path}")
        read = (
            table_files.read_ndjson if kind_of(path.name) == "jsonl" else table_files.read_parquet
        )
        table = read(path).select(fields.names()).cast(fields)
    except (OSError, pl.exceptions.PolarsError) as error:
        # The message of polars may quote a secret.
        raise DataError(
            f"--canaries {path}: expected Parquet or JSON lines with the fields {dict(fields)}, "
            f"got {type(error).__name__}. Write it so."
        ) from None
    is_odd = table["canary_id"].is_duplicated() | (table["num_repeats"] < 0)
    is_odd |= (table["prefix"] == "") | (table["secret"] == "")
    if table.null_count().sum_horizontal().item() or is_odd.any():
        raise DataError(
            f"--canaries {path}: expected no null, no empty prefix or secret, every canary_id once "
            "and num_repeats >= 0. Mend or remove such rows."
        )
    return table.with_columns(text=pl.col("prefix") + pl.col("secret")).select(CANARIES.names())


def tokenizer_of(model: str) -> str:
    """A model's own tokenizer; of a model that the pipeline made, the one beside its folder."""
    folder = Path(model)
    if folder.is_file():
        raise ConfigError(
            f"--model {model}: expected the folder of a model or a Hub name, got a file. Name one."
        )
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
