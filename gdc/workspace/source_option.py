"""The value of ``--source`` -> ``ingest.source``, in params.yaml or by itself."""
# `gdc --help` must answer at once:
# ruff: noqa: PLC0415

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gdc.errors import ConfigError, DataError
from gdc.filesystem.path_checks import require_file

if TYPE_CHECKING:
    from gdc.config import Params, Source

_SOURCE: Final = "--source"
_TEXT_FIELD: Final = "text"


def describe_source(source: str, text_field: str, option: str = _SOURCE) -> dict[str, str | None]:
    """The value of ``ingest.source`` that reads a file or folder.

    Args:
        source: Its path, or ``python-docs``.
        text_field: The field that holds the text; where rows are conversations and have no such
            field, or it is a part of them, they are read as such. Or templates, ``PROMPT=>ANSWER``
            with fields in braces.
        option: What an error names.

    Raises:
        DataError: Nothing is there, or nothing that can be read.
    """
    from gdc.corpus.sources import huggingface

    if source == "python-docs":
        return {"kind": "python-docs"}
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"{option} {source}: not found in {Path.cwd()}. Mend the path.{_more(option)}"
        )
    if not path.is_dir():
        require_file(path, f"{option} {source}")
    kind = _kind_at(path, option)
    if kind not in {"text", "tokens"} and (chat := _describe_chat(source, text_field)) is not None:
        return chat
    if kind == "text":
        return {"kind": kind, "path": source, "unit": "paragraph"}
    if kind == "tokens":
        return _describe_tokens(path)
    if kind == huggingface.KIND:
        more = {"name": None, "split": "train", "revision": None}
        return {"kind": kind, "path": source, **more, "text_field": text_field}
    return {"kind": kind, "path": source, "text_field": text_field, "key_field": None}


def _describe_tokens(path: Path) -> dict[str, str | None]:
    """The value for files of token ids: with an index beside them, else as nanoGPT writes them."""
    from gdc.corpus.sources.folders import find_files
    from gdc.corpus.token_files import IDS, guess_dtype, index_of

    first = next(
        (file.path for file in find_files(str(path), "tokens").files if file.path.suffix == IDS),
        path,
    )
    dtype = None if index_of(first).exists() else guess_dtype(first)
    return {"kind": "tokens", "path": str(path), "dtype": dtype, "separator": None}


def _describe_chat(source: str, text_field: str) -> dict[str, str | None] | None:
    """The value for rows that are conversations; None: they are texts."""
    from gdc.config import ChatSource
    from gdc.corpus import sources
    from gdc.corpus.sources import conversations

    prompt, arrow, completion = text_field.partition("=>")
    described: dict[str, str | None] = {
        "kind": "chat", "path": source, "turns": None, "prompt": prompt if arrow else None,
        "completion": completion if arrow else None, "chat_template": "tokenizer",
        "key_field": None,
    }  # fmt: skip
    if arrow:
        return described
    try:
        fields = sources.first_fields(ChatSource.model_validate(described))
    except DataError:
        return None  # whoever reads it says what is wrong with it
    if not conversations.is_conversation(text_field, fields):
        return None
    return {**described, "turns": None if text_field == _TEXT_FIELD else text_field}


def _kind_at(path: Path, option: str) -> str:
    from gdc.corpus.sources import folders, huggingface
    from gdc.corpus.sources.endings import ENDINGS, listed_endings

    kinds = folders.kinds_at(path)
    if len(kinds) == 1:
        return next(iter(kinds))
    if not kinds and huggingface.is_saved(path):
        return huggingface.KIND
    expected = "; ".join(f"{kind}: {listed_endings(kind)}" for kind in ENDINGS)
    raise DataError(
        f"{option} {path}: expected a file, a folder of one kind ({expected}), a saved data set of "
        f"Hugging Face, or python-docs, got {_found_at(path, kinds)}.{_more(option)}"
    )


def _more(option: str) -> str:
    # An audit reads no params.yaml.
    return " Other sources: ingest.source in params.yaml." if option == _SOURCE else ""


def _found_at(path: Path, kinds: Mapping[str, int]) -> str:
    """What is there instead of a source, and what to do."""
    from gdc.corpus.sources.endings import ending_of
    from gdc.corpus.sources.wrong_formats import is_array

    if kinds:
        counts = " and ".join(f"{num} {kind}" for kind, num in sorted(kinds.items()))
        return f"a folder with files of several kinds: {counts}. Name a folder of one of them"
    if path.is_dir():
        return "a folder with none of them"
    if ending_of(path.name) == ".json":
        program = ".[]" if is_array(path) else "."
        return f"a .json file. Make JSON lines of it: jq -c '{program}' FILE > NEW.jsonl"
    if ending_of(path.name) in {".csv", ".tsv"}:
        separator = ", separator='\\t'" if ending_of(path.name) == ".tsv" else ""
        return (
            f'a {ending_of(path.name)} file. Make JSON lines of it: python -c "import polars; '
            f"polars.read_csv('FILE'{separator}).write_ndjson('NEW.jsonl')\""
        )
    return path.suffix or "no suffix"


def source_of(source: str, text_field: str, option: str) -> "Source":
    """The same, typed; ``option`` is what an error names."""
    from pydantic import TypeAdapter

    from gdc import config

    adapter: TypeAdapter[Source] = TypeAdapter(config.Source)
    return adapter.validate_python(describe_source(source, text_field, option))


def write_source(source: Mapping[str, str | None]) -> None:
    """Put ``source`` into params.yaml; every other line stays as it is, with its comments.

    Raises:
        ConfigError: The file would not be valid with it; it is left as it was.
    """
    from gdc.workspace import files, paths

    text = files.read_text(paths.PARAMS)
    spliced, _ = _replaced(text, source)
    if spliced != text:
        files.write_text(paths.PARAMS, spliced)


def params_with(source: Mapping[str, str | None]) -> "Params":
    """The parameters that ``write_source`` would leave; nothing is written.

    Raises:
        ConfigError: As there.
    """
    from gdc.workspace import files, paths

    return _replaced(files.read_text(paths.PARAMS), source)[1]


def _replaced(text: str, source: Mapping[str, str | None]) -> tuple[str, "Params"]:
    """A params.yaml with another source, and what it says."""
    from gdc.config import parse_params
    from gdc.workspace import files, outputs, paths

    values = files.parse_yaml(text, paths.PARAMS)
    if isinstance(values.get("ingest"), dict):
        values["ingest"] = {**values["ingest"], "source": dict(source)}
    params = parse_params(values, name=str(paths.PARAMS))
    outputs.require_outside_outputs(params)
    spliced = _spliced(text, source)
    if spliced is None or files.parse_yaml(spliced, paths.PARAMS) != values:
        raise ConfigError(
            f"{paths.PARAMS}: expected a block `ingest.source` that can be replaced, got YAML of "
            "another form. Write there by hand: "
            f"{', '.join(f'{key}: {_scalar(value)}' for key, value in source.items())}"
        )
    return spliced, params


def _spliced(text: str, source: Mapping[str, str | None]) -> str | None:
    """``splice_source``; None where it cannot find the block."""
    from ruamel.yaml.error import YAMLError

    try:
        return splice_source(text, source)
    except (YAMLError, LookupError, AttributeError):
        # Its parser keeps comments, and refuses some of what the other one reads.
        return None


def splice_source(text: str, source: Mapping[str, str | None]) -> str:
    """Replace the block ``ingest.source`` of a params.yaml; keys that stay keep their comment."""
    from ruamel.yaml import YAML

    document = YAML().load(text)
    # Each with its end; other characters that Python takes for one end no line of YAML.
    lines = [line for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", text) if line]
    newline = "\r\n" if "\r\n" in text else "\n"
    ingest = document["ingest"]
    row, column = ingest.lc.key("source")
    after = [ingest.lc.key(key)[0] for key in ingest] + [document.lc.key(k)[0] for k in document]
    end = min((other for other in after if other > row), default=len(lines))
    # The comments above the next key are its own.
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    replaced = [line.rstrip("\r\n") for line in lines[row:end]]
    comments = {line.split(":")[0].strip(): line for line in replaced[1:] if " #" in line}
    is_block = replaced[0].rstrip().endswith("source:")
    block = [replaced[0] if is_block else f"{' ' * column}source:"]
    for key, value in source.items():
        entry = f"{' ' * (column + 2)}{key}: {_scalar(value)}"
        old = comments.get(key, "")
        block.append(f"{entry:{max(old.find(' #'), 0)}}{old[old.find(' #') :]}" if old else entry)
    return "".join([*lines[:row], *(line + newline for line in block), *lines[end:]])


def _scalar(value: str | None) -> str:
    plain = value is not None and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    keyword = value is not None and value.lower() in ("null", "true", "false")
    if value is not None and plain and not keyword:
        return value
    # JSON's pairs of escapes for one character are two characters in YAML.
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
