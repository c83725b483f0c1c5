"""A Trainer of Lightning -> a trace of what it trains on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl

from gdc.errors import ConfigError
from gdc.recording.recorder import TraceRecorder
from gdc.training.distributed import State

_NEEDED: Final = ("loss", "sample_index", "loss_sums")


class TraceCallback(pl.Callback):
    """Records the losses that a module's ``training_step`` returns.

    It returns a dictionary with ``loss``, which is trained, and of the samples of the batch
    ``sample_index`` (their row numbers), ``loss_sums`` (nats) and, if samples have tokens,
    ``num_tokens``, as ``TraceRecorder.record`` takes them. The end of each epoch makes a
    checkpoint. What was recorded since is saved with Lightning's checkpoints, so a resumed run
    records on.

    Attributes:
        recorder: The ``TraceRecorder`` while the Trainer fits; its ``probe`` may be called.
    """

    recorder: TraceRecorder

    def __init__(
        self,
        folder: str | Path,
        dataset: Any,
        heldout: Any = None,
        *,
        id_column: str | None = None,
    ) -> None:
        """Say what is recorded where; see ``TraceRecorder``."""
        super().__init__()
        self._arguments = (folder, dataset, heldout)
        self._id_column = id_column
        self._kept: State | None = None
        self._is_fitting = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the trace, or continue it where Lightning's checkpoint left it."""
        self.recorder = TraceRecorder(
            *self._arguments, id_column=self._id_column, resume=self._kept is not None
        )
        if self._kept is not None:
            self.recorder.load_state_dict(self._kept)
        self._is_fitting = True

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record what ``training_step`` has returned."""
        missing = [key for key in _NEEDED if not isinstance(outputs, Mapping) or key not in outputs]
        if missing:
            found = sorted(outputs) if isinstance(outputs, Mapping) else type(outputs).__name__
            raise ConfigError(
                f"TraceCallback: expected {', '.join(_NEEDED)} in what training_step returns, got "
                f"{found}. Return a dictionary with the row numbers and losses of the batch."
            )
        self.recorder.record(
            outputs["sample_index"], outputs["loss_sums"], outputs.get("num_tokens", 1)
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make a checkpoint of the epoch."""
        self.recorder.checkpoint(
            step=trainer.global_step,
            epoch=trainer.current_epoch + 1,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the trace; what Lightning saves afterwards still has its state."""
        self._kept = self.recorder.state_dict()
        self._is_fitting = False
        self.recorder.close()

    def state_dict(self) -> State:
        """What Lightning saves."""
        return self.recorder.state_dict() if self._is_fitting else self._kept or {}

    def load_state_dict(self, state_dict: State) -> None:
        """Keep what Lightning has saved until the Trainer fits."""
        self._kept = state_dict or None
