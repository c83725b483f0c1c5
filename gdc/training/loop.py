"""Model, samples and a recipe -> a trained model and every sample's loss at every checkpoint.

Tensors: B windows of a batch, T positions, N predicted tokens of the batch end to end.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from gdc.environment import checkpoint_seconds
from gdc.errors import DataError
from gdc.filesystem import scratch
from gdc.training import distributed, models
from gdc.training.batches import TokenizedTexts, pad_windows, target_indices
from gdc.training.checkpoints import CheckpointFile, rng_state, run_digest, set_rng_state
from gdc.training.distributed import SINGLE_PROCESS, Group, State
from gdc.training.losses import (
    TargetLosses,
    mean_per_sequence,
    sample_losses,
    sample_losses_from_tokens,
    token_losses,
    weighted_loss,
)
from gdc.training.private import set_private_gradients
from gdc.training.recipe import Recipe, TrainingData, count_steps, epoch_batches, learning_rate
from gdc.training.recording import Recording, TokenSnapshot, TraceSink


def train(  # noqa: PLR0913  # what is trained, how, and where it is kept
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    checkpoints: Path,
    name: str,
    trace: TraceSink | None = None,
    group: Group = SINGLE_PROCESS,
    watch: Callable[[Recording], None] | None = None,
) -> Recording:
    """Train ``model`` in place and record losses on the way.

    At the end of every epoch the loss that each sample had when it was trained on (before the
    update) makes a checkpoint of mode ``online``: it costs nothing and lags equally for all
    samples. A checkpoint of mode ``probe`` evaluates all samples under the frozen model. The
    held-out texts are always evaluated under the frozen model, at both kinds of checkpoint.

    With ``recipe.token_losses`` the first probe (without probes: the end of the first epoch) and
    the end of the run are recorded token by token. With ``recipe.self_influence`` each batch passes
    the model once more after the update, in training mode with the dropout of its first pass, so
    that only the update makes the difference. Neither changes a bit of the training.

    With ``recipe.privacy`` an update is made of clipped gradients of single texts and noise. A text
    is in a pass several times or never: its online loss is the last one, or NaN.

    Several processes divide each batch among them, so batches are as large as those of one
    process. Weights and losses then differ from those of one process only by the rounding of sums,
    and with dropout by its draws, which each process makes on its own. All processes end with the
    same weights and losses.

    Args:
        model: A causal language model on the device to train on.
        data: Texts, weights and copies.
        recipe: Hyper-parameters and seed.
        checkpoints: Folder for resuming. A killed run that is started again continues from there
            and ends with the same bytes as one that was never killed (with three processes or
            more up to rounding, as they sum gradients in another order after a start). A damaged
            checkpoint is renamed, with a message, and the run starts from the beginning.
        name: Shown by the progress bar; no two runs at the same time may share it.
        trace: Takes the losses of the samples; None: they are not kept.
        group: The processes that train together.
        watch: Called after each step with what is recorded so far.

    Raises:
        ConfigError: The recipe asks for what these processes cannot do (``require_group``).
        DataError: No sample is left to train on, or the loss is no longer finite.
    """
    trainer = Trainer(model, data, recipe, trace, group)
    digest = run_digest(model, data, name, recipe, trainer.device.type, group.world_size)
    checkpoint = CheckpointFile(checkpoints / f"{digest}.pt", group)
    trainer.resume(checkpoint)
    trainer.record_base()
    started, num_tokens = time.monotonic(), 0
    with tqdm(
        desc=name,
        initial=trainer.step,
        total=trainer.num_steps,
        unit="step",
        mininterval=1 if os.isatty(2) else 15,
        disable=not group.is_main,
    ) as bar:
        while trainer.step < trainer.num_steps:
            num_tokens += trainer.train_step()
            speed = bar.format_sizeof(num_tokens / (time.monotonic() - started))
            bar.set_postfix_str(f"{speed} tokens/s", refresh=False)
            bar.update()
            if watch is not None:
                watch(trainer.recording)
            trainer.save_if_due(checkpoint)
    trainer.finish()
    checkpoint.remove()
    return trainer.recording


class Trainer:
    """A training run between two optimizer steps."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        trace: TraceSink | None,
        group: Group,
    ) -> None:
        recipe.require_group(group.world_size, is_sharded=group.is_sharded)
        models.prepare(model, recipe.precision)
        self.model, self.data, self.recipe = model.train(), data, recipe
        self.trace, self.group = trace, group
        self.loss_model: nn.Module = TargetLosses(model)
        if group.is_sharded:
            self.loss_model = distributed.shard(self.loss_model)
        # A sharded model averages its gradients by itself.
        self.ddp_model = self.loss_model
        if group.world_size > 1 and not group.is_sharded:
            self.ddp_model = distributed.replicate(self.loss_model)
        self.device = next(self.loss_model.parameters()).device
        self.windows = data.windows(recipe.block_size)
        self.num_steps = recipe.num_steps or count_steps(data, recipe)
        self.optimizer = torch.optim.AdamW(
            self.loss_model.parameters(),
            lr=recipe.config.learning_rate,
            weight_decay=recipe.config.weight_decay,
            fused=True,
        )
        self.recording = Recording(num_masked_tokens=data.num_masked)
        self.step = self.epoch = self.batch_index = 0
        # Loss of each window in the current epoch, nats; NaN: not seen yet.
        self.window_nll = torch.full((len(self.windows),), torch.nan, device=self.device)
        # Loss of each window before minus after its steps, nats; NaN: it was in none.
        self.window_gain = self.window_nll[: len(self.windows) * recipe.self_influence].double()
        self.batches = epoch_batches(self.windows, recipe, 0, data.early)
        # Of each pass the losses that weights are revised by: as trained on, and at its end.
        self.weights, self.passes = data.weights, list[NDArray[np.float32]]()
        self.saved = time.monotonic()
        # A killed run loses at most about this much of training.
        self.save_seconds = checkpoint_seconds()
        self.save_is_due = False
        # The ranks train on different texts, so their dropout differs too.
        torch.manual_seed(recipe.seed + group.rank)

    def train_step(self) -> int:
        """Take one optimizer step and record what is due; returns the tokens it predicted."""
        batch = self.batches[self.batch_index]
        rate = learning_rate(self.recipe.config, self.step, self.num_steps)
        optimize = self._optimize if self.recipe.privacy is None else self._optimize_privately
        loss = optimize(batch, rate)
        self.step += 1
        self.batch_index += 1
        self.recording.curve.append((self.step, loss))
        if self.data.revision is not None:
            self.recording.note_weights(self.weights, self.data.weights, self.epoch)
        self._take_snapshot_if_due()
        if self._probe_is_due():
            self.record("probe", rate, self.evaluate("train"))
        if self.batch_index == len(self.batches):
            self._end_epoch(rate)
        return int(self.windows.length[batch].sum())

    def forward(
        self, batch: NDArray[np.int64], model: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Losses of the N predicted tokens of some windows, nats, and the row of each."""
        ids = pad_windows(self.data.texts, self.windows, batch)
        with self._autocast():
            inputs, targets = (torch.from_numpy(part).to(self.device) for part in ids)
            nll_N = (model or self.ddp_model)(inputs, targets)
        row_N = np.repeat(np.arange(len(batch)), self.windows.num_targets[batch])
        return nll_N, torch.from_numpy(row_N).to(self.device)

    def evaluate(self, split: Literal["train", "heldout"]) -> NDArray[np.float64]:
        """Loss of each text of a split under the frozen model, nats per token."""
        texts = self.data.texts if split == "train" else self.data.heldout
        snapshots = self.recording.snapshots
        if snapshots and snapshots[-1].step == self.step:
            nll: NDArray[np.float32] = getattr(snapshots[-1], split)
            return sample_losses_from_tokens(nll, texts, block_size=self.recipe.block_size)
        return self._evaluate_frozen(sample_losses, texts)

    def record(self, mode: str, rate: float, sample_loss: NDArray[np.float64]) -> None:
        """Add a checkpoint with these losses of the training samples."""
        recording = self.recording
        epoch = self.epoch + self.batch_index / len(self.batches)
        if not (recording.checkpoints and recording.checkpoints[-1][1] == self.step):
            self.heldout = self.evaluate("heldout").astype(np.float32)
        ordinary = self.heldout[: len(self.heldout) - self.data.num_twins]
        recording.heldout_means.append(
            float(ordinary.mean(dtype=np.float64)) if len(ordinary) else np.nan
        )
        recording.checkpoints.append((len(recording.checkpoints), self.step, epoch, mode, rate))
        if self.trace is not None:
            self.trace.append(sample_loss.astype(np.float32), self.heldout)

    def record_base(self) -> None:
        """Evaluate all samples before the first step, if that is asked for and not done yet."""
        if self.recipe.base_losses and self.recording.base is None:
            self.recording.base = self._evaluate_frozen(sample_losses, self.data.texts)

    def resume(self, checkpoint: CheckpointFile) -> None:
        """Continue from the checkpoint if there is one, and let the trace continue from there."""
        state = checkpoint.load(self.device)
        if state is not None:
            self.load_state_dict(state)
        if self.trace is not None:
            self.trace.resume(checkpoint.path.stem, len(self.recording.checkpoints))
        self.group.barrier()

    def save_if_due(self, checkpoint: CheckpointFile) -> None:
        """Save the run, and before it what the trace has been given."""
        if not self.save_is_due:
            return
        if self.trace is not None:
            self.trace.flush()
        # Made by all ranks together, as each has a part of it.
        checkpoint.save(self.state_dict())
        for snapshot in self.recording.snapshots:
            scratch.forget(snapshot.train, snapshot.heldout)
        self.saved = time.monotonic()

    def finish(self) -> None:
        """Flush the trace, gather the weights and check that they are finite."""
        if self.trace is not None:
            self.trace.flush()
        # A rank that could not write its trace ends here, before any checkpoint is removed.
        self.group.barrier()
        if self.group.is_sharded:
            distributed.gather_weights(self.loss_model, self.model)
        # The last update may have made weights infinite, which no later loss shows.
        for parameter in self.model.parameters():
            self._require_finite(bool(parameter.detach().isfinite().all()))
        self.recording.gain = self._sample_gain()

    def state_dict(self) -> State:
        """All that a run needs to resume; for the whole group, so all ranks must call it."""
        weights = (
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            if self.group.world_size == 1
            else distributed.full_state(self.loss_model, self.optimizer)
        )
        return {
            **weights,
            "step": self.step,
            "epoch": self.epoch,
            "batch_index": self.batch_index,
            "window_nll": self.group.all_gather(self.window_nll),
            "window_gain": self.group.all_gather(self.window_gain),
            "rng": [self.group.all_gather(state) for state in rng_state(self.device)],
            "passes": [torch.from_numpy(both) for both in self.passes],
            **self.recording.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` gave."""
        rank = self.group.rank
        if self.group.world_size == 1:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            distributed.set_full_state(self.loss_model, self.optimizer, state)
        self.step, self.epoch = state["step"], state["epoch"]
        self.batch_index = state["batch_index"]
        self.window_nll = state["window_nll"][rank]
        self.window_gain = state["window_gain"][rank]
        self.passes = [both.cpu().numpy() for both in state["passes"]]
        self._revise_weights()
        self.batches = epoch_batches(self.windows, self.recipe, self.epoch, self.data.early)
        set_rng_state(self.device, [states[rank] for states in state["rng"]])
        self.recording.load_state_dict(state, like=self.data.texts.ids)

    def _optimize(self, batch: NDArray[np.int64], rate: float) -> float:
        rng = rng_state(self.device) if self.recipe.self_influence else []
        local = self.group.share(batch)
        # Gradients are summed over all ranks, so one without windows takes the step with weight 0.
        windows = local if len(local) else batch[:1]
        nll_N, row_N = self.forward(windows)
        weight_N = self._token_weights(windows) * bool(len(local))
        loss = weighted_loss(nll_N, weight_N, self._token_weights(batch))
        batch_loss = self._reduce_loss(float(loss.detach()))
        self._require_finite(bool(np.isfinite(batch_loss)))
        # Gradients are averaged over the ranks, and the losses of their shares must be summed.
        (loss * self.group.world_size).backward()  # type: ignore[no-untyped-call]  # torch's
        self._update(rate)
        if len(local):
            self._keep_window_losses(local, nll_N.detach(), row_N)
        if self.recipe.self_influence and len(local):
            self._add_window_gains(local, nll_N.detach(), row_N, rng)
        return batch_loss

    def _optimize_privately(self, batch: NDArray[np.int64], rate: float) -> float:
        assert self.recipe.privacy is not None  # noqa: S101 - the caller looks
        text_losses: list[float] = []

        def losses() -> Iterator[Tensor]:
            sequence = self.windows.sequence[batch]
            for text in np.unique(sequence):
                windows = batch[sequence == text]
                nll_N, row_N = self.forward(windows)
                weight_N = self._token_weights(windows)
                loss = weighted_loss(nll_N, weight_N, weight_N)
                text_losses.append(float(loss.detach()))
                self._keep_window_losses(windows, nll_N.detach(), row_N)
                yield loss

        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        num_texts = len(np.unique(self.windows.sequence))
        set_private_gradients(trained, losses(), self.recipe.privacy, num_texts / len(self.batches))
        # A batch may be empty; the step is taken with the noise alone.
        batch_loss = self._reduce_loss(float(np.mean(text_losses)) if text_losses else 0.0)
        self._require_finite(bool(np.isfinite(batch_loss)))
        self._update(rate)
        return batch_loss

    def _update(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self.ddp_model.parameters(), self.recipe.config.clip_norm)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # forward passes until the next need none

    def _reduce_loss(self, loss: float) -> float:
        """Loss of the whole batch; the main rank's clock decides when all ranks save."""
        is_due = self.group.is_main and time.monotonic() - self.saved >= self.save_seconds
        batch_loss, self.save_is_due = self.group.all_reduce(np.array([loss, is_due])).tolist()
        return float(batch_loss)

    def _keep_window_losses(self, batch: NDArray[np.int64], nll_N: Tensor, row_N: Tensor) -> None:
        # Reduced on the device: no work in Python per token or per sample.
        sums_B = torch.zeros(len(batch), device=self.device).index_add(0, row_N, nll_N)
        self.window_nll[torch.from_numpy(batch).to(self.device)] = sums_B

    def _add_window_gains(
        self, batch: NDArray[np.int64], nll_N: Tensor, row_N: Tensor, rng: Sequence[Tensor]
    ) -> None:
        # The same draws again, which leave the generator where it stood. The forward pass keeps
        # its gradient, though it is not used: without it torch chooses other kernels.
        set_rng_state(self.device, rng)
        # DDP would wait for the gradients of this pass.
        after_N = self.forward(batch, self.loss_model)[0].detach()
        index_B = torch.from_numpy(batch).to(self.device)
        gain_N = (nll_N - after_N).double()
        gain_B = self.window_gain[index_B].nan_to_num().index_add(0, row_N, gain_N)
        self.window_gain[index_B] = gain_B

    def _token_weights(self, batch: NDArray[np.int64]) -> Tensor:
        window_weights = self.weights[self.windows.sequence[batch]].astype(np.float32)
        weights = np.repeat(window_weights, self.windows.num_targets[batch])
        if self.data.masked is not None:
            targets = target_indices(self.data.texts, self.windows, batch)
            weights[self.data.masked[targets]] = 0
            scratch.forget(self.data.masked)
        return torch.from_numpy(weights).to(self.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _probe_is_due(self) -> bool:
        per_epoch, size = self.recipe.probes_per_epoch, len(self.batches)
        return self.batch_index * per_epoch // size > (self.batch_index - 1) * per_epoch // size

    def _take_snapshot_if_due(self) -> None:
        snapshots, has_probes = self.recording.snapshots, self.recipe.probes_per_epoch > 0
        is_end_of_epoch = self.batch_index == len(self.batches)
        is_frozen = self._probe_is_due() if has_probes else is_end_of_epoch
        is_due = self.step == self.num_steps or (is_frozen and not snapshots)
        if self.recipe.token_losses and is_due:
            train = self._evaluate_frozen(token_losses, self.data.texts)
            heldout = self._evaluate_frozen(token_losses, self.data.heldout)
            snapshots.append(TokenSnapshot(self.step, train, heldout))

    def _end_epoch(self, rate: float) -> None:
        sums = self._reduce_window_losses()
        # The windows of a copied sample were summed once for each copy.
        num_times = np.maximum(self.data.copies, 1)
        online = mean_per_sequence(self.windows, sums, self.data.texts) / num_times
        online[~self.data.is_trained] = np.nan
        self.record("online", rate, online)
        if self.data.revision is not None:
            both = np.stack([online, self.evaluate("train")])
            self.passes.append(both.astype(np.float32))
            self._revise_weights()
        self.window_nll.fill_(torch.nan)
        self.epoch += 1
        self.batch_index = 0
        self.batches = epoch_batches(self.windows, self.recipe, self.epoch, self.data.early)

    def _revise_weights(self) -> None:
        if self.data.revision is not None and self.passes:
            self.weights = self.data.revision(*np.stack(self.passes, axis=1))

    def _reduce_window_losses(self) -> NDArray[np.float64]:
        """Loss of each window in an epoch that has ended, whichever rank trained on it.

        With privacy NaN for those in no batch.
        """
        local = self.window_nll.double().cpu().numpy()
        if self.recipe.privacy is not None:
            return np.asarray(local)
        num_seen = self.group.all_reduce((~np.isnan(local)).astype(np.int64))
        assert (num_seen == 1).all()  # noqa: S101 - a batch is divided among the ranks
        return self.group.all_reduce(np.nan_to_num(local))

    def _evaluate_frozen(
        self, losses_of: Callable[..., NDArray[Any]], texts: TokenizedTexts
    ) -> NDArray[Any]:
        with self._autocast():
            return losses_of(
                self.loss_model,
                texts,
                block_size=self.recipe.block_size,
                batch_tokens=self.recipe.config.batch_tokens,
                group=self.group,
            )

    def _sample_gain(self) -> NDArray[np.float64] | None:
        if not self.recipe.self_influence:
            return None
        local = self.window_gain.cpu().numpy()
        # A window may be in batches of several ranks.
        sums = map(self.group.all_reduce, (np.nan_to_num(local), 1.0 - np.isnan(local)))
        gain, num_seen = (mean_per_sequence(self.windows, part, self.data.texts) for part in sums)
        self._require_finite(bool(np.isfinite(gain).all()))
        return np.where(num_seen > 0, gain / np.maximum(self.data.copies, 1), np.nan)

    def _require_finite(self, is_finite: bool) -> None:
        if not is_finite:
            config = self.recipe.config
            raise DataError(
                f"training: expected finite losses and weights, got others at step {self.step}. "
                f"Lower training.learning_rate ({config.learning_rate}) or training.clip_norm "
                f"({config.clip_norm}), or use model.precision: float32."
            )
