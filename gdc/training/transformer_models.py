"""Causal language models of transformers: GPT-2 from scratch, or any by Hub name or folder."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
import transformers
from huggingface_hub import is_offline_mode
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import ModuleList
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.pytorch_utils import Conv1D

from gdc.config import Gpt2Model, Lora, PretrainedModel
from gdc.environment import is_only_in_cache
from gdc.errors import ConfigError, SchemaError, TransientError
from gdc.filesystem.model_folders import require_few_layers, require_sound

# What transformers tells of a load, by its own names: keys of weights, some with their shapes.
_Loading = Mapping[str, Collection[Any]]
# What transformers raises for a model that it cannot build, as its models check few settings.
_LOADING_ERRORS: Final = (
    ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, SafetensorError,
    StrictDataclassError, TypeError, ValueError,
)  # fmt: skip
# Heads that give logits of the next token. Nearly every name of a head contains `For`.
_CAUSAL_HEADS: Final = ("ForCausalLM", "ForConditionalGeneration")
# Share of the largest logit by which another order of sums may change a logit.
_ROUNDING: Final = 1e-5
# The name under which transformers finds it.
_FLOAT32_ATTENTION: Final = "gdc_sdpa_in_float32"


def target_states(
    model: PreTrainedModel, ids_BT: Tensor, is_target_BT: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The fields of ``models.TargetStates``."""
    if isinstance(model, GPT2LMHeadModel):
        hidden_BTH = model.transformer(ids_BT, use_cache=False).last_hidden_state
        return hidden_BTH[is_target_BT], model.lm_head.weight, model.lm_head.bias
    # The head of another model may scale or cap its logits, so the whole model is called.
    return model(ids_BT, use_cache=False).logits[is_target_BT], None, None


def attend_in_float32(model: PreTrainedModel) -> None:
    """Compute scaled dot products in float32 whatever the precision of all else.

    Models that attend in another way are left as they are. What is saved does not tell.
    """
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(_FLOAT32_ATTENTION)


def _attention_in_float32(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **options: Any,  # noqa: ANN401 - passed on
) -> tuple[Tensor, None]:
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast(query.device.type, enabled=False):
        attended, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), mask, **options
        )
    return attended.to(query.dtype), None


AttentionInterface.register(_FLOAT32_ATTENTION, _attention_in_float32)
AttentionMaskInterface.register(_FLOAT32_ATTENTION, sdpa_mask)


def save(model: PreTrainedModel, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``."""
    with _quiet():
        model.save_pretrained(folder)


def load(folder: Path) -> PreTrainedModel:
    """Read what ``save`` wrote, in float32.

    Raises:
        SchemaError: The folder is damaged, or holds no causal language model with all weights.
    """
    try:
        return _loaded(str(folder), None, local_files_only=True)
    except (OSError, *_LOADING_ERRORS) as error:
        raise SchemaError(
            f"{folder}: expected the model that a stage wrote, got {type(error).__name__}: "
            f"{error}. Make it again: gdc run."
        ) from None


def gpt2(config: Gpt2Model, *, vocab_size: int, end_of_text: int) -> GPT2LMHeadModel:
    """Make a GPT-2 with random weights."""
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


def pretrained(
    config: PretrainedModel, *, vocab_size: int, option: str = "model.name:"
) -> PreTrainedModel:
    """Load a model by Hub name or local folder, without unpickling and without its code.

    Args:
        config: The name, and the positions that are needed.
        vocab_size: Ids of its tokenizer.
        option: Where the user gave the name, for error messages.

    Raises:
        ConfigError: It cannot be loaded in this way, lacks weights, is no causal language model,
            does not know all ids of its tokenizer, or has fewer positions than ``block_size``.
        TransientError: The Hub did not answer.
    """
    where = f"{option} {config.name!r}"
    require_sound(Path(config.name), where)
    require_few_layers(Path(config.name), where)
    try:
        is_local = is_only_in_cache(config.name)
        model = _loaded(config.name, config.revision, local_files_only=is_local)
        settings = model.config.get_text_config()
        num_ids = settings.vocab_size
    except OSError as error:
        # Offline, transformers words a model that is not in the cache as a failure to connect.
        if "connect" in str(error).replace(config.name, "") and not is_offline_mode():
            raise TransientError(f"{where}: the Hub did not answer: {error}") from None
        raise ConfigError(
            f"{where}: expected a causal language model with safetensors weights, by local folder "
            f"or Hub name (of the local cache only when HF_HUB_OFFLINE is set): {error}"
        ) from None
    except SafetensorError as error:
        raise ConfigError(f"{where}: not valid safetensors weights: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not a causal language model: {error}") from None
    except _LOADING_ERRORS as error:
        raise ConfigError(
            f"{where}: expected a model that transformers can load, got {type(error).__name__}: "
            f"{error}. Its config.json may be damaged, or not be that of its weights."
        ) from None
    num_positions = getattr(settings, "max_position_embeddings", None)
    if num_positions is not None and num_positions < config.block_size:
        raise ConfigError(
            f"model.block_size: expected at most the {num_positions} positions of {config.name!r}, "
            f"got {config.block_size}"
        )
    if num_ids < vocab_size:
        raise ConfigError(f"{where}: knows {num_ids} ids, but its tokenizer has {vocab_size}")
    return model


def for_fine_tuning(model: PreTrainedModel, config: PretrainedModel) -> PreTrainedModel:
    """Add adapters to a model, which alone are trained, and let it keep fewer activations.

    Adapters start as zero, so losses are at first those of the model without them.

    Raises:
        ConfigError: The model has no such layers, PEFT is not installed, or its activations cannot
            be computed again.
    """
    if config.gradient_checkpointing:
        # Its new name in transformers, which warns of the former one.
        enable = getattr(model, "activation_checkpointing_enable", None)
        try:
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        except ValueError as error:
            raise ConfigError(
                f"model.gradient_checkpointing: expected false for this model, got true: {error}"
            ) from None
    if config.lora is not None:
        _add_adapters(model, config.lora)
    return model


def _add_adapters(model: PreTrainedModel, lora: Lora) -> None:
    head = model.get_output_embeddings()
    names = [name.rpartition(".")[2] for name, module in model.named_modules() if module is head]
    if {*names} & {*(lora.target_modules or ())}:
        raise ConfigError(
            f"model.lora.target_modules: expected layers before the head of the model, got {names} "
            "too. Leave it out."
        )
    peft = _peft()
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=None if lora.target_modules is None else [*lora.target_modules],
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        peft.inject_adapter_in_model(settings, model)
    except ValueError as error:
        raise ConfigError(
            f"model.lora.target_modules: expected names of layers of {model.config.model_type}, "
            f"got {lora.target_modules}: {error}"
        ) from None
    # In the settings of the model: they name its checkpoints, and stand in config.json.
    model.config.gdc_lora = lora.model_dump(mode="json")


def merge_adapters(model: PreTrainedModel) -> None:
    """Put trained adapters into the weights that they were beside; without any, do nothing."""
    if not hasattr(model.config, "gdc_lora"):
        return
    layer_type = import_module("peft.tuners.tuners_utils").BaseTunerLayer
    for name, layer in [*model.named_modules()]:
        if isinstance(layer, layer_type):
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, layer.get_base_layer())


def _peft() -> ModuleType:
    try:
        return import_module("peft")
    except ImportError:
        raise ConfigError(
            "model.lora: needs the package peft, which is not installed. Install it: pip install "
            "'gendatacarto[trainers]'."
        ) from None


def _loaded(name: str, revision: str | None, *, local_files_only: bool) -> PreTrainedModel:
    """Load a causal language model with all of its weights; ValueError for any other model."""
    # Nothing that a model's author wrote is executed: no code of theirs, no pickle.
    source = {
        "revision": revision, "trust_remote_code": False, "local_files_only": local_files_only
    }  # fmt: skip
    with _quiet():
        _require_causal_head(AutoConfig.from_pretrained(name, **source))
        # Typed as a model, though it is a pair with what was loaded.
        found: Any = AutoModelForCausalLM.from_pretrained(
            name, **source, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    model: PreTrainedModel = found[0]
    loading: _Loading = found[1]
    _require_weights(model, loading)
    _require_causal(model)
    return model


def _require_causal_head(settings: PretrainedConfig) -> None:
    if settings.is_encoder_decoder:
        raise ValueError(
            f"{settings.model_type} has an encoder too, which would not be used. "
            "Give a decoder-only model."
        )
    for head in settings.architectures or ():
        if "For" in head and not any(causal in head for causal in _CAUSAL_HEADS):
            raise ValueError(
                f"its weights are those of {head}. Give the model with its head for the next "
                "token, as AutoModelForCausalLM saves it."
            )


def _require_weights(model: PreTrainedModel, loading: _Loading) -> None:
    missing = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
    if missing:
        raise ValueError(
            f"expected all of its weights, got none for {_first(missing)}: they would be random "
            "numbers. Save it with these (save_pretrained of its causal class)."
        )
    left_over = sorted(_within_modules(model, loading["unexpected_keys"]))
    if left_over:
        raise ValueError(
            "expected a parameter of the model for every weight, got none for "
            f"{_first(left_over)}. Give the config.json of these weights, and merge adapters."
        )


def _within_modules(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """Names within a module of the model that has weights, or within a further layer like it.

    Weights elsewhere, such as another head, change no logit.
    """
    owners = {_without_numbers(name.rpartition(".")[0]) for name, _ in model.named_parameters()}
    # A list of layers may be empty.
    lists = [name for name, module in model.named_modules() if isinstance(module, ModuleList)]
    owners |= {_without_numbers(f"{name}.0") for name in lists}
    ancestors = {name: [name[: dot.start()] for dot in re.finditer(r"\.", name)] for name in names}
    return [name for name in names if owners & set(map(_without_numbers, ancestors[name]))]


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _first(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _require_causal(model: PreTrainedModel) -> None:
    """Change the tokens after a position: if its logits change, a loss is no likelihood."""
    token = model.config.get_text_config().vocab_size // 2
    ids_BT = torch.full((2, 4), token)
    ids_BT[1, 2:] = token - 1
    was_training = model.training
    with torch.inference_mode():
        logits_BTV = model.eval()(ids_BT, use_cache=False).logits[:, :2]
    model.train(was_training)
    change = (logits_BTV[0] - logits_BTV[1]).abs().max()
    # NaN passes: weights that are not finite are another error.
    if change > _ROUNDING * logits_BTV.abs().max():
        raise ValueError(
            "its logits at a token change with the tokens after it (attention in both directions, "
            "as in BERT), so it gives no likelihoods. Give a model that sees only earlier tokens."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of transformers."""
    was_on = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers.utils.logging.enable_progress_bar()
