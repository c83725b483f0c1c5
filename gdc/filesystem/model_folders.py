"""The local folder of a model or tokenizer -> refused where a library would hang or look elsewhere.

What lies there may be another person's: it is looked at before a library opens it.
"""

import json
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Final

from gdc.errors import ConfigError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.path_checks import irregular_kind

_INDEX: Final = "model.safetensors.index.json"
_CONFIG: Final = "config.json"
# What models call the number of their layers.
_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Bytes before the header of safetensors, which hold its length; a header is at most so long.
_LENGTH: Final = 8
_MAX_HEADER: Final = 100_000_000


def require_sound(folder: Path, where: str) -> None:
    """Refuse what is no file, and weights that lie elsewhere.

    Args:
        folder: The folder of a model or tokenizer; a name of the Hub is none.
        where: What the message begins with.

    Raises:
        ConfigError: It is such a folder.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        # A link that leads nowhere is the library's to refuse.
        with suppress(OSError):
            kind = irregular_kind(path)
            if kind not in (None, "a folder"):
                raise ConfigError(
                    f"{where}: expected regular files, got {kind}, {path.name}. Remove it."
                )
    shards = _shards(folder)
    foreign = sorted(name for name in shards if PurePath(name).name != name)
    if foreign:
        raise ConfigError(
            f"{where}: expected weights in files of the folder, got {foreign[0]!r} in {_INDEX}. "
            "Put the file into the folder, and name it so."
        )


def require_few_layers(folder: Path, where: str) -> None:
    """Refuse more layers than there are weights, which a library would make for hours.

    Raises:
        ConfigError: There are more, in a local folder.
    """
    num_layers, num_weights = _num_layers(folder), _num_weights(folder)
    if num_weights is not None and num_layers > num_weights:
        raise ConfigError(
            f"{where}: expected at most a layer for each of its {num_weights:,} weights, got "
            f"{num_layers:,} in {_CONFIG}. Give the {_CONFIG} of these weights."
        )


def _shards(folder: Path) -> set[str]:
    weight_map = _document(folder / _INDEX).get("weight_map")
    return set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()


def _num_layers(folder: Path) -> int:
    config = _document(folder / _CONFIG)
    numbers = [config.get(name) for name in _LAYERS]
    return max((number for number in numbers if isinstance(number, int)), default=0)


def _num_weights(folder: Path) -> int | None:
    """Tensors of its weights; None: it has none of this form, or they are damaged."""
    weight_map = _document(folder / _INDEX).get("weight_map")
    if isinstance(weight_map, dict):
        return len(weight_map)
    weights = folder / "model.safetensors"
    with suppress(OSError, ValueError, RecursionError), weights.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(size)) if size <= _MAX_HEADER else None
        return len(header) if isinstance(header, dict) else None
    return None


def _document(path: Path) -> JsonObject:
    """A JSON object; an empty one where there is none, which the library refuses."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
