"""dvc.yaml against the code: every gdc module that a stage reaches is one of its dependencies."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.curate import PHASES
from tests.builders import REPOSITORY

STAGES = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def module_file(name: str) -> Path | None:
    """File of a gdc module, relative to the repository; None for the package itself."""
    path = REPOSITORY.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists() and name not in {"gdc", "gdc.stages"}:
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


def reached(stage: str) -> set[Path]:
    todo, seen = [Path(f"gdc/stages/{stage}.py")], set()
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imported(file)
    return seen


@pytest.mark.parametrize("stage", [stage for phase in PHASES for stage in phase])
def test_a_stage_depends_on_exactly_the_modules_it_reaches(stage: str) -> None:
    listed = {Path(dep) for dep in STAGES[stage]["deps"] if dep.startswith("gdc/")}
    folders = {path for path in listed if any((REPOSITORY / path).glob("*.py"))}
    needed = reached(stage)
    by_folder = {file for file in needed if any(folder in file.parents for folder in folders)}
    modules = {path for path in listed - folders if path.suffix == ".py"}
    assert modules == needed - by_folder
    assert all(any(folder in file.parents for file in needed) for folder in folders)


def test_the_phases_are_the_stages_in_a_topological_order() -> None:
    assert sorted(stage for phase in PHASES for stage in phase) == sorted(STAGES)
    made: list[str] = []
    for phase in PHASES:
        for stage in phase:
            for path in [dep for dep in STAGES[stage]["deps"] if not dep.startswith("gdc/")]:
                stem = path.split("${")[0]
                found = any(out.startswith(stem) or stem.startswith(out) for out in made)
                assert found, (stage, path)
        for stage in phase:
            outs = [*STAGES[stage]["outs"], *STAGES[stage].get("metrics", [])]
            made += [out.split("${")[0] for out in outs]


def test_the_report_depends_on_its_template() -> None:
    assert "gdc/templates" in STAGES["report"]["deps"]


def test_outputs_keep_the_run_cache_usable() -> None:
    for stage in STAGES.values():
        assert all(isinstance(out, str) for out in stage["outs"] + stage.get("metrics", []))
