"""Model and texts -> losses, in evaluation mode: per sample, or per token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils.checkpoint import checkpoint

from gdc.training.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    group_by_tokens,
    padded,
    target_places,
    windows_of,
)
from gdc.training.distributed import ALONE, Processes
from gdc.training.models import TargetStates, target_states
from gdc.training.token_records import TokenRecords

# Logits held at once: those of more targets are made in parts.
MAX_LOGITS: Final = 2**24
# Since torch 2.13; it knows no autocast.
_HAS_LINEAR_CROSS_ENTROPY: Final = hasattr(F, "linear_cross_entropy")


def token_nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross entropy of each target in nats, float32 whatever the precision of the logits."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def target_nll(states: TargetStates, targets_N: Tensor) -> Tensor:
    """``token_nll`` of each target, holding no more than ``MAX_LOGITS`` logits.

    The backward pass makes the logits of each part again.
    """
    parts = _parts(states)
    if states.weight is None or len(parts) <= 1:
        return token_nll(states.logits(), targets_N)
    if _HAS_LINEAR_CROSS_ENTROPY and not torch.is_autocast_enabled(targets_N.device.type):
        return F.linear_cross_entropy(
            states.hidden,
            states.weight,
            targets_N,
            linear_bias=states.bias,
            reduction="none",
            options=nn.LinearCrossEntropyOptions(batch_chunk_size=parts[0].stop),
        )

    def part_nll(part: slice) -> Tensor:
        return token_nll(states.logits(part), targets_N[part])

    return torch.cat([checkpoint(part_nll, part, use_reentrant=False) for part in parts])


def _parts(states: TargetStates) -> list[slice]:
    size = max(1, MAX_LOGITS // states.vocab_size)
    return [slice(start, start + size) for start in range(0, len(states.hidden), size)]


class TargetLosses(nn.Module):
    """A model, asked for the losses at the real positions of a padded batch.

    What wraps a model for several processes sees nothing but calls of a module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Nats of the N targets that are not padding, row by row."""
        is_target_BT = targets_BT != PADDING
        states = target_states(self.model, inputs_BT, is_target_BT)
        return target_nll(states, targets_BT[is_target_BT])


def sample_losses(
    model: nn.Module,
    texts: TokenizedTexts,
    *,
    block_size: int,
    batch_tokens: int,
    processes: Processes = ALONE,
) -> NDArray[np.float64]:
    """Mean nats per token of every text; windows of a long text are summed.

    The model, or its ``TargetLosses``, is left in the mode (training or evaluation) it came in.
    Several processes ask it about their shares, and each gets all losses.
    """
    windows = windows_of(texts, block_size)
    sums = np.zeros(len(windows))
    with _evaluating(model) as asked:
        for chosen, nll_N in _asked(asked, texts, windows, batch_tokens, processes):
            row_N = np.repeat(np.arange(len(chosen)), windows.length[chosen])
            total = torch.zeros(len(chosen), dtype=torch.float64, device=nll_N.device)
            total.index_add_(0, torch.from_numpy(row_N).to(nll_N.device), nll_N.double())
            sums[chosen] = total.cpu().numpy()
    return per_sequence(windows, processes.add(sums), texts)


def token_losses(
    model: nn.Module,
    texts: TokenizedTexts,
    *,
    block_size: int,
    batch_tokens: int,
    processes: Processes = ALONE,
) -> NDArray[np.float32]:
    """Nats of every predicted token, one text after the other; otherwise as ``sample_losses``."""
    windows = windows_of(texts, block_size)
    nll = np.zeros(int(texts.num_tokens.sum()), dtype=np.float32)
    with _evaluating(model) as asked:
        for chosen, nll_N in _asked(asked, texts, windows, batch_tokens, processes):
            nll[_places(windows, chosen)] = nll_N.cpu().numpy()
    return processes.add(nll)


def _asked(
    asked: TargetLosses,
    texts: TokenizedTexts,
    windows: Windows,
    batch_tokens: int,
    processes: Processes,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Windows of each batch of this process, and the losses of their tokens end to end."""
    device = next(asked.parameters()).device
    batches = _grouped(windows, batch_tokens)
    # A sharded model answers only when all processes ask it, so all ask as often.
    for first in range(0, len(batches), processes.count):
        place = first + processes.rank
        chosen = batches[min(place, len(batches) - 1)]
        inputs, targets = (torch.from_numpy(a).to(device) for a in padded(texts, windows, chosen))
        nll_N = asked(inputs, targets)
        if place < len(batches):
            yield chosen, nll_N


def _grouped(windows: Windows, batch_tokens: int) -> list[NDArray[np.int64]]:
    order = np.argsort(windows.length, kind="stable")
    return group_by_tokens(windows.length, order, batch_tokens)


def mean_of_tokens(
    nll: NDArray[np.float32], texts: TokenizedTexts, *, block_size: int
) -> NDArray[np.float64]:
    """What ``sample_losses`` gives, bit by bit on a CPU, from what ``token_losses`` gave."""
    windows = windows_of(texts, block_size)
    window = np.repeat(np.arange(len(windows)), windows.length)
    sums = np.bincount(window, weights=nll, minlength=len(windows))
    return per_sequence(windows, np.asarray(sums, dtype=np.float64), texts)


def per_sequence(
    windows: Windows, sums: NDArray[np.floating], texts: TokenizedTexts
) -> NDArray[np.float64]:
    """Mean nats per token of each sequence from the sums of its windows."""
    totals = np.bincount(windows.sequence, weights=sums, minlength=len(texts))
    return np.asarray(totals / texts.num_tokens, dtype=np.float64)


def token_records(
    model: nn.Module, texts: TokenizedTexts, *, block_size: int, batch_tokens: int
) -> TokenRecords:
    """One pass: all that the audits ask about every predicted token."""
    windows = windows_of(texts, block_size)
    # An empty part first: without texts there are no batches to join.
    parts = [(np.zeros(0, int), *_token_columns(torch.zeros(0, 1), torch.zeros(0).long()))]
    with _evaluating(model):
        for chosen, states, targets_N in _batches(model, texts, windows, batch_tokens):
            at = _places(windows, chosen)
            for part in _parts(states):
                parts.append((at[part], *_token_columns(states.logits(part), targets_N[part])))
    places, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(places)
    sequence = np.repeat(np.arange(len(texts)), texts.num_tokens)
    position = np.arange(len(sequence)) - (texts.offsets[sequence] - sequence)
    return TokenRecords(sequence, position, *(column[order] for column in columns))


def _places(windows: Windows, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the real positions of a batch among the predicted tokens of all texts."""
    # Every sequence up to its own has one id that is not predicted.
    num_left_out = np.repeat(windows.sequence[chosen] + 1, windows.length[chosen])
    return target_places(windows, chosen) - num_left_out


def _token_columns(logits_NV: Tensor, targets_N: Tensor) -> tuple[NDArray[Any], ...]:
    """The columns of ``TokenRecords`` after ``position``."""
    log_p_NV = logits_NV.float().log_softmax(dim=-1)
    p_NV = log_p_NV.exp()
    mean_N = (p_NV * log_p_NV).sum(dim=-1)
    greedy_N = logits_NV.argmax(dim=-1)
    variance_N = (p_NV * (log_p_NV - mean_N[:, None]).square()).sum(dim=-1)
    return (
        token_nll(logits_NV, targets_N).cpu().numpy(),
        (greedy_N == targets_N).cpu().numpy(),
        mean_N.cpu().numpy(),
        variance_N.sqrt().cpu().numpy(),
        greedy_N.int().cpu().numpy(),
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[TargetLosses]:
    asked = model if isinstance(model, TargetLosses) else TargetLosses(model)
    was_training = model.training
    asked.eval()
    try:
        # Not inference_mode: a sharded model trains on with what it gathers here.
        with torch.no_grad():
            yield asked
    finally:
        asked.train(was_training)


def _batches(
    model: nn.Module, texts: TokenizedTexts, windows: Windows, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], TargetStates, Tensor]]:
    """Windows of a batch, and states and targets at its real positions."""
    device = next(model.parameters()).device
    for chosen in _grouped(windows, batch_tokens):
        inputs, targets = padded(texts, windows, chosen)
        targets_BT = torch.from_numpy(targets).to(device)
        is_target_BT = targets_BT != PADDING
        states = target_states(model, torch.from_numpy(inputs).to(device), is_target_BT)
        yield chosen, states, targets_BT[is_target_BT]
