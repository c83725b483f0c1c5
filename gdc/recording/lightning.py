"""A Trainer of Lightning -> a trace of what it trains on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl

from gdc.errors import ConfigError, DataError
from gdc.recording.lightning_gains import LightningSteps, require_steps_again
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
        gains: bool = False,
    ) -> None:
        """Say what is recorded where; see ``TraceRecorder``.

        With ``gains`` it also records how far each optimizer step lowered the loss of its own
        samples, which the score ``influence_contrast`` reads: ``training_step`` is called once more
        for each batch of a step, after it and with the same random numbers. What it logs then is
        left out. The batches of a step are held until it is taken.
        """
        super().__init__()
        self._arguments = (folder, dataset, heldout)
        self._id_column, self._gains = id_column, gains
        self._steps: LightningSteps | None = None
        self._kept: State | None = None
        self._is_fitting = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the trace, or continue it where Lightning's checkpoint left it."""
        if self._gains:
            require_steps_again(trainer, pl_module)
        self.recorder = TraceRecorder(
            *self._arguments, id_column=self._id_column, resume=self._kept is not None
        )
        if self._kept is not None:
            # Without gains from here on, those from before would be taken for all.
            is_left = self._kept.get("by_callback", False) and not self._gains
            self.recorder.load_state_dict(self._kept | ({"gains": None} if is_left else {}))
        self._is_fitting = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See the steps from here on, where their gains are asked for."""
        if not self._gains:
            return
        if trainer.global_step and (self._kept or {}).get("gains") is None:
            raise DataError(
                f"{self.recorder.folder}: gains: expected those of the {trainer.global_step} steps "
                "before, got none. Record a new run into another folder, or leave gains out."
            )
        self._steps = LightningSteps(trainer, pl_module)

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
        recorded = (outputs["sample_index"], outputs["loss_sums"], outputs.get("num_tokens", 1))
        self.recorder.record(*recorded)
        if self._steps is not None:
            self._steps.end_batch(self.recorder, *recorded)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make a checkpoint of the epoch."""
        self.recorder.checkpoint(
            step=trainer.global_step,
            epoch=trainer.current_epoch + 1,
            learning_rate=trainer.optimizers[0].param_groups[0]["lr"],
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the trace; what Lightning saves afterwards still has its state."""
        self._kept = self.state_dict()
        self._is_fitting = False
        self._see_no_more()
        self.recorder.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the module as it was."""
        self._see_no_more()

    def state_dict(self) -> State:
        """What Lightning saves."""
        if not self._is_fitting:
            return self._kept or {}
        return {**self.recorder.state_dict(), "by_callback": self._gains}

    def load_state_dict(self, state_dict: State) -> None:
        """Keep what Lightning has saved until the Trainer fits."""
        self._kept = state_dict or None

    def _see_no_more(self) -> None:
        if self._steps is not None:
            self._steps.remove()
        self._steps = None
