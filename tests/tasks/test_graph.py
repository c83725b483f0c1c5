"""dvc.yaml against the code that each of its stages depends on."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gdc.workspace import code_digests
from tests.builders import REPOSITORY

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
            assert {"data/code.json": [stage]} in entry["params"], stage
    assert set(code_digests.code_digests()) == set(STAGES) - {"manifest"}


def test_outputs_keep_the_run_cache_usable() -> None:
    for stage in STAGES.values():
        assert all(isinstance(out, str) for out in stage["outs"] + stage.get("metrics", []))
