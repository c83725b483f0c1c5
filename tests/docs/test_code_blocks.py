"""Every code block is what it says: commands and options exist, YAML is accepted, Python runs."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gdc import cli
from gdc.config import parse_params
from gdc.workspace import traces
from tests.builders import REPOSITORY
from tests.docs.commands import check_gdc
from tests.docs.pages import (
    EXAMPLES,
    PAGES,
    Block,
    blocks,
    blocks_of,
    commands_of,
    inline_commands_of,
    name_of,
)  # fmt: skip

LANGUAGES = {"bash", "json", "mermaid", "python", "text", "yaml"}
# What our pages start besides our own; their options are looked up in their own help.
OTHERS = {"git", "mlflow", "pip", "prefect", "ray", "ssh-keygen"}
# How the parsers say that a command is wrong.
FOUND = {
    "AssertionError", "CalledProcessError", "DvcParserError", "MissingParameter", "NoSuchOption",
}  # fmt: skip


def words_of(line: str) -> list[str]:
    """The words of a shell command without its environment; none for ``export``."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return [] if words[:1] == ["export"] else words


def check_command(line: str) -> None:
    """A shell command of a page exists, with its options."""
    words = words_of(line)
    if not words:
        return
    program, arguments = Path(words[0]).name, words[1:]
    if program == "gdc":
        check_gdc(arguments)
    elif program == "make":
        subprocess.run(["make", "-n", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
    elif program == "python":
        assert arguments[0] == "-m" or (REPOSITORY / arguments[0]).is_file(), line
    elif program == "dvc":
        from dvc.cli import parse_args  # noqa: PLC0415 - takes a second

        parse_args(arguments)
    else:
        assert program in OTHERS, f"{program}: not known to this test"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language_and_none_is_left_open(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks_of(page))


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_the_commands_of_a_shell_block_exist(block: Block) -> None:
    for line in commands_of(block.text):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "gdc nothing", "gdc run --no-such-option", "gdc recommend --max-extraction 0.1",
        "GDC_DEVICE=cuda gdc map", "make no-such-target", "python benchmarks/none.py",
        "dvc no-such-command", "unknown-program",
    ],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each parser has errors of its own
        check_command(line)
    assert type(caught.value).__name__ in FOUND


# The changelog names former commands.
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name_of)
def test_the_commands_within_sentences_exist(page: Path) -> None:
    known = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert {text.split()[1] for text in inline_commands_of(page)} <= known


@pytest.mark.filterwarnings("ignore")  # of the programs, about their own code
@pytest.mark.slow
@pytest.mark.parametrize("program", ["mlflow", "prefect", "ray"])
def test_the_options_of_programs_that_we_name_exist(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for block in blocks("bash") for line in commands_of(block.text)]
    used = [words[1:] for line in lines if (words := words_of(line)) and words[0] == program]
    assert used
    # Of MLflow, two distributions name the same function.
    main = next(iter(entry_points(group="console_scripts", name=program))).load()
    for words in used:
        names = [word for word in words if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)][:2]
        names = names if program == "prefect" else names[:1]
        monkeypatch.setattr(sys, "argv", [program, *names, "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        shown = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert option in shown


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_a_yaml_block_is_accepted_as_params(block: Block) -> None:
    yaml = YAML(typ="safe")
    preset = resources.files("gdc") / "presets/docs.yaml"
    values = yaml.load(preset.read_text(encoding="utf-8"))
    part = yaml.load(block.text)
    # A choice is replaced as a whole: keys of another kind would be too many.
    for choice in {"source", "tokenizer"} & {*part.get("ingest", {})}:
        values["ingest"][choice] = {}
    if "kind" in part.get("model", {}):
        values["model"] = values["ingest"]["tokenizer"] = {}
    parse_params(merged(values, part), name=str(block))


def merged(values: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with what ``part`` says, at any depth."""
    both = {
        key: merged(values[key], value)
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
        else value
        for key, value in part.items()
    }
    return {**values, **both}


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_a_json_block_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


PYTHON_PAGES = [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))]


# The page that shows each adapter's example, and the trace that it leaves.
ADAPTERS = {
    "record_a_loop.py": ("own-trace.md", "recorded", 3),
    "record_with_accelerate.py": ("accelerate.md", "accelerated", 2),
    "record_with_lightning.py": ("lightning.md", "lit-trace", 2),
    "record_with_trl.py": ("trl.md", "trl-trace", 2),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_example_of_an_adapter_is_what_its_page_shows(name: str) -> None:
    page = REPOSITORY / "docs/guides" / ADAPTERS[name][0]
    shown = [EXAMPLES[block.text].name for block in blocks_of(page) if block.text in EXAMPLES]
    assert shown == [name]
    assert f"examples/{name}" in page.read_text(encoding="utf-8")


# What libraries say of each other there would be an error here.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
def test_the_python_of_a_page_runs_and_its_trace_can_be_mapped(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    python = [block for block in blocks_of(page) if block.language == "python"]
    # In this process, which has the imports that take seconds.
    for block in python:
        if block.text in EXAMPLES:
            runpy.run_path(str(EXAMPLES[block.text]), run_name="__main__")
    for block in python:
        if block.text not in EXAMPLES:
            # Each by itself, as who copies it has no other.
            code = compile(block.text, str(page), "exec")
            exec(code, {"__name__": "__main__"})  # noqa: S102 - our own pages
    for shown, trace, num_checkpoints in ADAPTERS.values():
        if shown == page.name:
            recorded = traces.read_folder(Path(trace))
            assert recorded.checkpoints["mode"].to_list() == ["online"] * num_checkpoints
            assert recorded.losses.collect().null_count().sum_horizontal().item() == 0
    if not Path("my-trace").exists():
        return
    lines = [line for block in blocks_of(page) for line in commands_of(block.text)]
    (command,) = [words_of(line) for line in lines if line.startswith("gdc map my-trace")]
    done = CliRunner().invoke(cli.app, command[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert Path("reports/map/scores.parquet").exists()
