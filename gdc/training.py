"""Texts, weights and a seed -> a trained model and every sample's loss at every checkpoint."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from gdc import models
from gdc.batches import (
    PADDING,
    TokenizedTexts,
    Windows,
    padded,
    plan_batches,
    target_places,
    windows_of,
)
from gdc.config import TrainingConfig
from gdc.errors import DataError
from gdc.losses import mean_of_tokens, per_sequence, sample_losses, target_nll, token_losses
from gdc.models import target_states
from gdc.schema import CHECKPOINTS

# A killed run loses at most about this many seconds of training.
_CHECKPOINT_SECONDS: Final = float(os.environ.get("GDC_CHECKPOINT_SECONDS", "60"))
# A run that was killed and not started again for so long, in seconds, will not be.
_ABANDONED_SECONDS: Final = 7 * 24 * 3600.0
# The code that trains; by name, as importing the last one takes seconds.
_CODE: Final = ("batches.py", "losses.py", "models.py", "training.py", "transformer_models.py")


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


@dataclass
class Recording:
    """What a run has recorded so far.

    ``checkpoints`` holds rows of ``CHECKPOINTS``; ``losses`` and ``heldout`` one float32 array
    each, in text order, NaN where a sample was not seen; ``curve`` (step, loss in nats per token).
    Losses of samples are over all of their tokens, masked ones too; the curve is what was trained.
    ``looks`` are the first frozen one and that after the last step, one where they are the same.
    ``gain`` float64: each sample's loss before minus after every step it was in, summed, nats per
    token; NaN: it was in none.
    """

    checkpoints: list[tuple[int, int, float, str, float]] = field(default_factory=list)
    losses: list[NDArray[np.float32]] = field(default_factory=list)
    heldout: list[NDArray[np.float32]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    num_masked_tokens: int = 0
    looks: list[TokenLook] = field(default_factory=list)
    gain: NDArray[np.float64] | None = None

    def checkpoint_table(self) -> pl.DataFrame:
        """The recorded checkpoints."""
        return pl.DataFrame(self.checkpoints, schema=CHECKPOINTS, orient="row")


def weighted_loss(nll_N: Tensor, weight_N: Tensor) -> Tensor:
    """Sum of w nll over sum of |w|, both over predicted tokens; with unit weights the mean.

    0 where all weights are, as when a whole batch is masked.
    """
    return (weight_N * nll_N).sum() / weight_N.abs().sum().clamp(
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


def train(
    model: nn.Module, data: TrainingData, recipe: Recipe, *, checkpoints: Path, name: str
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

    Args:
        model: A causal language model on the device to train on.
        data: Texts, weights and copies.
        recipe: Hyper-parameters and seed.
        checkpoints: Folder for resuming; a killed run that is started again goes on from there,
            and ends with the same bytes as one that was never killed.
        name: What the progress bar says; no two runs at the same time may share it.

    Raises:
        DataError: No sample is left to train on, or the loss is no longer finite.
    """
    run = _Run(model, data, recipe)
    store = _CheckpointStore(checkpoints, run, name)
    store.restore()
    with tqdm(
        desc=name,
        initial=run.step,
        total=run.num_steps,
        unit="step",
        mininterval=1 if os.isatty(2) else 15,
    ) as bar:
        while run.step < run.num_steps:
            num_tokens = run.advance()
            bar.set_postfix_str(
                f"{bar.format_sizeof(run.tokens_per_second(num_tokens))} tokens/s", refresh=False
            )
            bar.update()
            store.save_if_due()
    # The last update may have broken weights that no later loss can tell of.
    for parameter in model.parameters():
        run.require_finite(parameter.detach())
    run.recording.gain = run.sample_gain()
    store.remove()
    return run.recording


class _Run:
    """The state of a run between two optimizer steps."""

    def __init__(self, model: nn.Module, data: TrainingData, recipe: Recipe) -> None:
        self.model, self.data, self.recipe = model.train(), data, recipe
        self.device = next(model.parameters()).device
        self.windows = _used_windows(data, recipe.block_size)
        self.num_steps = recipe.num_steps or count_steps(data, recipe)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
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
        self.started = time.monotonic()
        self.tokens_done = 0
        torch.manual_seed(recipe.seed)

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

    def sample_gain(self) -> NDArray[np.float64] | None:
        if not self.recipe.self_influence:
            return None
        gain = self.window_gain.cpu().numpy()
        sequence, is_seen = self.windows.sequence, ~np.isnan(gain)
        num_seen = np.bincount(sequence, weights=is_seen, minlength=len(self.data.texts))
        sums = per_sequence(self.windows, np.where(is_seen, gain, 0), self.data.texts)
        return np.where(num_seen > 0, sums / np.maximum(self.data.copies, 1), np.nan)

    def require_finite(self, values: Tensor) -> None:
        if not bool(values.isfinite().all()):
            config = self.recipe.config
            raise DataError(
                f"training: expected finite losses and weights, got others at step {self.step}. "
                f"Lower training.learning_rate ({config.learning_rate}) or training.clip_norm "
                f"({config.clip_norm}), or use model.precision: float32."
            )

    def _optimize(self, chosen: NDArray[np.int64], rate: float) -> tuple[float, int]:
        rng = _rng_state(self.device) if self.recipe.self_influence else []
        nll_N, row_N = self._nll(chosen)
        loss = weighted_loss(nll_N, self._token_weights(chosen, row_N))
        self.require_finite(loss.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        at_B = torch.from_numpy(chosen).to(self.device)
        # Reduced on the device: no work in Python per token or per sample.
        sums = torch.zeros(len(chosen), device=self.device).index_add(0, row_N, nll_N.detach())
        self.window_nll[at_B] = sums
        if self.recipe.self_influence:
            # The same draws again: the generator ends where it stood, and a gradient that nobody
            # asks for keeps torch on the very same kernels.
            _set_rng_state(self.device, rng)
            after_N = self._nll(chosen)[0].detach()
            self.require_finite(after_N)
            gain_N = (nll_N.detach() - after_N).double()
            self.window_gain[at_B] = self.window_gain[at_B].nan_to_num().index_add(0, row_N, gain_N)
        return float(loss.detach()), len(row_N)

    def _token_weights(self, chosen: NDArray[np.int64], row_N: Tensor) -> Tensor:
        of_window = torch.from_numpy(self.data.weights[self.windows.sequence[chosen]]).float()
        weight_N = of_window.to(self.device)[row_N]
        if self.data.masked is None:
            return weight_N
        is_masked = self.data.masked[target_places(self.windows, chosen)]
        return weight_N.masked_fill(torch.from_numpy(is_masked).to(self.device), 0.0)

    def _nll(self, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Losses at the real positions of a batch, and the row of each."""
        inputs, targets = padded(self.data.texts, self.windows, chosen)
        targets_BT = torch.from_numpy(targets).to(self.device)
        is_target_BT = targets_BT != PADDING
        with self._autocast():
            states = target_states(
                self.model, torch.from_numpy(inputs).to(self.device), is_target_BT
            )
            nll_N = target_nll(states, targets_BT[is_target_BT])
        return nll_N, is_target_BT.nonzero()[:, 0]

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
        sums = self.window_nll.double().cpu().numpy()
        # The windows of a copied sample were summed once for each copy.
        online = per_sequence(self.windows, sums, self.data.texts) / np.maximum(self.data.copies, 1)
        online[~_is_used(self.data)] = np.nan
        self._record("online", rate, online)
        self.window_nll.fill_(torch.nan)
        self.epoch += 1
        self.batch = 0
        self.batches = _plan(self.windows, self.recipe, self.epoch)

    def _record(self, mode: str, rate: float, sample_loss: NDArray[np.float64]) -> None:
        record = self.recording
        epoch = self.epoch + self.batch / len(self.batches)
        repeated = record.checkpoints and record.checkpoints[-1][1] == self.step
        record.heldout.append(
            record.heldout[-1] if repeated else self._losses("heldout").astype(np.float32)
        )
        record.checkpoints.append((len(record.checkpoints), self.step, epoch, mode, rate))
        record.losses.append(sample_loss.astype(np.float32))

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
                self.model,
                texts,
                block_size=self.recipe.block_size,
                batch_tokens=self.recipe.config.batch_tokens,
            )


class _CheckpointStore:
    """Saves and restores a run; the file's name is a digest of all that decides its result."""

    def __init__(self, folder: Path, run: _Run, name: str) -> None:
        self.path = folder / f"{_digest(run, name)}.pt"
        self.run = run
        self.saved = time.monotonic()

    def restore(self) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True, map_location=self.run.device)
        run, record = self.run, self.run.recording
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
        run.window_nll, run.window_gain = state["window_nll"], state["window_gain"]
        run.batches = _plan(run.windows, run.recipe, run.epoch)
        _set_rng_state(run.device, state["rng"])
        record.checkpoints = [tuple(row) for row in state["checkpoints"]]
        record.curve = [tuple(point) for point in state["curve"]]
        record.losses = [loss.cpu().numpy() for loss in state["losses"]]
        record.heldout = [loss.cpu().numpy() for loss in state["heldout"]]
        record.looks = [
            TokenLook(step, train.cpu().numpy(), heldout.cpu().numpy())
            for step, train, heldout in state["looks"]
        ]

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved < _CHECKPOINT_SECONDS:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(self._state(), temporary)
        temporary.replace(self.path)
        self.saved = time.monotonic()

    def remove(self) -> None:
        # With what a kill in the middle of a save has left, and with runs that nobody resumed: once
        # params or code changed, no run has their name. One that runs now saves every minute.
        for file in self.path.parent.glob("*"):
            if file.stem.partition(".")[0] == self.path.stem or _is_abandoned(file):
                file.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        run, record = self.run, self.run.recording
        return {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "step": run.step,
            "epoch": run.epoch,
            "batch": run.batch,
            "window_nll": run.window_nll,
            "window_gain": run.window_gain,
            "rng": _rng_state(run.device),
            "checkpoints": record.checkpoints,
            "curve": record.curve,
            "losses": [torch.from_numpy(loss) for loss in record.losses],
            "heldout": [torch.from_numpy(loss) for loss in record.heldout],
            "looks": [
                (step, torch.from_numpy(train), torch.from_numpy(heldout))
                for step, train, heldout in record.looks
            ],
        }


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
        repr((name, run.recipe, str(run.device), torch.__version__)).encode(), digest_size=16
    )
    for module in _CODE:
        digest.update(Path(__file__).with_name(module).read_bytes())
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
