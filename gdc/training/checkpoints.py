"""State of a run -> a file from which the run resumes after a kill."""

import os
import pickle
import sys
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gdc.filesystem import scratch
from gdc.filesystem.durable import put_in_place
from gdc.statistics.syntax_hash import syntax_hash
from gdc.training import models
from gdc.training.distributed import Group, State
from gdc.training.recipe import TrainingData

# A killed run that nobody has resumed for so long, in seconds, is given up.
_ABANDONED_SECONDS: Final = 7 * 24 * 3600.0
# What zipfile and torch raise for a file that is not as it was written.
_DAMAGE_ERRORS: Final = (
    EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# The code that decides a run's result: all of this package.
_CODE: Final = Path(__file__).parent


@dataclass(frozen=True)
class CheckpointFile:
    """The checkpoint of one run, read by all processes of a group and written by the main one."""

    path: Path
    group: Group

    def load(self, device: torch.device) -> State | None:
        """Read what a killed run has saved; None: nothing was saved, or it is damaged.

        A damaged file is renamed, with a message, so that the run starts from the beginning.
        """
        state, error = None, None
        if self.path.exists():
            try:
                state = _load(self.path, device)
            except _DAMAGE_ERRORS as damage:
                error = damage
        # All processes resume, or none does. The sum is known when all have read.
        if self.group.all_reduce(np.array([error is not None], dtype=np.int64))[0] == 0:
            return state
        if self.group.is_main:
            self._put_aside(error)
        return None

    def save(self, state: State) -> None:
        """Replace the file by one with this state, whole or not at all."""
        if self.group.is_main:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            torch.save(state, temporary)
            put_in_place(temporary, self.path)

    def remove(self) -> None:
        """Remove the files of this run, and of runs that nobody has resumed for a week.

        Once params or code have changed, no run has their name any more. A run in progress saves
        every minute.
        """
        if not self.group.is_main:
            return
        for file in self.path.parent.glob("*"):
            if file.stem.partition(".")[0] == self.path.stem or _is_abandoned(file):
                file.unlink(missing_ok=True)

    def _put_aside(self, error: Exception | None) -> None:
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        found = (
            "an error in another process" if error is None else f"{type(error).__name__}: {error}"
        )
        tqdm.write(
            f"{self.path}: expected a training checkpoint as it was written, got {found}. "
            f"Renamed to {aside.name}; training starts from the beginning.",
            file=sys.stderr,
        )


def run_digest(model: nn.Module, data: TrainingData, *settings: object) -> str:
    """Digest of all that decides a run's result, which names its checkpoint.

    Of the settings (by their ``repr``), the samples, the model, its first weights, the code that
    trains, and torch's version.
    """
    digest = blake2b(repr((*settings, torch.__version__)).encode(), digest_size=16)
    digest.update(_code_digest(_CODE))
    for texts in (data.texts, data.heldout):
        for array in (texts.ids, texts.offsets, texts.has_loss):
            for part in () if array is None else scratch.read(array):
                digest.update(part.tobytes())
    digest.update(data.weights.tobytes())
    digest.update(data.copies.tobytes())
    for part in () if data.masked is None else scratch.read(data.masked):
        digest.update(part.tobytes())
    digest.update(b"" if data.early is None else data.early.tobytes())
    digest.update(repr(data.revision).encode())
    digest.update(models.model_settings(model).encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@cache
def _code_digest(folder: Path) -> bytes:
    """Of the modules in a folder, read once: a process goes on with the code that it has loaded."""
    modules = sorted(folder.glob("*.py"))
    return b"".join(module.name.encode() + syntax_hash(module.read_bytes()) for module in modules)


def _load(path: Path, device: torch.device) -> State:
    # torch writes a checksum of each tensor, but does not compare it.
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"another checksum of {damaged}")
    state: State = torch.load(path, weights_only=True, map_location=device)
    return state


def _is_abandoned(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False  # another run was faster


def rng_state(device: torch.device) -> list[Tensor]:
    """State of each generator that dropout on the device draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_rng_state(device: torch.device, states: Sequence[Tensor]) -> None:
    """Put the generators back into states that ``rng_state`` gave."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)
