"""Labels that hold weights -> the weighted loss in a trainer of other people.

Tensors: B samples, T positions, V vocabulary, N predicted tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gdc.errors import ConfigError
from gdc.statistics.label_weights import ID_BITS, IGNORED, ONE_BITS, weigh_labels
from gdc.training.losses import token_nll

# A row of the user's data set: ids, labels and masks as lists or tensors, a weight.
Feature = Mapping[str, Any]

_ID_MASK = 2**ID_BITS - 1
_PADDED = ("input_ids", "attention_mask", "labels", "position_ids", "token_type_ids")


def split_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids (``IGNORED`` where there are none) and weights (0 there) of weighted labels."""
    is_ignored = labels == IGNORED
    bits = ((labels >> ID_BITS) & _ID_MASK) ^ ONE_BITS
    weights = bits.to(torch.int32).view(torch.float32)
    return (labels & _ID_MASK).masked_fill(is_ignored, IGNORED), weights.masked_fill(is_ignored, 0)


def weighted_loss(
    outputs: Mapping[str, Any] | Any,  # noqa: ANN401 - whatever the model returns
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Weighted mean loss of a causal language model: sum of w nll over sum of |w|.

    For ``compute_loss_func`` of ``transformers.Trainer`` and of what is built on it, where a step
    is one batch of one process. ``use_weights`` does all others.

    Args:
        outputs: With ``logits``, (B, T, V).
        labels: Of ``weigh_labels``, (B, T); position t is predicted from those before it.
        num_items_in_batch: Labels of the step; None: those of this batch.

    Returns:
        Nats per token; 0 where all weights are.

    Raises:
        ConfigError: The step has other labels than this batch, whose weights are not known here.
    """
    if num_items_in_batch is not None:
        given = {int((of != IGNORED).sum()) for of in (labels, labels[..., 1:])}
        if int(num_items_in_batch) not in given:
            raise ConfigError(
                f"weighted_loss: expected the whole batch of a step, {int(num_items_in_batch)} "
                f"labels, got {max(given)}: with gradient accumulation or several processes call "
                "gdc.use_weights(trainer) in place of compute_loss_func."
            )
    return _loss_by_weight(outputs, labels)


def use_weights(trainer: Any) -> None:  # noqa: ANN401 - of a library that is imported by users
    """Let a ``transformers.Trainer``, or one built on it, take the weights in its labels.

    The loss of an optimizer step is the sum of w nll over the sum of |w| of all its tokens, however
    many parts, or processes, they come in.

    Args:
        trainer: Before ``train()``. Its ``compute_loss_func`` and ``get_batch_samples`` are set.
    """
    get_batch_samples = trainer.get_batch_samples

    def count_weights(
        batches: Any,  # noqa: ANN401
        num_batches: int,
        device: torch.device,
    ) -> tuple[list[Any], Tensor | None]:
        samples, _ = get_batch_samples(batches, num_batches, device)
        weights = [split_labels(batch["labels"][..., 1:])[1].abs().sum() for batch in samples]
        if not weights:
            return samples, None
        total = torch.stack(weights).sum().to(device)
        if trainer.args.average_tokens_across_devices and trainer.args.world_size > 1:
            total = trainer.accelerator.gather(total).sum()
        return samples, total

    trainer.get_batch_samples = count_weights
    trainer.compute_loss_func = _loss_by_weight
    # Which the trainer decides by ``compute_loss_func`` alone when it is made.
    trainer.loss_is_scaled_for_ga = True


class WeightedCollator:
    """Puts samples into a padded batch, and their weights into its labels.

    Of each sample ``input_ids`` are read, and where they are there ``attention_mask``, ``labels``
    (else the ids, which is what a causal language model learns), ``position_ids`` and ``weight``.
    What else a sample has is left out, as models refuse it.

    Args:
        pad_token_id: Of the tokenizer.
    """

    def __init__(self, pad_token_id: int) -> None:
        self._fill = {"labels": IGNORED, "input_ids": pad_token_id}

    def __call__(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """A batch of tensors (B, T), padded on the right."""
        rows = [_with_labels(feature) for feature in features]
        names = [name for name in _PADDED if all(name in row for row in rows)]
        longest = max(len(row["input_ids"]) for row in rows)
        return {name: self._pad(name, [row[name] for row in rows], longest) for name in names}

    def _pad(self, name: str, rows: Sequence[Sequence[int]], longest: int) -> Tensor:
        padded = np.full((len(rows), longest), self._fill.get(name, 0), dtype=np.int64)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = row
        return torch.from_numpy(padded)


def _with_labels(feature: Feature) -> Feature:
    ids = feature["input_ids"]
    labels = feature.get("labels", ids)
    return {
        "attention_mask": [1] * len(ids),
        **feature,
        "labels": weigh_labels(labels, feature["weight"]) if "weight" in feature else labels,
    }


def _loss_by_weight(
    outputs: Any,  # noqa: ANN401 - whatever the model returns
    labels: Tensor,
    num_items_in_batch: Tensor | None = None,
) -> Tensor:
    """As ``weighted_loss``, where the sum of |w| of the whole batch is known."""
    total, weight = _sums(outputs, labels)
    whole = weight if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(whole).clamp(min=torch.finfo(total.dtype).tiny)


def _sums(outputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - as above
    """Sum of w nll, and sum of |w|."""
    ids_BT, weights_BT = split_labels(labels[..., 1:])
    is_target_BT = ids_BT != IGNORED
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    nll_N = token_nll(logits[..., :-1, :][is_target_BT], ids_BT[is_target_BT])
    weights_N = weights_BT[is_target_BT]
    return (weights_N * nll_N).sum(), weights_N.abs().sum()
