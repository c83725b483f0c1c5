"""Generative Data Cartography: which samples does a model memorize, and what to do about it.

Importing ``gdc`` takes no time: what is heavy is imported when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from gdc.errors import ConfigError, DataError, GdcError, SchemaError, TransientError

if TYPE_CHECKING:
    from gdc.commands.library import audit_model, load_params, load_trace, map_trace
    from gdc.config import Params
    from gdc.curation.reader import Plan
    from gdc.recording.recorder import TraceRecorder
    from gdc.recording.transformers import TraceCallback
    from gdc.training.weighted_trainer import WeightedCollator, use_weights, weighted_loss

    __version__: str

__all__ = [
    "ConfigError",
    "DataError",
    "GdcError",
    "Params",
    "Plan",
    "SchemaError",
    "TraceCallback",
    "TraceRecorder",
    "TransientError",
    "WeightedCollator",
    "__version__",
    "audit_model",
    "load_params",
    "load_trace",
    "map_trace",
    "use_weights",
    "weighted_loss",
]

_HOMES: Final = {
    "Params": "gdc.config",
    "TraceCallback": "gdc.recording.transformers",
    "TraceRecorder": "gdc.recording.recorder",
    "Plan": "gdc.curation.reader",
    "WeightedCollator": "gdc.training.weighted_trainer",
    "audit_model": "gdc.commands.library",
    "load_params": "gdc.commands.library",
    "load_trace": "gdc.commands.library",
    "map_trace": "gdc.commands.library",
    "use_weights": "gdc.training.weighted_trainer",
    "weighted_loss": "gdc.training.weighted_trainer",
}


if not TYPE_CHECKING:  # a type checker knows the names from above, and refuses others

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely asked for

            return version("gendatacarto")
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
