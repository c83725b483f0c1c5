"""Model parameters -> a causal language model: LSTM, GPT-2 from scratch, or pretrained.

transformers takes seconds to import, so ``transformer_models`` is imported where it is needed.
"""
# ruff: noqa: PLC0415

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.config import Gpt2Model, LstmModel, Model, PretrainedModel
from gdc.errors import ConfigError, SchemaError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LSTM_TYPE: Final = "gdc_lstm"
_WEIGHTS: Final = "model.safetensors"


class TargetStates(NamedTuple):
    """Hidden states at the chosen positions, and the linear head that makes logits of them."""

    hidden: Tensor  # number of positions x hidden size
    weight: Tensor | None  # vocabulary x hidden size; None: ``hidden`` are the logits themselves
    bias: Tensor | None

    @property
    def vocab_size(self) -> int:
        """Logits of a position."""
        return self.hidden.shape[1] if self.weight is None else len(self.weight)

    def logits(self, part: slice = slice(None)) -> Tensor:
        """Of some positions, number of them x vocabulary."""
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
        """States at the chosen positions."""
        # Most CPUs have no bfloat16 LSTM in oneDNN and would raise; other devices are not touched.
        with torch.autocast("cpu", enabled=False):
            hidden_BTH, _ = self.lstm(self.dropout(self.embedding(ids_BT)))
        return TargetStates(
            self.dropout(hidden_BTH[is_target_BT]), self.embedding.weight, self.bias
        )


def target_states(model: nn.Module, ids_BT: Tensor, is_target_BT: Tensor) -> TargetStates:
    """States at the chosen positions only, and their head.

    Inputs are padded on the right, where no real position of a causal model looks.
    """
    if isinstance(model, LstmLanguageModel):
        states: TargetStates = model(ids_BT, is_target_BT)
        return states
    from gdc import transformer_models

    return TargetStates(
        *transformer_models.target_states(_of_transformers(model), ids_BT, is_target_BT)
    )


def build_model(config: Model, *, vocab_size: int, end_of_text: int, seed: int) -> nn.Module:
    """Make a model with weights drawn from ``seed``, or load a pretrained one.

    Raises:
        ConfigError: The pretrained model cannot be loaded without unpickling, does not know all
            ids of its tokenizer, or has fewer positions than ``block_size``.
        TransientError: The Hub did not answer.
    """
    torch.manual_seed(seed)
    if isinstance(config, LstmModel):
        return LstmLanguageModel(vocab_size, config.hidden_size, config.num_layers, config.dropout)
    from gdc import transformer_models

    if isinstance(config, Gpt2Model):
        return transformer_models.gpt2(config, vocab_size=vocab_size, end_of_text=end_of_text)
    return transformer_models.pretrained(config, vocab_size=vocab_size)


def settings_of(model: nn.Module) -> str:
    """All of a model but its weights, as JSON: sizes, heads, dropout, version of transformers."""
    if isinstance(model, LstmLanguageModel):
        return json.dumps(model.settings, sort_keys=True)
    return str(_of_transformers(model).config.to_json_string(use_diff=False))


def save_model(model: nn.Module, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; transformers can load all but the LSTM."""
    if isinstance(model, LstmLanguageModel):
        config = {"model_type": _LSTM_TYPE, **model.settings}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        save_file(model.state_dict(), folder / _WEIGHTS)
    else:
        from gdc import transformer_models

        transformer_models.save(_of_transformers(model), folder)


def load_model(folder: Path) -> nn.Module:
    """Read what ``save_model`` wrote, in evaluation mode and float32.

    Raises:
        SchemaError: The folder holds no model, or a damaged one.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SchemaError(
            f"{folder}: expected a model folder with config.json, got none. Re-run its stage."
        ) from None
    if config.pop("model_type") == _LSTM_TYPE:
        model: nn.Module = LstmLanguageModel(**config)
        try:
            model.load_state_dict(load_file(folder / _WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise SchemaError(
                f"{folder / _WEIGHTS}: expected the weights that config.json describes, got "
                f"{type(error).__name__}. Make the model again."
            ) from None
    else:
        from gdc import transformer_models

        model = transformer_models.load(folder)
    return model.eval()


def open_model(name: str, *, vocab_size: int) -> tuple[nn.Module, int | None]:
    """Load a causal language model made here or anywhere, and the most tokens it can see at once.

    Args:
        name: A folder, or a name on the Hub.
        vocab_size: Ids that its tokenizer has.

    Returns:
        The model in evaluation mode and float32, and its number of positions; None: any.

    Raises:
        ConfigError: It cannot be loaded without unpickling, or does not know all ids.
        TransientError: The Hub did not answer.
    """
    settings = Path(name) / "config.json"
    if settings.is_file() and _LSTM_TYPE in settings.read_text(encoding="utf-8"):
        model = load_model(Path(name))
        assert isinstance(model, LstmLanguageModel)  # noqa: S101 - its type stands in its settings
        if model.settings["vocab_size"] != vocab_size:
            raise ConfigError(
                f"{name}: knows {model.settings['vocab_size']} ids, but its tokenizer has "
                f"{vocab_size}. Give the tokenizer that it was trained with."
            )
        return model, None
    from gdc import transformer_models

    config = PretrainedModel(
        kind="pretrained", name=name, revision=None, block_size=2, precision="float32"
    )
    pretrained = transformer_models.pretrained(config, vocab_size=vocab_size).eval()
    positions = getattr(pretrained.config.get_text_config(), "max_position_embeddings", None)
    return pretrained, positions


def _of_transformers(model: nn.Module) -> "PreTrainedModel":
    from transformers import PreTrainedModel

    assert isinstance(model, PreTrainedModel)  # noqa: S101 - only we build models
    return model
