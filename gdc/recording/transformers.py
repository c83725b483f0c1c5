"""``transformers.Trainer`` and TRL's ``SFTTrainer`` -> a trace of what they train on."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gdc.errors import ConfigError, DataError
from gdc.recording.loaders import ROWS, NumberedCollator, number_samples
from gdc.recording.recorder import TraceRecorder
from gdc.recording.sample_losses import Batch, sums_of_samples, token_nll, tokens_of_samples
from gdc.recording.step_passes import StepPasses
from gdc.recording.trainer_gains import require_whole_model, sums_again
from gdc.recording.trainer_samples import Samples, rows_of_own, samples_of_rows, tokenized

# Beside the model in the Trainer's checkpoint folders: what was recorded since the last checkpoint.
_STATE: Final = "gdc_trace.pt"
_LOG: Final = logging.getLogger(__name__)


class TraceCallback(TrainerCallback):
    """Records the loss of every sample that a Trainer trains on.

    The losses come out of the training pass, so they cost next to nothing; the end of each epoch
    makes a checkpoint of mode ``online``. Every ``probe_every`` steps the frozen model also looks
    at all samples. The training itself is not changed by a bit. Batches may be shuffled, grouped
    by length, accumulated, packed or divided among processes; a run that resumes from a checkpoint
    of the Trainer records on. With ``gains`` each batch passes the model once more after its step.

    With packing each sample's loss is its own, as TRL keeps the samples of a row apart. Where a
    fused loss hides the logits, or packing cuts through samples without a mark
    (``packing_strategy="wrapped"``), a warning says so and the end of each epoch is a probe.
    """

    def __init__(  # noqa: PLR0913 - what is recorded, and when
        self,
        folder: str | Path,
        dataset: Any = None,
        heldout: Any = None,
        *,
        id_column: str | None = None,
        probe_every: int = 0,
        token_losses: bool = False,
        gains: bool = False,
    ) -> None:
        """Say what is recorded where.

        Args:
            folder: Of the trace.
            dataset: The training samples as the Trainer was given them; None: as it holds them,
                which are the same without TRL's packing.
            heldout: Samples that are not trained on, for the probes; of the same form.
            id_column: Column of the ids; None: ``sample_id`` or ``id`` where there is one,
                otherwise the row numbers are the ids.
            probe_every: Optimizer steps between two probes, the first of which is made before
                training; 0: none.
            token_losses: Whether the probes keep the losses of single tokens too, as
                ``TraceRecorder.probe`` does; ``heldout`` is needed.
            gains: Whether to record how far each optimizer step lowered the loss of its own
                samples, which the score ``influence_contrast`` reads. It costs another forward
                pass of every batch, and holds the batches of a step until it is taken.

        Raises:
            ConfigError: Losses of tokens are asked for without ``probe_every`` or ``heldout``.
        """
        if token_losses and (not probe_every or heldout is None):
            raise ConfigError(
                "TraceCallback: token_losses: expected probes and held-out samples beside it, got "
                f"probe_every={probe_every} and {'no' if heldout is None else 'a'} heldout. Give "
                "both, as probe_every=100, heldout=rows."
            )
        self._token_losses, self._gains = token_losses, gains
        self._folder, self._dataset, self._heldout = folder, dataset, heldout
        self._id_column, self._probe_every = id_column, probe_every
        self._recorder: TraceRecorder | None = None
        self._batch: dict[str, Any] | None = None  # what Trainer hands to its model
        self._is_online = True
        self._rate: float | None = None

    def attach(self, trainer: Any) -> Self:
        """Record what this Trainer trains on, from its next ``train()`` on.

        Raises:
            ConfigError: Gains are asked for, and this Trainer shards, copies or compiles its model.
        """
        if self._gains:
            require_whole_model(trainer)
        self._trainer = trainer
        self._get_loader, self._compute_loss = trainer.get_train_dataloader, trainer.compute_loss
        trainer.get_train_dataloader = self._numbered_loader
        trainer.compute_loss = self._recorded_loss
        trainer.add_callback(self)
        return self

    # ---- events of the Trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the trace, or continue it where the Trainer's checkpoint left it."""
        if not hasattr(self, "_trainer"):
            raise ConfigError(
                "TraceCallback: expected attach(trainer) before train(), got callbacks=[...] alone."
                " Write: gdc.TraceCallback(folder).attach(trainer)"
            )
        self._recorder = TraceRecorder(
            self._folder, self._samples, self._heldout_samples, resume=state.global_step > 0
        )
        model = self._trainer.model
        self._passes = StepPasses(model)
        self._hooks = [
            model.register_forward_pre_hook(self._see_inputs),
            model.register_forward_hook(self._see_outputs, with_kwargs=True),
        ]
        if state.global_step > 0:
            self._resume(args, state)
        elif self._probe_every:
            # What falls before the first probe is not seen to fall.
            self._probe(state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the learning rate."""
        self._rate = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record what the step has taught, and probe if that is due."""
        if self._gains:
            with self._trainer.compute_loss_context_manager():
                self._passes.record_gains(self._own())
        if self._probe_every and state.global_step % self._probe_every == 0:
            self._probe(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make a checkpoint of the epoch."""
        self._end_epoch(state)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save what was recorded beside the model."""
        kept = {"recorder": self._own().state_dict(), "learning_rate": self._rate}
        if state.is_world_process_zero:
            folder = _checkpoint_folder(args, state)
            if folder.is_dir():
                torch.save(kept, folder / _STATE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the trace."""
        for hook in self._hooks:
            hook.remove()
        self._own().close()

    # ---- what flows through the Trainer

    def _numbered_loader(self) -> Any:
        loader = self._get_loader()
        base = getattr(loader, "base_dataloader", loader)
        collate = NumberedCollator(base.collate_fn)
        self._collate = lambda samples: collate(list(enumerate(samples)))
        number_samples(loader, self._read_samples(base.dataset))
        return loader

    def _recorded_loss(self, model: nn.Module, inputs: Any, *args: Any, **kept: Any) -> Any:
        rows = inputs.pop(ROWS, None)
        if rows is not None and self._is_online:
            if inputs.get("labels") is None:
                raise ConfigError(
                    f"TraceCallback: expected labels in each batch, got {sorted(inputs)}. Use a "
                    "collator that makes them, as DataCollatorForLanguageModeling(mlm=False)."
                )
            known = ("labels", "position_ids", "attention_mask")
            self._batch = {ROWS: rows, **{name: inputs.get(name) for name in known}}
        try:
            return self._compute_loss(model, inputs, *args, **kept)
        finally:
            self._batch = None

    def _see_inputs(self, *_: Any) -> None:
        if self._gains and self._batch is not None:
            self._passes.begin()

    def _see_outputs(self, model: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        # A Trainer may call the model a second time for its metrics.
        batch, self._batch = self._batch, None
        if batch is None:
            return
        rows, labels_BT = batch[ROWS], batch["labels"]
        nll_BT = token_nll(outputs, labels_BT)
        if nll_BT is None:
            self._say_that_it_probes("the model gives no logits, as its loss is fused")
            return
        with torch.no_grad():
            loss_sums, num_tokens = sums_of_samples(nll_BT, labels_BT, len(rows), batch)
        self._own().record(rows, loss_sums, num_tokens)
        if self._gains:
            again = partial(sums_again, model, batch, args, dict(kwargs))
            self._passes.keep(again, rows, loss_sums, num_tokens)

    # ---- checkpoints

    def _end_epoch(self, state: TrainerState) -> None:
        if not self._is_online:
            self._probe(state)
            return
        recorder = self._own()
        if self._heldout_samples is not None:
            with self._trainer.compute_loss_context_manager():
                recorder.probe_heldout(**self._how_to_probe(), losses=_probe_losses)
        num_seen = recorder.checkpoint(
            step=state.global_step, epoch=state.epoch, learning_rate=self._rate
        )
        if num_seen < recorder.num_samples:
            _LOG.warning(
                "%s: %d of %d samples were not trained on in this epoch, and have no loss in its "
                "checkpoint (dropped last batch, or samples without labels?)",
                self._folder, recorder.num_samples - num_seen, recorder.num_samples,
            )  # fmt: skip

    def _probe(self, state: TrainerState) -> None:
        with self._trainer.compute_loss_context_manager():
            self._own().probe(
                **self._how_to_probe(),
                losses=_probe_losses,
                token_losses=_probe_token_losses if self._token_losses else False,
                step=state.global_step,
                epoch=state.epoch,
                learning_rate=self._rate,
            )

    def _how_to_probe(self) -> dict[str, Any]:
        trainer = self._trainer
        return {
            "model": trainer.model_wrapped if _is_sharded(trainer) else trainer.model,
            "collate": self._collate,
            "batch_size": trainer.args.per_device_train_batch_size,
        }

    def _resume(self, args: TrainingArguments, state: TrainerState) -> None:
        path, recorder = _checkpoint_folder(args, state) / _STATE, self._own()
        kept = torch.load(path, weights_only=True) if path.is_file() else None
        if self._gains and (kept is None or kept["recorder"].get("gains") is None):
            raise DataError(
                f"{path}: expected the gains of the {state.global_step} steps before, got none. "
                "Record a new run into another folder, or leave gains out."
            )
        if kept is None:
            recorder.keep_until(state.global_step)
            _LOG.warning(
                "%s: not found, so the trace lacks the losses between its last checkpoint and "
                "step %d", path, state.global_step,
            )  # fmt: skip
            return
        self._rate = kept["learning_rate"]
        # Without gains from here on, those from before would be taken for all.
        without = {} if self._gains else {"gains": None}
        recorder.load_state_dict(kept["recorder"] | without)
        is_pending = bool((kept["recorder"]["train"]["num_tokens"] > 0).any())
        # Saved at the end of an epoch, before its checkpoint.
        if is_pending and float(state.epoch or 0).is_integer():
            self._end_epoch(state)

    def _say_that_it_probes(self, why: str) -> None:
        if self._gains:
            raise ConfigError(
                f"TraceCallback: gains: expected losses from the training pass, got none: {why}. "
                "Train otherwise, or leave gains out."
            )
        self._is_online = False
        _LOG.warning(
            "%s: %s: losses cannot come from the training pass. The frozen model looks at all "
            "samples at the end of each epoch instead.", self._folder, why,
        )  # fmt: skip

    def _own(self) -> TraceRecorder:
        assert self._recorder is not None  # noqa: S101 - made when training begins
        return self._recorder

    # ---- samples

    def _read_samples(self, rows: Any) -> list[list[int]] | None:
        """Take ids and tokens of all samples; returns which of them each row of the loader is."""
        args, id_column = self._trainer.args, self._id_column
        self._heldout_samples = None
        if self._heldout is not None:
            self._heldout_samples = self._prepared(self._heldout, rows)
        is_cut = "seq_lengths" in getattr(rows, "column_names", ())
        if is_cut or getattr(args, "packing", False):
            if self._dataset is None:
                raise ConfigError(
                    "TraceCallback: expected the data set that SFTTrainer was given, as packing "
                    "mixes its rows, got none. Write: TraceCallback(folder, dataset)"
                )
            self._samples = self._prepared(self._dataset, rows)
            if not is_cut:
                self._say_that_it_probes("packing cuts through samples without a mark")
                return [[]] * len(rows)
            return list(samples_of_rows(rows, self._samples, args))
        own = Samples(self._trainer.train_dataset, rows, id_column)
        self._samples = own
        if self._dataset is None or self._dataset is own.dataset:
            return None
        given = Samples(self._dataset, rows, id_column)
        numbers = rows_of_own(own, given, args)
        places = {row: place for place, row in enumerate(numbers)}
        self._samples = Samples(self._dataset, rows, id_column, places)
        return [[row] for row in numbers]

    def _prepared(self, dataset: Any, rows: Any) -> Samples:
        """Samples of another data set as the Trainer reads those of the loader, one by one."""
        if not hasattr(self._trainer, "_prepare_dataset"):
            columns = getattr(rows, "column_names", None)
            tokens = dataset.select_columns(columns) if columns else dataset
            return Samples(dataset, tokens, self._id_column)
        tokens = tokenized(self._trainer, dataset)
        places = {row: place for place, row in enumerate(tokens[ROWS])}
        columns = ["input_ids", "labels"]
        return Samples(dataset, tokens.select_columns(columns), self._id_column, places)


def _probe_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    return sums_of_samples(_probe_nll(model, batch), batch["labels"], len(batch[ROWS]), batch)


def _probe_token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return tokens_of_samples(_probe_nll(model, batch), batch["labels"], len(batch[ROWS]), batch)


def _probe_nll(model: nn.Module, batch: Batch) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name not in {ROWS, "labels"}}
    nll_BT = token_nll(model(**inputs), batch["labels"])
    if nll_BT is None:
        raise ConfigError(
            "TraceCallback: expected logits from the frozen model, got none. Turn the fused loss "
            "off (use_liger_kernel=False)."
        )
    return nll_BT


def _is_sharded(trainer: Any) -> bool:
    return bool(getattr(trainer, "is_fsdp_enabled", False))


def _checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
