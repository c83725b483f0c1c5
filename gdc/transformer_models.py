"""Causal language models of transformers: GPT-2 from scratch, or any by Hub name or folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from gdc.config import Gpt2Model, PretrainedModel
from gdc.errors import ConfigError, TransientError


def target_states(
    model: PreTrainedModel, ids_BT: Tensor, is_target_BT: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The fields of ``models.TargetStates``."""
    if isinstance(model, GPT2LMHeadModel):
        hidden_BTH = model.transformer(ids_BT, use_cache=False).last_hidden_state
        return hidden_BTH[is_target_BT], model.lm_head.weight, model.lm_head.bias
    # A foreign head may scale or cap its logits, so the whole model is asked.
    return model(ids_BT, use_cache=False).logits[is_target_BT], None, None


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    with _quiet():
        model.save_pretrained(folder)


def load(folder: Path) -> PreTrainedModel:
    """Read what ``save`` wrote, in float32."""
    with _quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    return model


def gpt2(config: Gpt2Model, *, vocab_size: int, end_of_text: int) -> GPT2LMHeadModel:
    """A GPT-2 with fresh weights."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=config.block_size,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            # The function of "gelu_new", GPT-2's default, in one operation instead of eight.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
        )
    )


def pretrained(config: PretrainedModel, *, vocab_size: int) -> PreTrainedModel:
    """Load a model by Hub name or local folder, without unpickling and without its code.

    Raises:
        ConfigError: It cannot be loaded so, does not know all ids of its tokenizer, or has fewer
            positions than ``block_size``.
        TransientError: The Hub did not answer.
    """
    where = f"model.name: {config.name!r}"
    try:
        with _quiet():
            # Nothing that a model's author wrote is executed: no code of theirs, no pickle.
            settings = AutoConfig.from_pretrained(
                config.name, revision=config.revision, trust_remote_code=False
            ).get_text_config()
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
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
