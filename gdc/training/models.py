"""Model parameters -> a causal language model: LSTM, GPT-2 from scratch, or pretrained.

transformers takes seconds to import, so ``transformer_models`` is imported where it is needed.
"""
# ruff: noqa: PLC0415

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.config import Gpt2Model, LstmModel, Model, PretrainedModel
from gdc.environment import device
from gdc.errors import ConfigError, SchemaError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.model_folders import require_sound

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LSTM_TYPE: Final = "gdc_lstm"
_WEIGHTS: Final = "model.safetensors"


class _LstmSettings(BaseModel):
    """Settings in ``config.json`` of a saved LSTM, besides its type."""

    model_config = ConfigDict(strict=True, extra="forbid")

    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class TargetStates(NamedTuple):
    """Hidden states at the target positions, and the linear head that turns them into logits."""

    hidden: Tensor  # number of positions x hidden size
    weight: Tensor | None  # vocabulary x hidden size; None: ``hidden`` are the logits themselves
    bias: Tensor | None

    @property
    def vocab_size(self) -> int:
        """Number of logits of a position."""
        return self.hidden.shape[1] if self.weight is None else len(self.weight)

    def logits(self, part: slice = slice(None)) -> Tensor:
        """Logits of some positions, number of positions x vocabulary."""
        hidden = self.hidden[part]
        return hidden if self.weight is None else F.linear(hidden, self.weight, self.bias)


class LstmLanguageModel(nn.Module):
    """An LSTM with tied input and output embeddings.

    Source: Press & Wolf 2017, arXiv:1608.05859 (tying).
    """

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.settings = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "dropout": dropout,
        }
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        nn.init.normal_(self.embedding.weight, std=hidden_size**-0.5)
        self.dropout = nn.Dropout(dropout)
        between_layers = dropout if num_layers > 1 else 0.0  # torch warns about any other value
        self.lstm = nn.LSTM(
            hidden_size, hidden_size, num_layers, batch_first=True, dropout=between_layers
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids_BT: Tensor, is_target_BT: Tensor) -> TargetStates:
        """Hidden states at the target positions, and the tied embedding as their head."""
        # Most CPUs have no bfloat16 LSTM in oneDNN and would raise; other devices are not touched.
        with torch.autocast("cpu", enabled=False):
            hidden_BTH, _ = self.lstm(self.dropout(self.embedding(ids_BT)))
        return TargetStates(
            self.dropout(hidden_BTH[is_target_BT]), self.embedding.weight, self.bias
        )


def on_device(model: nn.Module) -> nn.Module:
    """Move a model to the device that ``GDC_DEVICE`` names.

    Raises:
        ConfigError: It names no device, or one that torch does not have on this machine.
    """
    name = device()
    try:
        torch.empty(0, device=name)
    except (AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"GDC_DEVICE: expected a device that torch {torch.__version__} has here, got {name!r}: "
            f"{error}. Unset it for cpu."
        ) from None
    return model.to(name)


def target_states(model: nn.Module, ids_BT: Tensor, is_target_BT: Tensor) -> TargetStates:
    """Hidden states at the target positions only, and their head.

    Inputs are padded on the right, which no real position of a causal model sees.
    """
    if isinstance(model, LstmLanguageModel):
        states: TargetStates = model(ids_BT, is_target_BT)
        return states
    from gdc.training import transformer_models

    return TargetStates(
        *transformer_models.target_states(_as_transformers(model), ids_BT, is_target_BT)
    )


def build_model(config: Model, *, vocab_size: int, end_of_text: int, seed: int) -> nn.Module:
    """Make a model with weights drawn from ``seed``, or load a pretrained one.

    Raises:
        ConfigError: The pretrained model cannot be loaded without unpickling, lacks weights, is no
            causal language model, does not know all ids of its tokenizer, has fewer positions than
            ``block_size``, or cannot be fine-tuned in the way that is asked for.
        TransientError: The Hub did not answer.
    """
    torch.manual_seed(seed)
    if isinstance(config, LstmModel):
        return LstmLanguageModel(vocab_size, config.hidden_size, config.num_layers, config.dropout)
    from gdc.training import transformer_models

    if isinstance(config, Gpt2Model):
        return transformer_models.gpt2(config, vocab_size=vocab_size, end_of_text=end_of_text)
    model = transformer_models.pretrained(config, vocab_size=vocab_size)
    return transformer_models.for_fine_tuning(model, config)


def prepare(model: nn.Module, precision: str) -> None:
    """For bfloat16 on a processor leave attention in float32.

    Its backward pass takes four times as long there, a third of a training step of a small GPT-2
    (torch 2.13, Intel Xeon with AMX, block size 128).
    """
    on_processor = next(model.parameters()).device.type == "cpu"
    if precision == "bfloat16" and on_processor and not isinstance(model, LstmLanguageModel):
        from gdc.training import transformer_models

        transformer_models.attend_in_float32(_as_transformers(model))


def finish_training(model: nn.Module) -> None:
    """Put adapters that were trained into the weights; other models are left as they are."""
    if not isinstance(model, LstmLanguageModel):
        from gdc.training import transformer_models

        transformer_models.merge_adapters(_as_transformers(model))


def model_settings(model: nn.Module) -> str:
    """Settings of a model as JSON: sizes, heads, dropout, version of transformers; no weights."""
    if isinstance(model, LstmLanguageModel):
        return json.dumps(model.settings, sort_keys=True)
    return str(_as_transformers(model).config.to_json_string(use_diff=False))


def save_model(model: nn.Module, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; transformers can load all but the LSTM."""
    if isinstance(model, LstmLanguageModel):
        config = {"model_type": _LSTM_TYPE, **model.settings}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        save_file(model.state_dict(), folder / _WEIGHTS)
    else:
        from gdc.training import transformer_models

        transformer_models.save(_as_transformers(model), folder)


def load_model(folder: Path) -> nn.Module:
    """Read what ``save_model`` wrote, in evaluation mode and float32.

    Raises:
        SchemaError: The folder holds no model, or a damaged one.
    """
    config = _read_config(folder)
    if config.pop("model_type", None) == _LSTM_TYPE:
        return _load_lstm(folder, config).eval()
    from gdc.training import transformer_models

    model: nn.Module = transformer_models.load(folder)
    return model.eval()


def _read_config(folder: Path) -> JsonObject:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SchemaError(
            f"{folder}: expected a model folder with config.json, got none. Re-run its stage."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"{path}: expected the settings of a model as JSON, got {type(error).__name__}: "
            f"{error}. Make the model again."
        ) from None
    if not isinstance(config, dict):
        raise SchemaError(
            f"{path}: expected the settings of a model, got {type(config).__name__}. "
            "Make the model again."
        )
    return config


def _load_lstm(folder: Path, config: JsonObject) -> LstmLanguageModel:
    path = folder / _WEIGHTS
    try:
        settings = _LstmSettings.model_validate(config)
        weights = load_file(path)
        # Before a model of the sizes in config.json is built, which might not fit in memory.
        _require_sizes(settings, weights)
        model = LstmLanguageModel(**settings.model_dump())
        model.load_state_dict(weights)
    except ValidationError as error:
        found = error.errors()[0]
        raise SchemaError(
            f"{folder / 'config.json'}: {'.'.join(map(str, found['loc']))}: {found['msg']}, got "
            f"{found['input']!r}. Make the model again."
        ) from None
    except (OSError, SafetensorError, LookupError, RuntimeError) as error:
        raise SchemaError(
            f"{path}: expected the weights that config.json describes, got "
            f"{type(error).__name__}: {error}. Make the model again."
        ) from None
    return model


def _require_sizes(settings: _LstmSettings, weights: Mapping[str, Tensor]) -> None:
    num_layers = sum(name.startswith("lstm.weight_ih") for name in weights)
    found = (*weights["embedding.weight"].shape, num_layers)
    described = (settings.vocab_size, settings.hidden_size, settings.num_layers)
    if found != described:
        raise LookupError(
            f"vocabulary, width and layers of {found}, where config.json says {described}"
        )


def open_model(name: str, *, vocab_size: int) -> tuple[nn.Module, int | None]:
    """Load a causal language model, trained with gdc or not, and the length of its context.

    Args:
        name: A folder, or a name on the Hub.
        vocab_size: Ids that its tokenizer has.

    Returns:
        The model in evaluation mode and float32, and its number of positions; None: no limit.

    Raises:
        ConfigError: It cannot be loaded without unpickling, lacks weights, is no causal language
            model, or does not know all ids.
        SchemaError: It was saved by gdc and is damaged.
        TransientError: The Hub did not answer.
    """
    require_sound(Path(name), f"--model {name!r}")
    if _is_lstm(Path(name)):
        model = load_model(Path(name))
        assert isinstance(model, LstmLanguageModel)  # noqa: S101 - config.json says so
        if model.settings["vocab_size"] != vocab_size:
            raise ConfigError(
                f"{name}: knows {model.settings['vocab_size']} ids, but its tokenizer has "
                f"{vocab_size}. Give the tokenizer that it was trained with."
            )
        return model, None
    from gdc.training import transformer_models

    config = PretrainedModel(
        kind="pretrained",
        name=name,
        revision=None,
        block_size=2,
        precision="float32",
        lora=None,
        gradient_checkpointing=False,
    )
    pretrained = transformer_models.pretrained(
        config, vocab_size=vocab_size, option="--model"
    ).eval()
    positions = getattr(pretrained.config.get_text_config(), "max_position_embeddings", None)
    return pretrained, positions


def _is_lstm(folder: Path) -> bool:
    """Whether gdc saved an LSTM there; all else is left to transformers, and its errors."""
    try:
        return _read_config(folder).get("model_type") == _LSTM_TYPE
    except SchemaError:
        return False


def _as_transformers(model: nn.Module) -> "PreTrainedModel":
    from transformers import PreTrainedModel

    assert isinstance(model, PreTrainedModel)  # noqa: S101 - only we build models
    return model
