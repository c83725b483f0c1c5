"""Texts, weights and a seed -> a trained model and every sample's loss at every checkpoint."""

import os
import pickle
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from gdc.config import TrainingConfig
from gdc.durable import put_in_place
from gdc.environment import checkpoint_seconds
from gdc.errors import ConfigError, DataError
from gdc.schema import CHECKPOINTS
from gdc.training import distributed, models
from gdc.training.batches import (
    TokenizedTexts,
    Windows,
    padded,
    plan_batches,
    target_places,
    windows_of,
)
from gdc.training.distributed import ALONE, Processes
from gdc.training.losses import (
    TargetLosses,
    mean_of_tokens,
    per_sequence,
    sample_losses,
    token_losses,
)

# A run that was killed and not started again for so long, in seconds, will not be.
_ABANDONED_SECONDS: Final = 7 * 24 * 3600.0
# What zipfile and torch raise for a file that is not as it was written.
_DAMAGE: Final = (
    EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# The code that trains: all of this package.
_CODE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run's result, apart from the texts."""

    config: TrainingConfig
    block_size: int  # predicted tokens of a window at most
    precision: str  # float32 or bfloat16
    seed: int  # of the batches and of dropout
    probes_per_epoch: int = 0  # frozen checkpoints at which every sample is probed
    num_steps: int | None = None  # optimizer steps; None: those of `config.epochs` passes
    token_losses: bool = False  # record the first frozen look and the last step token by token
    self_influence: bool = False  # record what each step gains on its own samples


@dataclass(frozen=True)
class TrainingData:
    """The samples of one run.

    ``weights`` float64 (factor of a sample's loss) and ``copies`` int64 (times per epoch) have one
    entry for each text; a sample with weight 0 or no copies is not trained on. ``masked`` has one
    for each id of ``texts``: predicting it carries no loss, though later tokens see it; None masks
    nothing.
    """

    texts: TokenizedTexts
    weights: NDArray[np.float64]
    copies: NDArray[np.int64]
    heldout: TokenizedTexts
    masked: NDArray[np.bool_] | None = None

    @classmethod
    def unweighted(cls, texts: TokenizedTexts, heldout: TokenizedTexts) -> "TrainingData":
        """Every sample once an epoch with weight 1."""
        return cls(texts, np.ones(len(texts)), np.ones(len(texts), dtype=np.int64), heldout)


class TokenLook(NamedTuple):
    """Losses of all predicted tokens after ``step`` optimizer steps, the model frozen.

    Float32, nats, one text after the other.
    """

    step: int
    train: NDArray[np.float32]
    heldout: NDArray[np.float32]


class TraceSink(Protocol):
    """Takes the losses of samples, checkpoint by checkpoint.

    Each is float32, nats per token, in text order, over all tokens of a sample, masked ones too;
    NaN where a training sample was not seen. All processes get the same.
    """

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Called first: what holds of the run with this name; the rest comes again."""

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """The losses of the training and of the held-out samples at the next checkpoint."""

    def flush(self) -> None:
        """Return when all that came will outlive this process."""


@dataclass
class Recording:
    """What a run has recorded so far, besides the losses of its samples.

    ``checkpoints`` holds rows of ``CHECKPOINTS``, ``heldout_means`` the mean held-out loss at each
    of them (NaN without held-out texts), ``curve`` (step, loss that was trained); nats per token.
    ``looks`` are the first frozen one and that after the last step, one where they are the same.
    ``gain`` float64: each sample's loss before minus after every step it was in, summed, nats per
    token; NaN: it was in none.
    """

    checkpoints: list[tuple[int, int, float, str, float]] = field(default_factory=list)
    heldout_means: list[float] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    num_masked_tokens: int = 0
    looks: list[TokenLook] = field(default_factory=list)
    gain: NDArray[np.float64] | None = None

    def checkpoint_table(self) -> pl.DataFrame:
        """The recorded checkpoints."""
        return pl.DataFrame(self.checkpoints, schema=CHECKPOINTS, orient="row")


def weighted_loss(nll_N: Tensor, weight_N: Tensor, weight_of_batch: Tensor) -> Tensor:
    """Sum of w nll over sum of |w|, both over predicted tokens; with unit weights the mean.

    0 where all weights are, as when a whole batch is masked. The sum below is over the whole batch,
    of which ``nll_N`` may be a share: the losses of its shares add up to its loss.
    """
    return (weight_N * nll_N).sum() / weight_of_batch.abs().sum().clamp(
        min=torch.finfo(weight_N.dtype).tiny
    )


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """Rate of optimizer step ``step`` (from 0): linear warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return float(config.learning_rate * 0.5 * (1 + np.cos(np.pi * progress)))


def count_steps(data: TrainingData, recipe: Recipe) -> int:
    """Optimizer steps of ``config.epochs`` passes over ``data``."""
    windows = _used_windows(data, recipe.block_size)
    return sum(len(_plan(windows, recipe, epoch)) for epoch in range(recipe.config.epochs))


def train(  # noqa: PLR0913  # what is trained, how, and where it is kept
    model: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    checkpoints: Path,
    name: str,
    trace: TraceSink | None = None,
    among: Processes = ALONE,
) -> Recording:
    """Train ``model`` in place and record losses on the way.

    After every pass the loss that each sample had when it was trained on (before the update) makes
    a checkpoint of mode ``online``: it costs nothing and lags equally for all. ``probe``
    checkpoints ask a frozen model in evaluation mode. The held-out texts are always asked, frozen,
    at both kinds.

    For ``recipe.token_losses`` the first probe, or without probes the end of the first pass, and
    the end of the run are recorded token by token. For ``recipe.self_influence`` each batch passes
    the model once more after the update, in training mode with the dropout of its first pass, so
    that the difference is the update's alone. Neither changes a bit of the training.

    Several processes take their shares of each batch, so batches are as large as those of one, and
    weights and losses differ by the rounding of sums alone, or with dropout by its draws, of which
    each makes its own; all of them end with the same.

    Args:
        model: A causal language model on the device to train on.
        data: Texts, weights and copies.
        recipe: Hyper-parameters and seed.
        checkpoints: Folder for resuming; a killed run that is started again goes on from there,
            and ends with the same bytes as one that was never killed (three processes or more sum
            gradients in another order after a start: with the same but for rounding). A damaged
            checkpoint is put aside with a message, and the run begins anew.
        name: What the progress bar says; no two runs at the same time may share it.
        trace: Takes the losses of the samples; None: nobody asks for them.
        among: The processes that train together.

    Raises:
        ConfigError: Several processes are asked for ``recipe.self_influence``.
        DataError: No sample is left to train on, or the loss is no longer finite.
    """
    run = _Run(model, data, recipe, trace, among)
    store = _CheckpointStore(checkpoints, run, name)
    store.restore()
    with tqdm(
        desc=name,
        initial=run.step,
        total=run.num_steps,
        unit="step",
        mininterval=1 if os.isatty(2) else 15,
        disable=not among.is_first,
    ) as bar:
        while run.step < run.num_steps:
            num_tokens = run.advance()
            bar.set_postfix_str(
                f"{bar.format_sizeof(run.tokens_per_second(num_tokens))} tokens/s", refresh=False
            )
            bar.update()
            store.save_if_due()
    run.finish()
    store.remove()
    return run.recording


class _Run:
    """The state of a run between two optimizer steps."""

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        trace: TraceSink | None,
        among: Processes,
    ) -> None:
        if recipe.self_influence and among.count > 1:
            raise ConfigError(
                f"train.self_influence: expected one process, got {among.count}. Set it to false, "
                "or unset GDC_LAUNCHER."
            )
        self.model, self.data, self.recipe = model.train(), data, recipe
        self.trace, self.among = trace, among
        self.asked: nn.Module = TargetLosses(model)
        if among.is_sharded:
            self.asked = distributed.shard(self.asked)
        # The same module, where gradients need no call of their own.
        self.trained = self.asked
        if among.count > 1 and not among.is_sharded:
            self.trained = distributed.replicate(self.asked)
        self.device = next(self.asked.parameters()).device
        self.windows = _used_windows(data, recipe.block_size)
        self.num_steps = recipe.num_steps or count_steps(data, recipe)
        self.optimizer = torch.optim.AdamW(
            self.asked.parameters(),
            lr=recipe.config.learning_rate,
            weight_decay=recipe.config.weight_decay,
            fused=True,
        )
        num_masked = 0 if data.masked is None else int(data.masked.sum())
        self.recording = Recording(num_masked_tokens=num_masked)
        self.step = self.epoch = self.batch = 0
        # Loss of each window in the current pass, nats; NaN: not seen yet.
        self.window_nll = torch.full((len(self.windows),), torch.nan, device=self.device)
        # Loss of each window before minus after its steps, nats; NaN: it was in none.
        self.window_gain = torch.full_like(self.window_nll, torch.nan, dtype=torch.float64)
        self.batches = _plan(self.windows, recipe, 0)
        self.started = self.saved = time.monotonic()
        # A killed run loses at most about this much of training.
        self.save_seconds = checkpoint_seconds()
        self.save_is_due = False
        self.tokens_done = 0
        # Dropout differs between the processes, whose texts do.
        torch.manual_seed(recipe.seed + among.rank)

    def advance(self) -> int:
        """Take one optimizer step and record what is due; returns the tokens it predicted."""
        chosen = self.batches[self.batch]
        rate = learning_rate(self.recipe.config, self.step, self.num_steps)
        loss, num_tokens = self._optimize(chosen, rate)
        self.step += 1
        self.batch += 1
        self.recording.curve.append((self.step, loss))
        self._look_if_due()
        if self._probe_is_due():
            self._record("probe", rate, self._losses("train"))
        if self.batch == len(self.batches):
            self._end_of_pass(rate)
        return num_tokens

    def tokens_per_second(self, num_tokens: int) -> float:
        self.tokens_done += num_tokens
        return self.tokens_done / (time.monotonic() - self.started)

    def finish(self) -> None:
        if self.trace is not None:
            self.trace.flush()
        # What one has not written, all make again from the checkpoint.
        self.among.wait()
        if self.among.is_sharded:
            distributed.copy_weights(self.asked, self.model)
        # The last update may have broken weights that no later loss can tell of.
        for parameter in self.model.parameters():
            self.require_finite(bool(parameter.detach().isfinite().all()))
        self.recording.gain = self.sample_gain()

    def sample_gain(self) -> NDArray[np.float64] | None:
        if not self.recipe.self_influence:
            return None
        gain = self.window_gain.cpu().numpy()
        sequence, is_seen = self.windows.sequence, ~np.isnan(gain)
        num_seen = np.bincount(sequence, weights=is_seen, minlength=len(self.data.texts))
        sums = per_sequence(self.windows, np.where(is_seen, gain, 0), self.data.texts)
        return np.where(num_seen > 0, sums / np.maximum(self.data.copies, 1), np.nan)

    def require_finite(self, is_finite: bool) -> None:
        if not is_finite:
            config = self.recipe.config
            raise DataError(
                f"training: expected finite losses and weights, got others at step {self.step}. "
                f"Lower training.learning_rate ({config.learning_rate}) or training.clip_norm "
                f"({config.clip_norm}), or use model.precision: float32."
            )

    def _optimize(self, chosen: NDArray[np.int64], rate: float) -> tuple[float, int]:
        rng = _rng_state(self.device) if self.recipe.self_influence else []
        mine = self.among.share(chosen)
        # All processes take the step, for their gradients are summed; an idle one counts nothing.
        asked = mine if len(mine) else chosen[:1]
        nll_N, row_N = self._nll(asked)
        weight_N = self._token_weights(asked) * bool(len(mine))
        loss = weighted_loss(nll_N, weight_N, self._token_weights(chosen))
        of_batch = self._over_processes(float(loss.detach()))
        self.require_finite(bool(np.isfinite(of_batch)))
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes.
        (loss * self.among.count).backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if len(mine):
            self._keep(mine, nll_N.detach(), row_N)
        if self.recipe.self_influence:
            self._keep_gain(mine, nll_N.detach(), row_N, rng)
        return of_batch, int(self.windows.length[chosen].sum())

    def _over_processes(self, loss: float) -> float:
        """Loss of the whole batch. The first process's clock says when all of them save."""
        is_due = self.among.is_first and time.monotonic() - self.saved >= self.save_seconds
        of_batch, self.save_is_due = self.among.add(np.array([loss, is_due])).tolist()
        return float(of_batch)

    def _keep(self, chosen: NDArray[np.int64], nll_N: Tensor, row_N: Tensor) -> None:
        # Reduced on the device: no work in Python per token or per sample.
        sums = torch.zeros(len(chosen), device=self.device).index_add(0, row_N, nll_N)
        self.window_nll[torch.from_numpy(chosen).to(self.device)] = sums

    def _keep_gain(
        self, chosen: NDArray[np.int64], nll_N: Tensor, row_N: Tensor, rng: Sequence[Tensor]
    ) -> None:
        # The same draws again: the generator ends where it stood, and a gradient that nobody asks
        # for keeps torch on the very same kernels.
        _set_rng_state(self.device, rng)
        after_N = self._nll(chosen)[0].detach()
        self.require_finite(bool(after_N.isfinite().all()))
        at_B = torch.from_numpy(chosen).to(self.device)
        gain_N = (nll_N - after_N).double()
        self.window_gain[at_B] = self.window_gain[at_B].nan_to_num().index_add(0, row_N, gain_N)

    def _token_weights(self, chosen: NDArray[np.int64]) -> Tensor:
        of_window = self.data.weights[self.windows.sequence[chosen]].astype(np.float32)
        weights = np.repeat(of_window, self.windows.length[chosen])
        if self.data.masked is not None:
            weights[self.data.masked[target_places(self.windows, chosen)]] = 0
        return torch.from_numpy(weights).to(self.device)

    def _nll(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Losses at the real positions of a batch, and the row of each."""
        inputs, targets = padded(self.data.texts, self.windows, chosen)
        with self._autocast():
            nll_N = self.trained(
                torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)
            )
        row_N = np.repeat(np.arange(len(chosen)), self.windows.length[chosen])
        return nll_N, torch.from_numpy(row_N).to(self.device)

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _probe_is_due(self) -> bool:
        per_epoch, size = self.recipe.probes_per_epoch, len(self.batches)
        return self.batch * per_epoch // size > (self.batch - 1) * per_epoch // size

    def _look_if_due(self) -> None:
        looks, has_probes = self.recording.looks, self.recipe.probes_per_epoch > 0
        is_frozen = self._probe_is_due() if has_probes else self.batch == len(self.batches)
        is_due = self.step == self.num_steps or (is_frozen and not looks)
        if self.recipe.token_losses and is_due:
            train = self._frozen(token_losses, self.data.texts)
            looks.append(TokenLook(self.step, train, self._frozen(token_losses, self.data.heldout)))

    def _end_of_pass(self, rate: float) -> None:
        sums = self._over_all_windows()
        # The windows of a copied sample were summed once for each copy.
        online = per_sequence(self.windows, sums, self.data.texts) / np.maximum(self.data.copies, 1)
        online[~_is_used(self.data)] = np.nan
        self._record("online", rate, online)
        self.window_nll.fill_(torch.nan)
        self.epoch += 1
        self.batch = 0
        self.batches = _plan(self.windows, self.recipe, self.epoch)

    def _over_all_windows(self) -> NDArray[np.float64]:
        """The loss of each window in a pass that has ended, whichever process had it."""
        own = self.window_nll.double().cpu().numpy()
        num_seen = self.among.add((~np.isnan(own)).astype(np.int64))
        assert (num_seen == 1).all()  # noqa: S101 - the shares of a batch are parts of it
        return self.among.add(np.nan_to_num(own))

    def _record(self, mode: str, rate: float, sample_loss: NDArray[np.float64]) -> None:
        record = self.recording
        epoch = self.epoch + self.batch / len(self.batches)
        if not (record.checkpoints and record.checkpoints[-1][1] == self.step):
            self.heldout = self._losses("heldout").astype(np.float32)
        record.heldout_means.append(
            float(self.heldout.mean(dtype=np.float64)) if len(self.heldout) else np.nan
        )
        record.checkpoints.append((len(record.checkpoints), self.step, epoch, mode, rate))
        if self.trace is not None:
            self.trace.append(sample_loss.astype(np.float32), self.heldout)

    def _losses(self, part: Literal["train", "heldout"]) -> NDArray[np.float64]:
        texts = self.data.texts if part == "train" else self.data.heldout
        looks = self.recording.looks
        if looks and looks[-1].step == self.step:
            return mean_of_tokens(
                getattr(looks[-1], part), texts, block_size=self.recipe.block_size
            )
        return self._frozen(sample_losses, texts)

    def _frozen(
        self, losses_of: Callable[..., NDArray[Any]], texts: TokenizedTexts
    ) -> NDArray[Any]:
        with self._autocast():
            return losses_of(
                self.asked,
                texts,
                block_size=self.recipe.block_size,
                batch_tokens=self.recipe.config.batch_tokens,
                processes=self.among,
            )


class _CheckpointStore:
    """Saves and restores a run; the file's name is a digest of all that decides its result."""

    def __init__(self, folder: Path, run: _Run, name: str) -> None:
        self.path = folder / f"{_digest(run, name)}.pt"
        self.run = run

    def restore(self) -> None:
        run = self.run
        state = self._read()
        if state is not None:
            self._put_back(state)
        if run.trace is not None:
            run.trace.resume(self.path.stem, len(run.recording.checkpoints))
        run.among.wait()

    def _read(self) -> dict[str, Any] | None:
        """What a killed run has saved; None: nothing, or what is damaged."""
        state, fault = None, None
        if self.path.exists():
            try:
                state = _load(self.path, self.run.device)
            except _DAMAGE as error:
                fault = error
        # All of them go on, or none. The sum is known when all have read.
        if self.run.among.add(np.array([fault is not None], dtype=np.int64))[0] == 0:
            return state
        if self.run.among.is_first:
            self._put_aside(fault)
        return None

    def _put_aside(self, fault: Exception | None) -> None:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        found = (
            "a fault in another process" if fault is None else f"{type(fault).__name__}: {fault}"
        )
        tqdm.write(
            f"{self.path}: expected a training checkpoint as it was written, got {found}. "
            f"Put aside as {aside.name}; training begins anew.",
            file=sys.stderr,
        )

    def _put_back(self, state: Mapping[str, Any]) -> None:
        run, record = self.run, self.run.recording
        if run.among.count == 1:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
        else:
            distributed.set_full_state(run.asked, run.optimizer, state)
        run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
        run.window_nll = state["window_nll"][run.among.rank]
        run.window_gain = state["window_gain"]
        run.batches = _plan(run.windows, run.recipe, run.epoch)
        _set_rng_state(run.device, [states[run.among.rank] for states in state["rng"]])
        record.checkpoints = [tuple(row) for row in state["checkpoints"]]
        record.heldout_means = state["heldout_means"]
        record.curve = [tuple(point) for point in state["curve"]]
        record.looks = [
            TokenLook(step, train.cpu().numpy(), heldout.cpu().numpy())
            for step, train, heldout in state["looks"]
        ]

    def save_if_due(self) -> None:
        if not self.run.save_is_due:
            return
        if self.run.trace is not None:
            self.run.trace.flush()
        # Every process has a part of it.
        state = self._state()
        if self.run.among.is_first:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            torch.save(state, temporary)
            put_in_place(temporary, self.path)
        self.run.saved = time.monotonic()

    def remove(self) -> None:
        # With what a kill in the middle of a save has left, and with runs that nobody resumed: once
        # params or code changed, no run has their name. One that runs now saves every minute.
        if not self.run.among.is_first:
            return
        for file in self.path.parent.glob("*"):
            if file.stem.partition(".")[0] == self.path.stem or _is_abandoned(file):
                file.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        run, record = self.run, self.run.recording
        weights = (
            {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
            if run.among.count == 1
            else distributed.full_state(run.asked, run.optimizer)
        )
        return {
            **weights,
            "step": run.step,
            "epoch": run.epoch,
            "batch": run.batch,
            # Of every process.
            "window_nll": run.among.gather(run.window_nll),
            "window_gain": run.window_gain,
            "rng": [run.among.gather(state) for state in _rng_state(run.device)],
            "checkpoints": record.checkpoints,
            "heldout_means": record.heldout_means,
            "curve": record.curve,
            "looks": [
                (step, torch.from_numpy(train), torch.from_numpy(heldout))
                for step, train, heldout in record.looks
            ],
        }


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    # torch writes a checksum of each tensor, but does not compare it.
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"another checksum of {damaged}")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    return state


def _rng_state(device: torch.device) -> list[Tensor]:
    """Of the generators that dropout on the device draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_rng_state(device: torch.device, states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)


def _is_abandoned(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # another run was faster


def _digest(run: _Run, name: str) -> str:
    """Of the inputs, the model, its first weights, the code that trains, and torch's version.

    And of the name: two arms that train on the same run side by side, each with its own file.
    """
    digest = blake2b(
        repr((name, run.recipe, run.device.type, run.among.count, torch.__version__)).encode(),
        digest_size=16,
    )
    for module in sorted(_CODE.glob("*.py")):
        digest.update(module.name.encode() + module.read_bytes())
    data = run.data
    for texts in (data.texts, data.heldout):
        digest.update(texts.ids.tobytes())
        digest.update(texts.offsets.tobytes())
    digest.update(data.weights.tobytes())
    digest.update(data.copies.tobytes())
    digest.update(b"" if data.masked is None else data.masked.tobytes())
    digest.update(models.settings_of(run.model).encode())
    for parameter in run.model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _is_used(data: TrainingData) -> NDArray[np.bool_]:
    return np.asarray((data.copies > 0) & (data.weights != 0))


def _used_windows(data: TrainingData, block_size: int) -> Windows:
    windows = windows_of(data.texts, block_size)
    times = np.where(_is_used(data), data.copies, 0)[windows.sequence]
    if not times.any():
        raise DataError("training: no sample is left to train on. Drop fewer samples.")
    # A copy repeats its windows, so the windows of one pass stay independent of each other.
    repeated = np.repeat(np.arange(len(windows)), times)
    return Windows(windows.sequence[repeated], windows.start[repeated], windows.length[repeated])


def _plan(windows: Windows, recipe: Recipe, epoch: int) -> Sequence[NDArray[np.int64]]:
    rng = np.random.default_rng([recipe.seed, epoch])
    return plan_batches(windows.length, recipe.config.batch_tokens, rng)
