"""Outputs of a causal language model and its labels -> losses of the samples in a batch.

Tensors: B rows of a batch, T positions, S samples: as many as rows, or several packed into a row.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from gdc.errors import ConfigError
from gdc.statistics.label_weights import IGNORED

# What the user's own loader gives: tensors by name, and whatever else the model takes.
Batch = Mapping[str, Any]


def causal_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss of each row of a batch under a causal language model of transformers.

    Args:
        model: Called with all of the batch but its labels; gives ``logits``, B x T x vocabulary.
        batch: With ``labels``, B x T; -100 has no loss.

    Returns:
        Sum of the losses in nats, and number of predicted tokens, of each row.

    Raises:
        ConfigError: The batch has no labels.
    """
    nll_BT, labels_BT = _causal_nll(model, batch)
    return sums_of_samples(nll_BT, labels_BT, len(labels_BT), batch)


def causal_token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the single tokens of a batch; see ``causal_losses`` and ``tokens_of_samples``."""
    nll_BT, labels_BT = _causal_nll(model, batch)
    return tokens_of_samples(nll_BT, labels_BT, len(labels_BT), batch)


def _causal_nll(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses as ``token_nll`` gives them, and the labels."""
    if "labels" not in batch:
        raise ConfigError(
            f"probe: expected labels in what collate returns, got {sorted(batch)}. Let collate add "
            "them (-100 where there is no loss), or give losses=, a function of model and batch."
        )
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    nll_BT = token_nll(model(**inputs), batch["labels"])
    if nll_BT is None:
        raise ConfigError(
            "probe: expected logits from the model, got none. Give losses=, a function of model "
            "and batch."
        )
    return nll_BT, batch["labels"]


def token_nll(outputs: Any, labels_BT: Tensor) -> Tensor | None:
    """Loss of each label but the first of a row, nats; 0 where there is none.

    Args:
        outputs: Of the model: with ``logits``, or with ``log_probs`` as TRL's fused head gives.
        labels_BT: -100 has no loss.

    Returns:
        B x (T - 1) losses in float32; None: a fused loss has hidden them.
    """
    log_probs_BT = _get(outputs, "log_probs")
    if log_probs_BT is not None:
        nll_BT: Tensor = -log_probs_BT.detach().float()
        return nll_BT
    logits_BTV = _get(outputs, "logits")
    if logits_BTV is None or logits_BTV.ndim != 3 or logits_BTV.shape[1] != labels_BT.shape[1]:
        return None
    targets_BT = labels_BT[:, 1:].to(logits_BTV.device)
    with torch.no_grad():
        logits_NV = logits_BTV.detach()[:, :-1].flatten(0, 1).float()
        nll_N = F.cross_entropy(
            logits_NV, targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
        )
    return nll_N.view_as(targets_BT)


def sums_of_samples(
    nll_BT: Tensor, labels_BT: Tensor, num_samples: int, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Sum the losses of each sample of a batch, without a wait for the device.

    Args:
        nll_BT: As ``token_nll`` gives them.
        labels_BT: Of all T positions.
        num_samples: S.
        batch: Where S is not B, its ``position_ids``, which are 0 where a sample begins.

    Returns:
        Sums in nats and numbers of predicted tokens, S each.

    Raises:
        ConfigError: Several samples lie in a row, and nothing says where they begin.
    """
    is_target_BT = labels_BT[:, 1:].to(nll_BT.device) != IGNORED
    # Devices of Apple have no float64.
    exact_BT = nll_BT if nll_BT.device.type == "mps" else nll_BT.double()
    if num_samples == len(labels_BT):
        return exact_BT.sum(dim=1), is_target_BT.sum(dim=1)
    sample_N = _sample_of_position(batch, num_samples).to(nll_BT.device)[:, 1:].flatten()
    sums_S = torch.zeros(num_samples, dtype=exact_BT.dtype, device=nll_BT.device)
    counts_S = torch.zeros(num_samples, dtype=torch.int64, device=nll_BT.device)
    sums_S.index_add_(0, sample_N, exact_BT.flatten())
    counts_S.index_add_(0, sample_N, is_target_BT.flatten().long())
    return sums_S, counts_S


def tokens_of_samples(
    nll_BT: Tensor, labels_BT: Tensor, num_samples: int, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a batch token by token; see ``sums_of_samples``.

    Returns:
        Losses in nats and ids of the N predicted tokens, sample after sample, and the number of
        each sample's.
    """
    _, counts_S = sums_of_samples(nll_BT, labels_BT, num_samples, batch)
    targets_BT = labels_BT[:, 1:].to(nll_BT.device)
    is_target_BT = targets_BT != IGNORED
    return nll_BT[is_target_BT], targets_BT[is_target_BT], counts_S


def _sample_of_position(batch: Batch, num_samples: int) -> Tensor:
    position_ids_BT = batch.get("position_ids")
    if position_ids_BT is None:
        raise ConfigError(
            f"recording: expected position_ids in a batch whose rows hold {num_samples} samples, "
            f"got {sorted(batch)}. Use a collator that says where each sample begins."
        )
    begins_BT = position_ids_BT == 0
    if batch.get("attention_mask") is not None:
        begins_BT = begins_BT & batch["attention_mask"].bool()
    # Padding at the end counts positions of its own; it has no loss.
    sample_BT: Tensor = begins_BT.flatten().cumsum(0).view(begins_BT.shape) - 1
    return sample_BT.clamp(0, num_samples - 1)


def _get(outputs: Any, name: str) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    return getattr(outputs, name, None)
