"""The reference pages say what the code says, and nothing is missing."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
import typer

import gdc
from docs.hooks import reference
from docs.hooks.parameters import parameters_page
from docs.hooks.schema_comments import schema_comments
from docs.hooks.wording import as_markdown, first_sentence
from gdc import cli, schema, scores
from gdc.config import Params
from gdc.errors import EXIT_CODES
from gdc.report.model import AuditReport, Hotspot, Report
from tests.builders import REPOSITORY


def section(page: str, title: str) -> str:
    """What stands below a heading of the second level."""
    _, _, rest = page.partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def row(table: str, key: str) -> list[str]:
    """The cells of a table's row beside its key."""
    (found,) = re.findall(rf"^\| `{key}` \|(.+)\|$", table, re.MULTILINE)
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found)]


def test_every_command_stands_there_with_its_options() -> None:
    page = reference.commands_page()
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert {"run", "map", "audit", "show"} <= set(commands)
    for name in [name for name, command in commands.items() if not command.hidden]:
        assert f"\n## gdc {name}\n" in page
    told = section(page, "gdc map")
    assert "--score" in told
    assert "A further score of the losses; may be repeated." in told.replace("\n", " ")
    assert "trace <" in told.lower()


def test_every_parameter_stands_there_with_type_and_bounds() -> None:
    page = parameters_page()
    for key in Params.model_fields:
        row(section(page, "params.yaml"), key)
    share, hundred = row(section(page, "spans"), "p_value"), "Share of like held-out tokens that"
    assert share[:2] == ["`number`", "> 0, < 1"]
    assert share[2].startswith(hundred)
    arm = section(page, "intervene.arms (rule: top-fraction)")
    assert row(arm, "fraction")[:2] == ["`number`", ">= 0, < 1"]
    assert row(section(page, "train"), "seeds")[:2] == [
        "`list of integer`", "at least 1 long, each >= 0, each <= 9,223,372,036,854,775,807",
    ]  # fmt: skip
    assert row(section(page, "score"), "mode")[0] == "`online or probe`"
    assert row(section(page, "ingest"), "max_samples")[:2] == [
        "`integer or null`", ">= 2, <= 2,147,483,647",
    ]  # fmt: skip


def test_every_parameter_says_what_it_is() -> None:
    keys = re.findall(r"^\| `(\w+)` \|.*\|  \|$", parameters_page(), re.MULTILINE)
    assert keys == []


def test_every_score_stands_there_with_source_and_cost() -> None:
    page = reference.scores_page()
    for name in scores.REGISTRY:
        told = section(page, name)
        assert f"Cost class: {scores.cost_class(name)}." in told
    assert "arXiv:2509.00083" in section(page, "forget")
    assert "Needs beside the trace: `references`." in section(page, "reference_gap")


def test_every_table_stands_there_with_its_columns_and_comments() -> None:
    page = reference.tables_page()
    tables = {name: t for name, t in vars(schema).items() if isinstance(t, pl.Schema)}
    assert {"CORPUS", "SCORES", "PLAN"} <= set(tables)
    for name, columns in tables.items():
        for column, dtype in columns.items():
            assert row(section(page, name), column)[0] == f"`{dtype}`"
    assert row(section(page, "PLAN"), "weight")[1] == (
        "factor of the sample's loss; 0 for a dropped sample"
    )
    assert "`data/corpus.parquet`" in section(page, "CORPUS")
    assert "`data/audits/<arm>-<seed>.parquet`" in section(page, "AUDIT")
    assert set(reference.CELLS) <= set(tables)


def test_the_form_of_a_trace_stands_there_as_code() -> None:
    page = reference.trace_page()
    before, code, after = page.split("```")
    assert before.endswith("whichever program wrote it:\n\n")
    assert code.startswith("text\ncheckpoints.parquet        required")
    assert "\n    learning_rate  Float64" in code
    assert after.startswith("\n\nColumns have this order")
    assert "`gdc map`" in after


def test_comments_beside_and_above_a_column_belong_to_it(tmp_path: Path) -> None:
    module = tmp_path / "tables.py"
    module.write_text(
        "# Of a table.\n"
        "# In two lines.\n"
        "TABLE: Final = pl.Schema(\n"
        "    {\n"
        '        "a": pl.Int64,  # beside\n'
        "        # above\n"
        "        # it\n"
        '        "b": pl.Int64,\n'
        '        "c": pl.Int64,\n'
        "    }\n"
        ")\n"
        "# Of one line.\n"
        'SHORT: Final = pl.Schema({"a": pl.Int64})\n',
        encoding="utf-8",
    )
    comments = schema_comments(module)
    assert comments["TABLE"].text == "Of a table. In two lines."
    assert comments["TABLE"].columns == {"a": "beside", "b": "above it", "c": ""}
    assert comments["SHORT"].text == "Of one line."
    assert comments["SHORT"].columns == {}


def test_every_exit_code_stands_there_with_its_errors() -> None:
    rows = [line for line in reference.exit_codes_page().splitlines() if line.startswith("|")]
    lines = {line.split("|")[1].strip(): line for line in rows}
    assert {str(code) for code in EXIT_CODES} <= set(lines)
    assert "`TransientError`:" in lines["75"]
    assert [name in lines["2"] for name in ("ConfigError", "DataError", "SchemaError")] == [
        True
    ] * 3
    assert "`" not in lines["0"]


def test_the_report_stands_there_with_every_key_and_its_schema() -> None:
    page = reference.report_page()
    for title, of in (("gdc run", Report), ("gdc audit", AuditReport)):
        told = section(page, title)
        assert all(len(row(told, key)) == 1 for key in of.model_fields)
        schema = json.loads(told.split("```json")[1].split("```")[0])
        assert set(schema["properties"]) == set(of.model_fields)


def test_a_key_of_the_report_is_told_by_its_own_words_or_by_those_of_its_type() -> None:
    told = section(reference.report_page(), "gdc run")
    assert row(told, "arms") == ["In the order of `retrain.arms`."]
    assert row(told, "hotspots") == [first_sentence(Hotspot.__doc__)]


def test_every_public_name_stands_there_with_its_arguments() -> None:
    page = reference.python_page()
    for name in set(gdc.__all__) - {"__version__"}:
        section(page, name)
    told = section(page, "load_trace")
    assert "load_trace(folder: 'str | Path', mode: 'str | None' = None)" in told or (
        "load_trace(folder: str | pathlib.Path, mode: str | None = None)" in told
    )
    assert "- `mode`: Checkpoints whose losses are wanted, `online` or `probe`; None: all" in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [("``a<b>`` and <c>", "`a<b>` and &lt;c>"), ("`x_<y>`", "`x_<y>`"), ("plain", "plain")],
)
def test_docstrings_become_markdown(text: str, expected: str) -> None:
    assert as_markdown(text) == expected


def test_every_variable_of_the_environment_is_told() -> None:
    page = (REPOSITORY / "docs/reference/environment.md").read_text(encoding="utf-8")
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("gdc", "tasks", "flows")
        for path in (REPOSITORY / folder).rglob("*.py")
    )
    used = set(re.findall(r'"(GDC_[A-Z_]+)"', code))
    assert used
    assert used == set(re.findall(r"`(GDC_[A-Z_]+)`", page))
