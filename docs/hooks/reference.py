"""The code -> the reference pages: commands, parameters, scores, tables, report, exit codes."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import click
import typer

import gdc
from docs.hooks.parameters import parameters_page
from docs.hooks.schema_comments import schema_comments
from docs.hooks.wording import (
    GENERATED,
    argument_lines,
    as_markdown,
    documented,
    fenced,
    first_paragraph,
    first_sentence,
)
from gdc import cli, errors, schema, scores
from gdc.recording import trace
from gdc.report import model
from gdc.statistics.markdown import table
from gdc.workspace import paths, tables

REPOSITORY: Final = Path(__file__).resolve().parents[2]

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
    "REFERENCE_LOSS": [paths.REFERENCE_FOLDER / "<model>.parquet", _TRACE / "base.parquet"],
    "REVISED_WEIGHTS": [paths.weights_path("<arm>", "<seed>")],  # type: ignore[arg-type]  # so too
    "REFERENCE_TOKENS": [paths.reference_tokens_path("<model>")],
    "SAMPLES": [paths.SAMPLES],
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


# ---- report, exit codes, environment


def report_page() -> str:
    """The keys of report.json, and the JSON schemas of it and of the report of an audit."""
    intro = (
        "`reports/report.json` holds everything that the report shows, for programs; "
        "`gdc audit` writes a `report.json` of its own. A file of another `schema_version` is "
        "refused."
    )
    parts = ["# report.json", GENERATED, intro]
    for title, of in (("gdc run", model.Report), ("gdc audit", model.AuditReport)):
        told = argument_lines(of.__doc__)
        rows = [
            (f"`{key}`", told.get(key) or " ".join(told_by_type(field.annotation)))
            for key, field in of.model_fields.items()
        ]
        text = json.dumps(of.model_json_schema(), indent=2)
        parts += [f"## {title}", first_paragraph(of.__doc__), table(("key", "what it is"), rows)]
        parts += [f"### JSON schema of {title}", f"```json\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def told_by_type(annotation: Any) -> Iterator[str]:
    """What our own types in an annotation say of themselves, by their first sentences."""
    if isinstance(annotation, type) and annotation.__module__.startswith("gdc."):
        yield first_sentence(annotation.__doc__)
    for part in get_args(annotation):
        yield from told_by_type(part)


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


def subclasses(error: type[errors.GdcError]) -> Iterator[type[errors.GdcError]]:
    """An error and all below it."""
    yield error
    for below in error.__subclasses__():
        yield from subclasses(below)


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
