"""The sections of params.yaml -> a page: key, type, bounds, description."""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.hooks.wording import GENERATED, first_paragraph
from gdc import config
from gdc.statistics.markdown import table


def parameters_page() -> str:
    """Every section of params.yaml: key, type, bounds, description."""
    intro = (
        "Everything that changes results stands in `params.yaml`. There are no defaults in the "
        "code: a missing or misspelt key is an error. `gdc init PRESET` writes a whole file with "
        "a comment for each key ([presets](../guides/presets.md))."
    )
    parts = ["# Parameters", GENERATED, intro]
    for title, model in sections(config.Params, ""):
        parts += [f"## {title or 'params.yaml'}", first_paragraph(model.__doc__)]
        rows = [
            (f"`{key}`", f"`{type_name(field.annotation)}`", bounds(field), description(field))
            for key, field in model.model_fields.items()
        ]
        parts.append(table(("key", "type", "bounds", "what it is"), rows))
    return "\n\n".join(parts) + "\n"


def sections(model: type[BaseModel], name: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A section and all sections below it, with their keys; a choice names what chooses it."""
    yield name, model
    for key, field in model.model_fields.items():
        below = list(dict.fromkeys(models_in(field.annotation)))
        for child in below:
            title = ".".join(filter(None, (name, key)))
            if len(below) > 1:
                title += f" ({chooser(child)})"
            yield from sections(child, title)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def chooser(model: type[BaseModel]) -> str:
    """The key and value by which a section is chosen among others, such as ``kind: jsonl``."""
    for key in ("kind", "rule"):
        if key in model.model_fields:
            values = get_args(model.model_fields[key].annotation)
            return f"{key}: {' or '.join(map(str, values))}"
    raise ValueError(f"{model.__name__}: expected a key 'kind' or 'rule' that chooses it")


def type_name(annotation: Any) -> str:
    """A type in the words of a YAML file."""
    origin, parts = get_origin(annotation), get_args(annotation)
    names = [str(part) if origin is Literal else type_name(part) for part in type_parts(annotation)]
    if origin in {Union, types.UnionType, Literal}:
        return " or ".join(dict.fromkeys(names))
    if origin in {tuple, dict}:
        return f"{'list' if origin is tuple else 'mapping'} of {' to '.join(names)}"
    if parts:  # Annotated
        return names[0]
    if issubclass(annotation, BaseModel):
        return "section"
    return _NAMES[annotation]


def type_parts(annotation: Any) -> tuple[Any, ...]:
    """The types or values that a type is made of; the dots of ``tuple[x, ...]`` are none."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return parts[:1]
    return tuple(part for part in parts if part is not Ellipsis)


_NAMES: Final[Mapping[Any, str]] = {
    str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null",
}  # fmt: skip


def bounds(field: FieldInfo) -> str:
    """The bounds of a value, and of the items of a list."""
    told = [bound for part in field.metadata for bound in bounds_of(part)]
    for part, is_item in parts_of(field.annotation, is_item=False):
        found = [b for piece in getattr(part, "__metadata__", ()) for b in bounds_of(piece)]
        told += [f"each {bound}" if is_item else bound for bound in found]
    return ", ".join(dict.fromkeys(told)) or "-"


def parts_of(annotation: Any, *, is_item: bool) -> Iterator[tuple[Any, bool]]:
    """A type and the types it is made of but for sections, and whether a list or mapping has it."""
    yield annotation, is_item
    is_within = is_item or get_origin(annotation) in {tuple, dict}
    for part in get_args(annotation):
        if not list(models_in(part)):
            yield from parts_of(part, is_item=is_within)


def bounds_of(part: Any) -> Iterator[str]:
    """The bounds that one piece of a field's metadata says, in words."""
    words = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    metadata = part.metadata if isinstance(part, FieldInfo) else [part]
    for piece in metadata:
        for name, sign in words.items():
            if (value := getattr(piece, name, None)) is not None:
                yield f"{sign} {value:,}"
        if (length := getattr(piece, "min_length", None)) is not None:
            yield f"at least {length} long"
        if (length := getattr(piece, "max_length", None)) is not None:
            yield f"at most {length} long"
        if (pattern := getattr(piece, "pattern", None)) is not None:
            yield f"matches `{pattern}`"


def description(field: FieldInfo) -> str:
    """What a key says of itself; the sections below a key say it for it."""
    if field.description:
        return field.description
    if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
        return "Chooses this section."
    below = list(models_in(field.annotation))
    if len(below) == 1:
        return first_paragraph(below[0].__doc__)
    return "One of the sections below." if below else ""
