"""Model parameters -> a causal language model: LSTM, GPT-2 from scratch, or pretrained."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from gdc.config import Gpt2Model, LstmModel, Model, PretrainedModel
from gdc.errors import ConfigError, SchemaError, TransientError

_LSTM_TYPE: Final = "gdc_lstm"
_WEIGHTS: Final = "model.safetensors"


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

    def forward(self, ids_BT: Tensor, is_target_BT: Tensor) -> Tensor:
        """Logits at the chosen positions, number of them x vocabulary."""
        # Most CPUs have no bfloat16 LSTM in oneDNN and would raise; other devices are not touched.
        with torch.autocast("cpu", enabled=False):
            hidden_BTH, _ = self.lstm(self.dropout(self.embedding(ids_BT)))
        return F.linear(self.dropout(hidden_BTH[is_target_BT]), self.embedding.weight, self.bias)


def target_logits(model: nn.Module, ids_BT: Tensor, is_target_BT: Tensor) -> Tensor:
    """Logits at the chosen positions only, number of them x vocabulary.

    Inputs are padded on the right, where no real position of a causal model looks.
    """
    if isinstance(model, LstmLanguageModel):
        logits: Tensor = model(ids_BT, is_target_BT)
    elif isinstance(model, GPT2LMHeadModel):
        hidden_BTH = model.transformer(ids_BT, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden_BTH[is_target_BT])
    else:
        # A foreign head may scale or cap its logits, so the whole model is asked.
        logits = model(ids_BT, use_cache=False).logits[is_target_BT]
    return logits


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
    if isinstance(config, Gpt2Model):
        return _gpt2(config, vocab_size, end_of_text)
    return _pretrained(config, vocab_size)


def settings_of(model: nn.Module) -> str:
    """All of a model but its weights, as JSON: sizes, heads, dropout, version of transformers."""
    if isinstance(model, LstmLanguageModel):
        return json.dumps(model.settings, sort_keys=True)
    assert isinstance(model, transformers.PreTrainedModel)  # noqa: S101 - only we build models
    return str(model.config.to_json_string(use_diff=False))


def save_model(model: nn.Module, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; transformers can load all but the LSTM."""
    if isinstance(model, LstmLanguageModel):
        config = {"model_type": _LSTM_TYPE, **model.settings}
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        save_file(model.state_dict(), folder / _WEIGHTS)
    else:
        assert isinstance(model, transformers.PreTrainedModel)  # noqa: S101 - only we build models
        with _quiet():
            model.save_pretrained(folder)


def load_model(folder: Path) -> nn.Module:
    """Read what ``save_model`` wrote, in evaluation mode and float32.

    Raises:
        SchemaError: The folder holds no model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SchemaError(
            f"{folder}: expected a model folder with config.json, got none. Re-run its stage."
        ) from None
    if config.pop("model_type") == _LSTM_TYPE:
        model: nn.Module = LstmLanguageModel(**config)
        model.load_state_dict(load_file(folder / _WEIGHTS))
    else:
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    return model.eval()


def _gpt2(config: Gpt2Model, vocab_size: int, end_of_text: int) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=config.block_size,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
        )
    )


def _pretrained(config: PretrainedModel, vocab_size: int) -> nn.Module:
    where = f"model.name: {config.name!r}"
    try:
        with _quiet():
            # Nothing that a model's author wrote is executed: no code of theirs, no pickle.
            settings = AutoConfig.from_pretrained(
                config.name, revision=config.revision, trust_remote_code=False
            ).get_text_config()
            model: nn.Module = AutoModelForCausalLM.from_pretrained(
                config.name,
                revision=config.revision,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
    except OSError as error:
        # Offline, transformers words a model that is not in the cache as a failure to connect.
        if "connect" in str(error).replace(config.name, "") and not is_offline_mode():
            raise TransientError(f"{where}: the Hub did not answer: {error}") from None
        raise ConfigError(
            f"{where}: expected a causal language model with safetensors weights, by local folder "
            f"or Hub name (of the local cache only when HF_HUB_OFFLINE is set): {error}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{where}: not a causal language model: {error}") from None
    except SafetensorError as error:
        raise ConfigError(f"{where}: not valid safetensors weights: {error}") from None
    num_positions = getattr(settings, "max_position_embeddings", None)
    if num_positions is not None and num_positions < config.block_size:
        raise ConfigError(
            f"model.block_size: expected at most the {num_positions} positions of {config.name!r}, "
            f"got {config.block_size}"
        )
    if settings.vocab_size < vocab_size:
        raise ConfigError(
            f"{where}: knows {settings.vocab_size} ids, but its tokenizer has {vocab_size}"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers between ours."""
    was_on = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers.utils.logging.enable_progress_bar()
