"""Targets and what each needs; and dvc.yaml against the code that each of its stages depends on."""

import ast
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gdc.errors import ConfigError
from gdc.workspace import code_digests
from tasks.graph import Graph, load_graph, parse_status
from tests.builders import REPOSITORY

pytestmark = pytest.mark.slow

STAGES = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def module_file(name: str) -> Path | None:
    """File of a gdc module, relative to the repository; None for the package itself."""
    path = REPOSITORY.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists() and name != "gdc":
            return file.relative_to(REPOSITORY)
    return None


def imported(file: Path) -> set[Path]:
    """Files of the gdc modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {module_file(name) for name in names if name.split(".")[0] == "gdc"}
    return {found for found in files if found is not None}


def walked(stage: str) -> set[Path]:
    todo, seen = [Path(f"gdc/stages/{stage}.py")], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imported(file)
    return seen


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_reaches_what_a_walk_of_its_imports_finds(stage: str) -> None:
    (found,) = code_digests.reached([REPOSITORY / f"gdc/stages/{stage}.py"])
    modules = {path.relative_to(REPOSITORY) for path in found if path.suffix == ".py"}
    assert modules == walked(stage)


def test_every_stage_depends_on_its_own_digest() -> None:
    for stage, entry in STAGES.items():
        if stage != "manifest":
            assert f"data/code/{stage}.json" in entry["deps"], stage
            # `dvc params diff` is for what a person changes.
            assert all(isinstance(name, str) for name in entry.get("params", []))
    assert set(code_digests.code_digests()) == set(STAGES) - {"manifest"}


def test_outputs_keep_the_run_cache_usable() -> None:
    for stage in STAGES.values():
        assert all(isinstance(out, str) for out in stage["outs"] + stage.get("metrics", []))


# ---- targets

CHAIN = Graph(
    {
        "ingest": frozenset(),
        "retrain@none-1": frozenset({"ingest"}),
        "retrain@paper-1": frozenset({"ingest"}),
        "report": frozenset({"retrain@none-1", "retrain@paper-1"}),
    }
)


@pytest.mark.parametrize(
    ("changed", "unchanged"),
    [
        pytest.param(set(), set(CHAIN.upstream), id="nothing changed"),
        pytest.param({"ingest"}, set(), id="all below a change is suspect"),
        pytest.param({"retrain@none-1"}, {"ingest", "retrain@paper-1"}, id="siblings are not"),
    ],
)
def test_a_target_is_unchanged_only_with_all_its_ancestors(
    changed: set[str], unchanged: set[str]
) -> None:
    assert CHAIN.unchanged(changed) == unchanged


def test_a_target_is_below_all_that_it_depends_on() -> None:
    assert CHAIN.above("report") == {"ingest", "retrain@none-1", "retrain@paper-1"}
    assert CHAIN.above("ingest") == set()


def test_a_stage_that_always_runs_counts_as_changed_only_when_its_files_are() -> None:
    status = {
        "manifest": ["always changed"],
        "ingest": [{"changed outs": {"data/corpus.parquet": "deleted"}}, "always changed"],
        "train@0": [{"changed deps": {"data/corpus.parquet": "modified"}}],
    }
    assert parse_status(json.dumps(status)) == {"ingest", "train@0"}


def test_the_toy_graph_is_read_with_its_edges(toy: Path) -> None:
    assert load_graph(toy).upstream == {
        "manifest": frozenset(),
        "retrain@none": {"manifest"},
        "retrain@paper": {"manifest"},
        "report": {"retrain@none", "retrain@paper"},
    }


def test_a_folder_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not inside of a DVC repository.*gdc init"):
        load_graph(tmp_path)


def test_a_graph_that_dvc_cannot_read_is_refused_without_advice_to_write_another(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages:\n  manifest: {cmd: [}\n")
    with pytest.raises(ConfigError, match=r"dvc\.yaml: (?!.*gdc init).*`dvc status`"):
        load_graph(toy)
