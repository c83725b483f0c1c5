"""A Trainer of Lightning -> what each optimizer step taught of its samples."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torchmetrics import Metric

from gdc.errors import ConfigError
from gdc.recording.recorder import TraceRecorder
from gdc.recording.step_passes import DEVICES, StepPasses


def require_steps_again(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse a module of which no step can be made a second time as it was.

    Raises:
        ConfigError: It is sharded or compiled, or takes its optimizer's steps itself.
    """
    strategy = trainer.strategy
    found = {
        f"{type(strategy).__name__}": type(strategy) not in {SingleDeviceStrategy, DDPStrategy},
        f"a device {strategy.root_device.type}": strategy.root_device.type not in DEVICES,
        "a compiled module": module._compiler_ctx is not None,
        "automatic_optimization=False": not module.automatic_optimization,
    }
    wrong = next((what for what, is_so in found.items() if is_so), None)
    if wrong is not None:
        raise _refusal(f"a whole module that Lightning optimizes, got {wrong}")


class LightningSteps:
    """Sees each ``training_step``, and makes it again after the optimizer step that it led to."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """From now on, until ``remove``."""
        self._trainer, self._module = trainer, module
        self._passes, self._num_steps = StepPasses(module), trainer.global_step
        self._call: partial[Any] | None = None
        self._own = _own_of(module, "training_step")
        step = module.training_step

        @wraps(step)  # Lightning reads its arguments' names
        def seen_step(*args: Any, **kwargs: Any) -> Any:
            if self._call is not None:
                raise _refusal("one training_step for each batch, got several (as of LBFGS)")
            self._passes.begin()
            self._call = partial(step, *args, **kwargs)
            return self._call()

        module.training_step = seen_step  # type: ignore[method-assign]

    def remove(self) -> None:
        """Give the module its own ``training_step`` back."""
        del self._module.training_step
        vars(self._module).update(self._own)

    def end_batch(
        self, recorder: TraceRecorder, sample_index: Any, loss_sums: Any, num_tokens: Any
    ) -> None:
        """Take what a batch gave; where its end was a step, record the gains since the last one."""
        call, self._call = self._call, None
        assert call is not None  # noqa: S101 - a batch that ends had one
        self._passes.keep(lambda: call()["loss_sums"], sample_index, loss_sums, num_tokens)
        if self._trainer.global_step > self._num_steps:
            self._num_steps = self._trainer.global_step
            with self._silent(), self._trainer.precision_plugin.train_step_context():
                self._passes.record_gains(recorder)

    @contextmanager
    def _silent(self) -> Iterator[None]:
        """Nothing is logged; metrics, which cannot be put back, are refused."""
        module, counted = self._module, self._num_updates()
        own = _own_of(module, "log", "log_dict")
        module.log = module.log_dict = _ignore  # type: ignore[method-assign]
        try:
            yield
        finally:
            del module.log, module.log_dict
            vars(module).update(own)
        if self._num_updates() > counted:
            raise _refusal("a training_step that updates no metric, which would count twice")

    def _num_updates(self) -> int:
        return sum(one.update_count for one in self._module.modules() if isinstance(one, Metric))


def _own_of(module: pl.LightningModule, *names: str) -> dict[str, Any]:
    """Those of these attributes that the module has itself, besides those of its class."""
    return {name: value for name, value in vars(module).items() if name in names}


def _ignore(*_: Any, **__: Any) -> None:
    """In place of what logs."""


def _refusal(expected: str) -> ConfigError:
    return ConfigError(
        f"TraceCallback: gains: expected {expected}. Leave gains out, or call "
        "recorder.record_gain in the module."
    )
