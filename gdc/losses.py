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

from gdc.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    group_by_tokens,
    padded,
    target_places,
    windows_of,
)
from gdc.models import TargetStates, target_states
from gdc.token_records import TokenRecords

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


def sample_losses(
    model: nn.Module, texts: TokenizedTexts, *, block_size: int, batch_tokens: int
) -> NDArray[np.float64]:
    """Mean nats per token of every text; windows of a long text are summed.

    The model is left in the mode (training or evaluation) it came in.
    """
    windows = windows_of(texts, block_size)
    sums = np.zeros(len(windows))
    with _evaluating(model):
        for chosen, states, targets_N, row_N in _batches(model, texts, windows, batch_tokens):
            nll_N = target_nll(states, targets_N).double()
            total = torch.zeros(len(chosen), dtype=torch.float64, device=nll_N.device)
            sums[chosen] = total.index_add(0, row_N, nll_N).cpu().numpy()
    return per_sequence(windows, sums, texts)


def token_losses(
    model: nn.Module, texts: TokenizedTexts, *, block_size: int, batch_tokens: int
) -> NDArray[np.float32]:
    """Nats of every predicted token, one text after the other; otherwise as ``sample_losses``."""
    windows = windows_of(texts, block_size)
    nll = np.zeros(int(texts.num_tokens.sum()), dtype=np.float32)
    with _evaluating(model):
        for chosen, states, targets_N, _ in _batches(model, texts, windows, batch_tokens):
            nll[_places(windows, chosen)] = target_nll(states, targets_N).cpu().numpy()
    return nll


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
        for chosen, states, targets_N, _ in _batches(model, texts, windows, batch_tokens):
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
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _batches(
    model: nn.Module, texts: TokenizedTexts, windows: Windows, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], TargetStates, Tensor, Tensor]]:
    """Windows of a batch, states and targets at its N real positions, and the row of each."""
    device = next(model.parameters()).device
    order = np.argsort(windows.length, kind="stable")
    for chosen in group_by_tokens(windows.length, order, batch_tokens):
        inputs, targets = padded(texts, windows, chosen)
        targets_BT = torch.from_numpy(targets).to(device)
        is_target_BT = targets_BT != PADDING
        states = target_states(model, torch.from_numpy(inputs).to(device), is_target_BT)
        yield chosen, states, targets_BT[is_target_BT], is_target_BT.nonzero()[:, 0]
