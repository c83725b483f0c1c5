"""The code -> the reference pages: commands, parameters, scores, tables, report, exit codes."""

import ast
import importlib
import inspect
import io
import json
import re
import tokenize
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import gdc
from gdc import cli, config, errors, schema, scores
from gdc.recording import trace
from gdc.workspace import paths, tables

REPOSITORY: Final = Path(__file__).resolve().parents[2]
GENERATED: Final = "*This page is generated from the code when the site is built.*"

# ---- commands


def commands_page() -> str:
    """The help of every command, as the terminal prints it."""
    root = typer.main.get_command(cli.app)
    parts = ["# Commands", GENERATED]
    for name, command in walk(root, "gdc"):
        # Without a terminal's frames and colours; typer's own help draws boxes.
        with click.Context(command, info_name=name, terminal_width=92, max_content_width=92) as of:
            text = plain_help(command, of)
        parts += [f"## {name}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """A command and all below it, with their full names."""
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from walk(below, f"{name} {child}")


def plain_help(command: Any, context: click.Context) -> str:
    """Usage, description, arguments, options and commands below, without boxes."""
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Commands": []}
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            is_argument = parameter.param_type_name == "argument"
            rows["Arguments" if is_argument else "Options"].append(record)
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            rows["Commands"].append((name, below.get_short_help_str(limit=200)))
    for title, records in rows.items():
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
    return formatter.getvalue().rstrip()


# ---- parameters


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


# ---- scores


def scores_page() -> str:
    """Every score of the registry with its formula, source, needs and cost."""
    intro = (
        "Every score gives one number for each sample: the higher, the more the sample is taken to "
        "be memorized. `score.enabled` in `params.yaml` names those that are written. What each is "
        "worth is measured on [the leaderboard](../results/leaderboard.md)."
    )
    rows = [
        (f"[`{name}`](#{name})", scores.cost_class(name), first_sentence(score.function.__doc__))
        for name, score in scores.REGISTRY.items()
    ]
    parts = ["# Scores", GENERATED, intro, table(("score", "needs", "what it is"), rows)]
    for name, score in scores.REGISTRY.items():
        needs = ", ".join(f"`{need}`" for need in sorted(score.needs)) or "nothing else"
        parts += [
            f"## {name}",
            as_markdown(inspect.cleandoc(score.function.__doc__ or "")),
            f"Cost class: {scores.cost_class(name)}. Needs beside the trace: {needs}.",
        ]
    return "\n\n".join(parts) + "\n"


# ---- tables


def tables_page() -> str:
    """Every table of gdc/schema.py: its file, columns, types and comments."""
    intro = (
        "All tables are plain Parquet. Their columns are checked on every read and write. Losses "
        "are cross-entropies in nats per token. One row is one sample unless a table says "
        "otherwise."
    )
    parts = ["# Tables", GENERATED, intro]
    for name, said in schema_comments(Path(inspect.getfile(schema))).items():
        columns = getattr(schema, name)
        rows = [
            (f"`{column}`", f"`{dtype}`", said.columns.get(column, ""))
            for column, dtype in columns.items()
        ]
        places = ", ".join(f"`{file}`" for file in files_of(name))
        parts += [f"## {name}", *filter(None, [places, said.text])]
        parts.append(table(("column", "type", "what it is"), rows))
    return "\n\n".join(parts) + "\n"


def files_of(name: str) -> list[str]:
    """Where a table lies; one that passes from function to function has no file."""
    schema_of = getattr(schema, name)
    return [str(path) for path, contract in tables.TABLES.values() if contract is schema_of] or [
        str(path) for path in CELLS.get(name, [])
    ]


_TRACE: Final = paths.trace_path("<seed>")  # type: ignore[arg-type]  # a placeholder
CELLS: Final[Mapping[str, Sequence[Path]]] = {
    "TRACE_INDEX": [_TRACE / "train/index.parquet", _TRACE / "heldout/index.parquet"],
    "CHECKPOINTS": [_TRACE / "checkpoints.parquet"],
    "TOKEN_LOSSES": [_TRACE / "tokens.parquet", _TRACE / "heldout_tokens.parquet"],
    "SELF_INFLUENCE": [_TRACE / "self_influence.parquet"],
    "REFERENCE_LOSS": [paths.REFERENCE_FOLDER / "<model>.parquet"],
    "PLAN": [paths.plan_path("<arm>")],
    "AUDIT": [paths.audit_path("<arm>", "<seed>")],  # type: ignore[arg-type]  # a placeholder
    "MEMBERSHIP": [paths.membership_path("<arm>", "<seed>")],  # type: ignore[arg-type]  # so too
}
"""Where the tables lie of which there is one for each of several cells."""


def trace_page() -> str:
    """The form of a trace, as its module documents it."""
    text = inspect.cleandoc(trace.__doc__ or "")
    intro = "What `gdc map` reads and every recorder writes ([guide](../guides/own-trace.md))."
    return f"# The form of a trace\n\n{GENERATED}\n\n{intro}\n\n{fenced(text)}\n"


def fenced(text: str) -> str:
    """A docstring whose blocks after ``::`` become fenced code."""
    lines: list[str] = []
    is_open = False
    for line in text.splitlines():
        if is_open and line and not line.startswith(" "):
            is_open = False
            lines.insert(len(lines) - 1, "```")
        if line.endswith("::") and not is_open:
            is_open = True
            lines += [as_markdown(line.removesuffix(":")), "", "```text"]
        elif not (is_open and lines[-1] == "```text" and not line):
            lines.append(line.removeprefix("    ") if is_open else as_markdown(line))
    return "\n".join([*lines, "```"] if is_open else lines)


class Comments:
    """What the comments of a schema say of the table and of each column."""

    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self.text = text
        self.columns = columns


def schema_comments(path: Path) -> dict[str, Comments]:
    """For each ``pl.Schema`` of a module, in order, its comments."""
    source = path.read_text(encoding="utf-8")
    comments, alone = comment_lines(source)
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        if ast.unparse(node.value.func) != "pl.Schema" or not isinstance(node.target, ast.Name):
            continue
        columns = {}
        keys = node.value.args[0]
        if not isinstance(keys, ast.Dict):
            raise TypeError(f"{path}: expected a dict of columns in {node.target.id}")
        for key in keys.keys:
            # A schema on one line has no comments of its columns.
            if isinstance(key, ast.Constant) and key.lineno > node.lineno:
                beside = comments.get(key.lineno, "") if key.lineno not in alone else ""
                told = [above(key.lineno, comments, alone), beside]
                columns[str(key.value)] = as_markdown(" ".join(filter(None, told)))
        text = as_markdown(above(node.lineno, comments, alone))
        found[node.target.id] = Comments(text, columns)
    return found


def comment_lines(source: str) -> tuple[dict[int, str], set[int]]:
    """The comment of each line that has one, and the lines that hold nothing else."""
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line[: token.start[1]].strip() == "":
                alone.add(token.start[0])
    return comments, alone


def above(line: int, comments: Mapping[int, str], alone: set[int]) -> str:
    """The comment lines directly above a line."""
    first = line
    while first - 1 in alone:
        first -= 1
    return " ".join(comments[number] for number in range(first, line))


# ---- report, exit codes, environment


def report_page() -> str:
    """The JSON schema of report.json, from its model."""
    try:
        model = importlib.import_module("gdc.report.model")
    except ModuleNotFoundError:
        return "# report.json\n\nThe report has no typed model in this version.\n"
    text = json.dumps(model.Report.model_json_schema(), indent=2)
    intro = "`reports/report.json` holds everything that the report shows, for programs."
    return f"# report.json\n\n{GENERATED}\n\n{intro}\n\n```json\n{text}\n```\n"


def exit_codes_page() -> str:
    """Every exit code, with the errors that end a command with it."""
    rows = []
    for code, meaning in errors.EXIT_CODES.items():
        found = [e for e in subclasses(errors.GdcError) if e.exit_code == code]
        told = [f"`{e.__name__}`: {first_paragraph(e.__doc__)}" for e in found]
        rows.append((str(code), meaning, " ".join(told)))
    intro = "An error prints one message: where, what was expected, what was found, and what to do."
    head = ("code", "meaning", "errors of `import gdc`")
    return f"# Exit codes\n\n{GENERATED}\n\n{intro}\n\n{table(head, rows)}\n"


def python_page() -> str:
    """The public names of ``import gdc``: signature and docstring."""
    intro = (
        "`import gdc` takes no time: what is heavy is imported when a name is first used. The "
        "names below are the public ones."
    )
    parts = ["# Python", GENERATED, intro]
    for name in gdc.__all__:
        value = getattr(gdc, name)
        if inspect.isfunction(value):
            signature = f"{name}{inspect.signature(value, eval_str=False)}"
            parts += [f"## {name}", f"```text\n{signature}\n```", documented(value.__doc__)]
        elif isinstance(value, type):
            parts += [f"## {name}", first_paragraph(value.__doc__)]
    return "\n\n".join(parts) + "\n"


def documented(docstring: str | None) -> str:
    """A docstring of Google's style: its sections become bold words and lists."""
    lines = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        if line in {"Args:", "Returns:", "Raises:", "Attributes:"}:
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif entry := re.fullmatch(r"    (\w+): (.+)", line):
            lines.append(f"- `{entry[1]}`: {as_markdown(entry[2])}")
        else:
            lines.append(as_markdown(line.strip()))
    return "\n".join(lines)


def subclasses(error: type[errors.GdcError]) -> Iterator[type[errors.GdcError]]:
    """An error and all below it."""
    yield error
    for below in error.__subclasses__():
        yield from subclasses(below)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar or a line end in a cell breaks none."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return as_markdown(" ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split()))


def first_sentence(docstring: str | None) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", first_paragraph(docstring))[0]


def as_markdown(text: str) -> str:
    """Double backticks become Markdown's single ones; what looks like HTML is escaped."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(
        f"`{part.strip('`')}`" if part.startswith("`") else part.replace("<", "&lt;")
        for part in parts
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "commands": commands_page,
    "parameters": parameters_page,
    "scores": scores_page,
    "tables": tables_page,
    "trace": trace_page,
    "report": report_page,
    "exit-codes": exit_codes_page,
    "python": python_page,
}
