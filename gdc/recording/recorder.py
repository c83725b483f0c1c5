"""Any training loop -> a trace: every sample's loss at every checkpoint."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from gdc.errors import DataError
from gdc.filesystem.table_files import read_parquet
from gdc.recording.first_seen import FirstSeen, stored_steps
from gdc.recording.own_folder import (
    CheckpointRow,
    checkpoint_table,
    checkpoints_of,
    require_no_step_back,
    require_own_folder,
    require_whole,
)
from gdc.recording.probe import Collate, Evaluation, Losses, Probed, frozen
from gdc.recording.sample_ids import index_of, with_lengths
from gdc.recording.sample_losses import causal_losses
from gdc.recording.sample_sums import SampleSums, Waiting
from gdc.recording.step_gains import StepGains
from gdc.recording.token_losses import (
    TokenLosses,
    Tokens,
    keep_tokens_until,
    token_losses_in_use,
    write_tokens,
)
from gdc.recording.trace import first_seen_table
from gdc.recording.trace_files import TraceFiles
from gdc.training.distributed import State, joined_group

Split = Literal["train", "heldout"]
Mode = Literal["online", "probe"]


class TraceRecorder:
    """Writes the losses of a training run, checkpoint by checkpoint, as a trace.

    A loop calls ``record`` for every batch and ``checkpoint`` from time to time, as at the end of
    an epoch; or ``probe``, which evaluates all samples under the frozen model. Files are written in
    the background, each whole and with a checksum, so a trace may be read while it grows.

    Where the loop trains with ``torch.distributed``, all processes make a recorder and call
    ``checkpoint``, ``probe``, ``state_dict`` and ``close`` together; ``record`` takes what each has
    trained on. Each writes its share of the rows.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset: Any,
        heldout: Any = None,
        *,
        id_column: str | None = None,
        resume: bool = False,
    ) -> None:
        """Name the samples and begin a trace, or continue one.

        Args:
            folder: Of the trace. It is made.
            dataset: The training samples: a ``datasets.Dataset``, a torch ``Dataset``, a table or a
                list; or only their ids. A sample is called by its number in this order.
            heldout: The same for samples that are not trained on; None: there are none.
            id_column: Column or key of the ids, which are kept as they are; None: ``sample_id`` or
                ``id`` where there is one, otherwise the row numbers are the ids.
            resume: Whether to continue a trace of these samples that is in the folder; if there is
                none, a new one begins. ``load_state_dict`` then leaves the checkpoints that the
                state knows.

        Raises:
            ConfigError: The samples cannot be counted, or have no such column.
            DataError: An id is missing or stands in two rows, or the folder holds something else.
        """
        self.folder = Path(folder)
        self._index = index_of(dataset, id_column, "dataset")
        self._heldout_index = None if heldout is None else index_of(heldout, id_column, "heldout")
        num_heldout = 0 if self._heldout_index is None else self._heldout_index.height
        self._sums: dict[Split, SampleSums] = {
            "train": SampleSums.zeros(self._index.height), "heldout": SampleSums.zeros(num_heldout),
        }  # fmt: skip
        # Most tokens of each sample that were seen at a time; 0: none yet.
        self._lengths: dict[Split, NDArray[np.int64]] = {
            split: np.zeros(len(of.lengths), np.int64) for split, of in self._sums.items()
        }
        self._waiting = Waiting()
        self._rows: list[CheckpointRow] = []
        self._num_records = self._num_recorded = 0
        self._group = joined_group()
        self._probed: dict[Split, Probed] = {
            "train": Probed(dataset, self._name("train"), self._group),
            "heldout": Probed(heldout, self._name("heldout"), self._group),
        }
        self._first_seen = FirstSeen(self._index.height, self._group)
        self._files = TraceFiles(self.folder, self._group)
        self._gains = StepGains(self._files, self._index, self._group)
        self._open(resume=resume)

    # ---- what a loop calls

    def record(
        self, sample_index: Any, loss_sums: Any, num_tokens: Any = 1, *, split: Split = "train"
    ) -> None:
        """Take the losses of some samples, as the training pass gives them.

        A sample may come in parts, or several times, before the next checkpoint: its loss there is
        the sum of all sums over the sum of all tokens. Tensors on a device are fetched later, many
        at once, and checked then, at the latest by ``checkpoint``.

        Args:
            sample_index: Row numbers of the samples, from 0.
            loss_sums: Sum of the losses of each sample's tokens, nats, at least 0; of samples
                without tokens, such as images, their loss.
            num_tokens: Tokens that each sum is of, one number for all or one for each; 0: the
                sample has no loss here.
            split: Whether they are training or held-out samples.

        Raises:
            DataError: A row number is out of range, a loss is not finite or below 0, or a number of
                tokens is below 0.
        """
        self._num_records += split == "train"
        take = partial(self._take, split, self._num_records)
        self._waiting.add(take, sample_index, loss_sums, num_tokens)

    def record_gain(
        self, sample_index: Any, loss_sums: Any, loss_sums_after: Any, num_tokens: Any = 1
    ) -> None:
        """Take what an optimizer step taught of the samples that it was taken on.

        Called once for each batch of the step, after it. Both losses are of the same pass: in
        training mode, with the same draws of dropout. Of all steps from the first on, or of none.

        Args:
            sample_index: As for ``record``.
            loss_sums: Sum of the losses of each sample before the step, as ``record`` takes them.
            loss_sums_after: The same after it, before the next one.
            num_tokens: Tokens of each whole sample, also where its parts come in several calls.

        Raises:
            DataError: As for ``record``, or the gains of earlier steps are not known.
        """
        self._gains.require_whole()
        self._waiting.add(self._gains.add, sample_index, loss_sums, loss_sums_after, num_tokens)

    def checkpoint(
        self,
        *,
        step: int | None = None,
        epoch: float | None = None,
        learning_rate: float | None = None,
        mode: Mode = "online",
    ) -> int:
        """Make a checkpoint of what was recorded since the last one.

        Samples that were not recorded are not seen there.

        Args:
            step: Optimizer steps taken; None: calls of ``record`` so far.
            epoch: Epochs trained, with fractions; None: recorded samples over all samples.
            learning_rate: Of the last step; None: not known.
            mode: Whether the losses come from the training pass (``online``), or were all computed
                under the model as it is now, in evaluation mode (``probe``).

        Returns:
            How many samples have a loss in it.

        Raises:
            DataError: Nothing was recorded, or the step lies before the last checkpoint's.
        """
        self._waiting.fetch()
        sums = {split: of.reduced(self._group) for split, of in self._sums.items()}
        num_seen = int((sums["train"].num_tokens > 0).sum())
        if not num_seen:
            raise DataError(
                f"{self.folder}: checkpoint: expected losses recorded since the last one, got none."
                " Call record for each batch before it."
            )
        if mode == "probe":
            # What was recorded was evaluated, not trained on.
            self._first_seen.leave_out_calls()
        self._append(mode, sums, (step, epoch, learning_rate))
        for of in self._sums.values():
            of.clear()
        return num_seen

    def probe(  # noqa: PLR0913 - when, and what is evaluated
        self,
        model: nn.Module,
        collate: Collate,
        *,
        losses: Losses = causal_losses,
        token_losses: bool | TokenLosses = False,
        batch_size: int = 8,
        step: int | None = None,
        epoch: float | None = None,
        learning_rate: float | None = None,
    ) -> None:
        """Make a checkpoint with the loss of every sample under the model as it is now.

        The model is in evaluation mode meanwhile, without gradients; its mode and the state of
        torch's random numbers are as before afterwards. Held-out samples are evaluated too.

        Args:
            model: Any model that ``losses`` can call.
            collate: Turns a list of samples of the data set into a batch, as in a data loader.
            losses: Turns model and batch into loss sums (nats) and numbers of tokens, one for each
                sample. The default is for causal language models of transformers, with ``labels``
                in the batch.
            token_losses: Whether to keep the loss of every token too, with which ``gdc map`` shows
                memorized spans and turns: those of the first such probe and of the last. Held-out
                samples are needed. Every process holds 24 bytes a token of them meanwhile. For
                models that ``causal_losses`` cannot call, a function in its place, of model and
                batch: losses (nats) and ids of the tokens, sample after sample, and their number.
            batch_size: Samples of a batch. Those of about one length are put together.
            step: As for ``checkpoint``.
            epoch: As for ``checkpoint``.
            learning_rate: As for ``checkpoint``.

        Raises:
            ConfigError: Only the ids of the samples are known, the batch has no labels, or losses
                of tokens are asked for without held-out samples or beside ``losses``.
            DataError: A loss is not finite or below 0.
        """
        by_token = token_losses is not False
        if token_losses is not False:
            losses = token_losses_in_use(losses, token_losses, self._heldout_index, self.folder)
        how = Evaluation(collate, losses, batch_size, by_token)
        with frozen(model):
            found = {split: of.run(model, how) for split, of in self._probed.items()}
        self._waiting.fetch()
        sums: dict[Split, SampleSums] = {split: of[0] for split, of in found.items()}
        tokens = {split: of[1] for split, of in found.items()}
        self._append("probe", sums, (step, epoch, learning_rate), tokens)

    def probe_heldout(
        self,
        model: nn.Module,
        collate: Collate,
        *,
        losses: Losses = causal_losses,
        batch_size: int = 8,
    ) -> None:
        """Record the held-out samples as the model is now, for the next ``checkpoint``.

        ``unseen_loss_contrast`` and ``influence_contrast`` compare with them at the end of passes.
        All processes call this together, and each runs its share. Arguments as for ``probe``.
        """
        with frozen(model):
            how = Evaluation(collate, losses, batch_size)
            found, _ = self._probed["heldout"].run(model, how)
        if self._group.is_main:
            rows = np.arange(len(found.num_tokens))
            self.record(rows, found.loss_sums, found.num_tokens, split="heldout")

    def flush(self) -> None:
        """Return when all checkpoints are on disk; all processes call this together."""
        self._files.flush()
        self._group.barrier()
        self._files.list_checkpoints(checkpoint_table(self._rows))
        self._files.flush()
        self._group.barrier()

    def close(self) -> None:
        """``flush``, and say if losses were recorded that are in no checkpoint."""
        self._waiting.fetch()
        self.flush()
        self._files.close()
        num_left = int((self._sums["train"].num_tokens > 0).sum())
        if num_left:
            warnings.warn(
                f"{self.folder}: losses of {num_left} samples were recorded after the last "
                "checkpoint and are in none. Call checkpoint before close.",
                stacklevel=2,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.close()

    # ---- resuming

    def state_dict(self) -> State:
        """What to save beside the model, so that a killed run records on from there.

        Equal in all processes, and made of tensors and numbers. What it knows of is on disk when
        this returns.
        """
        self._waiting.fetch()
        self.flush()
        state: State = {
            "num_checkpoints": len(self._rows),
            "num_records": self._num_records,
            "num_recorded": int(self._group.all_reduce(np.array([self._num_recorded]))[0]),
            **self._first_seen.state_dict(),
            **self._gains.state_dict(),
        }
        return state | {split: of.state_dict(self._group) for split, of in self._sums.items()}

    def load_state_dict(self, state: State) -> None:
        """Go back to where ``state_dict`` was called, in a run of any number of processes.

        Raises:
            DataError: The trace has not the checkpoints and samples that the state knows.
        """
        sizes = {split: len(state[split]["loss_sums"]) for split in self._sums}
        own = {split: len(of.loss_sums) for split, of in self._sums.items()}
        if sizes != own or state["num_checkpoints"] > len(self._rows):
            raise DataError(
                f"{self.folder}: expected the trace that the state was saved with, of "
                f"{state['num_checkpoints']} checkpoints and {sizes} samples, got one of "
                f"{len(self._rows)} and {own}. Open it with resume=True."
            )
        self._keep(state["num_checkpoints"])
        self._num_records = state["num_records"]
        self._first_seen.load_state_dict(state, self._num_records)
        self._waiting.clear()
        for split, of in self._sums.items():
            of.load_state_dict(state[split], self._group)
        self._gains.load_state_dict(state, self._num_records)
        self._num_recorded = state["num_recorded"] if self._group.is_main else 0

    def keep_until(self, step: int) -> None:
        """Leave out the checkpoints after an optimizer step, where no state of the run was kept."""
        self._keep(sum(row[1] <= step for row in self._rows))
        self._gains.forget(step)

    @property
    def num_samples(self) -> int:
        """Training samples."""
        return self._index.height

    @property
    def sample_ids(self) -> pl.Series:
        """The ids of the training samples, as they were given."""
        return self._index["original_id"]

    # ---- within

    def _open(self, *, resume: bool) -> None:
        rows = checkpoints_of(self.folder, resume=resume)
        own_rows = self._index[self._group.shard_rows(self._index.height)]
        own = {"training": own_rows, "held-out": self._heldout_index}
        require_own_folder(self.folder, self._files, own, self._group.world_size)
        if rows:
            self._read(rows)
        # Before anyone writes, all have looked.
        self._group.barrier()
        self._keep(len(self._rows))
        require_whole(self._files, len(self._rows), with_heldout=self._heldout_index is not None)

    def _read(self, rows: list[CheckpointRow]) -> None:
        """Continue after the checkpoints on disk."""
        self._rows = rows
        lengths = np.zeros(self._index.height, np.int64)
        own = read_parquet(self._files.train / "index.parquet")["num_tokens"].to_numpy()
        lengths[self._group.shard_rows(len(lengths))] = own
        self._lengths["train"] = self._group.all_reduce(lengths)
        if self._heldout_index is not None:
            stored = read_parquet(self._files.heldout / "index.parquet")["num_tokens"]
            self._lengths["heldout"] = stored.to_numpy()
        self._num_records = self._last_step()
        self._gains.num_missed = self._num_records
        self._first_seen.go_on(self._num_records, stored_steps(self.folder))
        recorded = round(rows[-1][2] * self._index.height)
        self._num_recorded = recorded if self._group.is_main else 0

    def _keep(self, num_checkpoints: int) -> None:
        """Remove later checkpoints, and what a killed run has not finished."""
        self._rows = self._rows[:num_checkpoints]
        if self._first_seen.keep_until(self._last_step()):
            self._files.write_first_seen(first_seen_table(self._index, self._first_seen.steps))
        # The list first: what it names is always there.
        self.flush()
        keep_tokens_until(self._files, num_checkpoints)
        self._files.remove_after(num_checkpoints, with_heldout=self._heldout_index is not None)
        self._write_indices()
        self._files.flush()

    def _write_indices(self) -> None:
        heldout = self._heldout_index
        self._files.write_indices(
            with_lengths(self._index, self._lengths["train"]),
            None if heldout is None else with_lengths(heldout, self._lengths["heldout"]),
        )

    def _append(
        self,
        mode: str,
        sums: Mapping[Split, SampleSums],
        when: tuple[int | None, float | None, float | None],
        tokens: Mapping[Split, Tokens | None] | None = None,
    ) -> None:
        if self._group.world_size > 1:
            # Those of before are complete when all processes have come here.
            self.flush()
        row = self._row(mode, *when)
        known = {split: np.maximum(self._lengths[split], of.lengths) for split, of in sums.items()}
        if any((lengths > self._lengths[split]).any() for split, lengths in known.items()):
            self._lengths = known
            self._write_indices()
        heldout = None if self._heldout_index is None else sums["heldout"].means()
        self._files.append(len(self._rows), sums["train"].means(), heldout)
        indices = {"train": self._index, "heldout": self._heldout_index}
        write_tokens(self._files, len(self._rows), indices, tokens or {})
        if self._first_seen.date(self._last_step(), row[1], self._num_records):
            self._files.write_first_seen(first_seen_table(self._index, self._first_seen.steps))
        self._gains.write(row[1], mode)
        self._rows.append(row)
        if self._group.world_size == 1:
            self._files.list_checkpoints(checkpoint_table(self._rows))

    def _row(
        self, mode: str, step: int | None, epoch: float | None, learning_rate: float | None
    ) -> CheckpointRow:
        step = self._num_records if step is None else int(step)
        require_no_step_back(self._rows, step, self.folder)
        if epoch is None:
            recorded = int(self._group.all_reduce(np.array([self._num_recorded]))[0])
            epoch = recorded / max(1, self._index.height)
        rate = None if learning_rate is None else float(learning_rate)
        return len(self._rows), step, float(epoch), mode, rate

    def _take(self, split: Split, call: int, index: Any, loss_sums: Any, num_tokens: Any) -> None:
        self._sums[split].add(index, loss_sums, num_tokens, self._name(split))
        if split == "train":
            rows = np.atleast_1d(index)
            self._num_recorded += len(rows)
            self._first_seen.note(rows, call)

    def _last_step(self) -> int:
        return self._rows[-1][1] if self._rows else 0

    def _name(self, split: Split) -> str:
        return f"{self.folder}: record ({split})"
