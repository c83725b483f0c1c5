"""Values of params.yaml to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gdc.workspace import paths
from tests.builders import REPOSITORY

SIZES = {"block_size": 16, "precision": "float32"}
PRETRAINED = {
    "kind": "pretrained", **SIZES, "name": "some/model", "revision": None, "lora": None,
    "gradient_checkpointing": False,
}  # fmt: skip


def values_of(path: Path = REPOSITORY / paths.PARAMS) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return values


def changed(changes: Mapping[str, object]) -> dict[str, Any]:
    """The repository's values with some replaced; a key is a path with dots."""
    values = values_of()
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    return values
