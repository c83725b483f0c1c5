"""Model and texts -> losses in evaluation mode, per sample or per token.

Tensors: B windows of a batch, T positions, N predicted tokens of a batch end to end, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.utils.checkpoint import checkpoint

from gdc.filesystem import scratch
from gdc.training.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    cut_windows,
    group_by_tokens,
    pad_windows,
    target_indices,
)
from gdc.training.distributed import SINGLE_PROCESS, Group
from gdc.training.models import TargetStates, target_states
from gdc.training.token_records import TokenRecords

# Logits held at once: those of more targets are computed in parts.
MAX_LOGITS: Final = 2**24
# Of these a processor turns so many at a time into losses or gradients: they stay in its cache.
_CACHED_LOGITS: Final = 2**20
# Of the columns of ``TokenRecords`` after ``position``.
_TOKEN_DTYPES: Final = (np.float32, np.bool_, np.float32, np.float32, np.int32)
# Since torch 2.13; it does not support autocast.
_HAS_LINEAR_CROSS_ENTROPY: Final = hasattr(F, "linear_cross_entropy")


def token_nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross entropy of each target in nats, float32 whatever the precision of the logits."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def target_nll(states: TargetStates, targets_N: Tensor) -> Tensor:
    """``token_nll`` of each target, holding no more than ``MAX_LOGITS`` logits.

    The backward pass computes the logits of each part again.
    """
    parts = _parts(states)
    if states.weight is None or len(parts) <= 1:
        return _nll_of_own(states.logits(), targets_N)
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
        return _nll_of_own(states.logits(part), targets_N[part])

    return torch.cat([checkpoint(part_nll, part, use_reentrant=False) for part in parts])


def _nll_of_own(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """``token_nll`` of logits that nothing else reads."""
    if logits_NV.device.type != "cpu":
        return token_nll(logits_NV, targets_N)
    nll_N: Tensor = _CachedCrossEntropy.apply(logits_NV, targets_N)  # type: ignore[no-untyped-call]
    return nll_N


class _CachedCrossEntropy(torch.autograd.Function):
    """``token_nll`` part by part; the gradient takes the place of the logits.

    In one piece it makes three more arrays of their size. Large arrays come from the system and go
    back to it, which on a processor costs as much as the computing.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        size = _num_cached_rows(logits_NV)
        parts = zip(torch.split(logits_NV, size), torch.split(targets_N, size), strict=True)
        nll_N = torch.cat([token_nll(logits, targets) for logits, targets in parts])
        ctx.save_for_backward(logits_NV, targets_N, nll_N)
        return nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        logits_NV, targets_N, nll_N = ctx.saved_tensors
        arrays = (logits_NV, targets_N[:, None], grad_N[:, None], nll_N[:, None])
        size = _num_cached_rows(logits_NV)
        for logits, target, grad, nll in zip(*(torch.split(a, size) for a in arrays), strict=True):
            # A view of float32 logits, and a copy of others.
            part = logits.float()
            # One after the other: their sum would be rounded at the size of the logits.
            part.sub_(part.gather(1, target)).sub_(nll).exp_()
            part.mul_(grad).scatter_add_(1, target, -grad)
            logits.copy_(part)
        return logits_NV, None


def _num_cached_rows(logits_NV: Tensor) -> int:
    return max(1, _CACHED_LOGITS // logits_NV.shape[1])


def weighted_loss(nll_N: Tensor, weight_N: Tensor, batch_weight_N: Tensor) -> Tensor:
    """Weighted mean loss of a batch, or the part of it that some of its tokens contribute.

    Sum of w nll over sum of |w|; with unit weights the mean, and 0 where all weights are 0, as
    when a whole batch is masked.

    Args:
        nll_N: Losses of the tokens of a batch, or of one rank's share of them.
        weight_N: Their weights.
        batch_weight_N: Weights of all tokens of the batch, so that the shares add up to its loss.
    """
    return (weight_N * nll_N).sum() / batch_weight_N.abs().sum().clamp(
        min=torch.finfo(weight_N.dtype).tiny
    )


def _parts(states: TargetStates) -> list[slice]:
    size = max(1, MAX_LOGITS // states.vocab_size)
    return [slice(start, start + size) for start in range(0, len(states.hidden), size)]


class TargetLosses(nn.Module):
    """A model whose output is the losses at the real positions of a padded batch.

    A module, because DDP and FSDP act only when a module that they wrap is called.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Losses of the N targets that are not padding, nats, row by row."""
        is_target_BT = targets_BT != PADDING
        states = target_states(self.model, inputs_BT, is_target_BT)
        return target_nll(states, targets_BT[is_target_BT])


def sample_losses(
    model: nn.Module,
    texts: TokenizedTexts,
    *,
    block_size: int,
    batch_tokens: int,
    group: Group = SINGLE_PROCESS,
) -> NDArray[np.float64]:
    """Mean nats per token of every text; windows of a long text are summed.

    The model, or its ``TargetLosses``, is left in the mode (training or evaluation) it came in.
    Each rank evaluates its share of the batches and returns the losses of all texts.
    """
    windows = cut_windows(texts, block_size)
    sums = np.zeros(len(windows))
    with _evaluation_mode(model) as loss_model:
        for batch, nll_N in _batch_losses(loss_model, texts, windows, batch_tokens, group):
            row_N = np.repeat(np.arange(len(batch)), windows.num_targets[batch])
            sums_B = torch.zeros(len(batch), dtype=torch.float64, device=nll_N.device)
            sums_B.index_add_(0, torch.from_numpy(row_N).to(nll_N.device), nll_N.double())
            sums[batch] = sums_B.cpu().numpy()
    return mean_per_sequence(windows, group.all_reduce(sums), texts)


def token_losses(
    model: nn.Module,
    texts: TokenizedTexts,
    *,
    block_size: int,
    batch_tokens: int,
    group: Group = SINGLE_PROCESS,
) -> NDArray[np.float32]:
    """Loss of every predicted token, nats, one text after the other; else as ``sample_losses``.

    The array lies in a file where the ids of the texts do.
    """
    windows = cut_windows(texts, block_size)
    nll = scratch.zeros(int(texts.num_tokens.sum()), np.float32, like=texts.ids)
    with _evaluation_mode(model) as loss_model:
        for batch, nll_N in _batch_losses(loss_model, texts, windows, batch_tokens, group):
            nll[_token_indices(texts, windows, batch)] = nll_N.cpu().numpy()
            scratch.forget(nll)
    return group.all_reduce(nll)


def _batch_losses(
    loss_model: TargetLosses,
    texts: TokenizedTexts,
    windows: Windows,
    batch_tokens: int,
    group: Group,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Windows of each batch of this rank, and the losses of their tokens end to end."""
    device = next(loss_model.parameters()).device
    batches = _evaluation_batches(windows, batch_tokens)
    # A sharded model runs only on all ranks together, so each rank runs as many batches.
    for first in range(0, len(batches), group.world_size):
        index = first + group.rank
        batch = batches[min(index, len(batches) - 1)]
        arrays = pad_windows(texts, windows, batch)
        inputs_BT, targets_BT = (torch.from_numpy(array).to(device) for array in arrays)
        nll_N = loss_model(inputs_BT, targets_BT)
        if index < len(batches):
            yield batch, nll_N


def _evaluation_batches(windows: Windows, batch_tokens: int) -> list[NDArray[np.int64]]:
    order = np.argsort(windows.length, kind="stable")
    return group_by_tokens(windows.length, order, batch_tokens)


def sample_losses_from_tokens(
    nll: NDArray[np.float32], texts: TokenizedTexts, *, block_size: int
) -> NDArray[np.float64]:
    """Result of ``sample_losses``, on a CPU bit by bit, from that of ``token_losses``."""
    windows = cut_windows(texts, block_size)
    sums, ends = np.zeros(len(windows)), windows.num_targets.cumsum()
    first = 0
    while first < len(windows):
        start = ends[first] - windows.num_targets[first]
        # As many windows as a piece holds tokens, or one.
        last = max(first + 1, int(np.searchsorted(ends, start + scratch.PIECE, side="right")))
        num_targets = windows.num_targets[first:last]
        window = np.repeat(np.arange(last - first), num_targets)
        weights = nll[start : ends[last - 1]]
        sums[first:last] = np.bincount(window, weights=weights, minlength=last - first)
        scratch.forget(nll)
        first = last
    return mean_per_sequence(windows, sums, texts)


def mean_per_sequence(
    windows: Windows, sums: NDArray[np.floating], texts: TokenizedTexts
) -> NDArray[np.float64]:
    """Mean nats per token of each sequence from the sums of its windows."""
    totals = np.bincount(windows.sequence, weights=sums, minlength=len(texts))
    return np.asarray(totals / texts.num_tokens, dtype=np.float64)


def token_records(
    model: nn.Module, texts: TokenizedTexts, *, block_size: int, batch_tokens: int
) -> TokenRecords:
    """One pass over the texts: all that the audits need of every predicted token."""
    windows = cut_windows(texts, block_size)
    # Not parts to join: small arrays that stay between large ones that go keep the heap from
    # shrinking.
    num_tokens = int(texts.num_tokens.sum())
    columns: list[NDArray[Any]] = [np.zeros(num_tokens, dtype) for dtype in _TOKEN_DTYPES]
    with _evaluation_mode(model):
        for batch, states, targets_N in _batch_states(model, texts, windows, batch_tokens):
            index = _token_indices(texts, windows, batch)
            for part in _parts(states):
                found = _token_columns(states.logits(part), targets_N[part])
                for column, values in zip(columns, found, strict=True):
                    column[index[part]] = values
    return TokenRecords(*texts.positions(), *columns)


def _token_indices(
    texts: TokenizedTexts, windows: Windows, batch: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Indices of a batch's targets among the predicted tokens of all texts."""
    rows = np.repeat(windows.sequence[batch], windows.num_targets[batch])
    return texts.target_ranks(target_indices(texts, windows, batch), rows)


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
def _evaluation_mode(model: nn.Module) -> Iterator[TargetLosses]:
    loss_model = model if isinstance(model, TargetLosses) else TargetLosses(model)
    was_training = model.training
    loss_model.eval()
    try:
        # Not inference_mode: a sharded model keeps the weights it gathers here for training.
        with torch.no_grad():
            yield loss_model
    finally:
        loss_model.train(was_training)


def _batch_states(
    model: nn.Module, texts: TokenizedTexts, windows: Windows, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], TargetStates, Tensor]]:
    """Windows of a batch, and states and targets at its real positions."""
    device = next(model.parameters()).device
    for batch in _evaluation_batches(windows, batch_tokens):
        inputs, targets = pad_windows(texts, windows, batch)
        targets_BT = torch.from_numpy(targets).to(device)
        is_target_BT = targets_BT != PADDING
        states = target_states(model, torch.from_numpy(inputs).to(device), is_target_BT)
        yield batch, states, targets_BT[is_target_BT]
