"""Text, JSON, YAML and params -> files of a workspace, and back.

Every file appears under its name complete or not at all: it is written beside its place and moved.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gdc.config import Params, parse_params
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.filesystem.durable import new_file
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import irregular_kind, require_file
from gdc.workspace.paths import PARAMS

Form = TypeVar("Form")


def load_params() -> Params:
    """Read and validate ``params.yaml`` of the current folder.

    Raises:
        ConfigError: The file is missing, is not YAML, or has a wrong value.
    """
    return parse_params(parse_yaml(read_text(PARAMS), PARAMS), name=str(PARAMS))


def read_text(path: Path) -> str:
    """Read a text of the workspace that a person may edit.

    Raises:
        ConfigError: There is none, or it is not UTF-8.
    """
    try:
        found = irregular_kind(path)
        if found is not None:
            raise ConfigError(
                f"{path}: expected a file, got {found}. Move it away, then write one: gdc init docs"
            )
        # As bytes: the ends of its lines stay as they are.
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found in {Path.cwd()}. Run this in the project folder, "
            "or write one: gdc init docs"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, got another encoding: {error}") from None


def parse_yaml(text: str, path: Path) -> JsonObject:
    """The mapping in ``text``, which stands in ``path``."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{path}: not YAML that can be read: a number too long, or too many levels"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(value).__name__}")
    return value


def read_json(path: Path, again: str = "Make it again: gdc run.") -> JsonObject:
    """Read a JSON object that a stage, or what ``again`` says, wrote.

    Raises:
        SchemaError: There is no such file.
        DataError: It holds something else.
    """
    try:
        require_file(path)
        content = path.read_bytes()
    except FileNotFoundError:
        raise SchemaError(f"{path}: not found. Run the stage that writes it: gdc run.") from None
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}. {again}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, got {type(value).__name__}. {again}")
    return value


def read_as(form: type[Form], path: Path) -> Form:
    """Read a JSON object that a stage wrote as a pydantic model or a dataclass.

    Raises:
        SchemaError: There is no such file.
        DataError: It holds something else.
    """
    return parse_json(form, read_json(path), path)


def parse_json(form: type[Form], content: JsonObject, path: Path) -> Form:
    """Turn the content of a JSON file into a pydantic model or a dataclass.

    Raises:
        DataError: The content is of another form.
    """
    try:
        return TypeAdapter(form).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {key}: expected what gdc run writes there, got another value "
            f"({first['msg']}). Make it again: gdc run."
        ) from None


def write_json(path: Path, value: JsonObject) -> None:
    """Write a JSON object with sorted keys; equal content gives equal bytes.

    Raises:
        DataError: A number is not finite, of which JSON has none.
    """
    odd = next(_not_finite(value), None)
    if odd is not None:
        raise DataError(
            f"{path}: expected finite numbers, got {odd[1]} for {odd[0]}: the model or the losses "
            "behind it have diverged. Lower training.learning_rate, or mend the losses."
        )
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _not_finite(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """The names of the numbers in nested objects and lists that are not finite, and these."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{name}[{i}]")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
