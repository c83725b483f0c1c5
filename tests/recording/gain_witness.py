"""A witness of a Trainer who computes what each step taught of each sample alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import TrainerCallback

from tests.recording.trainer_builders import samples_in


class GainWitness(TrainerCallback):
    """Looks at the samples of a step before it and after it, without dropout.

    Attributes:
        gains: By the token ids of a sample, nats per token.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.train = trainer, trainer.training_step
        self.gains: dict[tuple[int, ...], float] = defaultdict(float)
        self._seen: list[tuple[list[int], list[int], float]] = []
        trainer.training_step = self.training_step
        trainer.add_callback(self)

    def training_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        for ids, labels in samples_in(inputs):
            self._seen.append((ids, labels, self._loss(ids, labels)))
        return self.train(model, inputs, *rest, **named)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        for ids, labels, before in self._seen:
            self.gains[tuple(ids)] += before - self._loss(ids, labels)
        self._seen.clear()

    @torch.no_grad()
    def _loss(self, ids: list[int], labels: list[int]) -> float:
        logits = self.trainer.model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        return float(F.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100))

    def require(self, found: Sequence[float | None], places: Mapping[tuple[int, ...], int]) -> None:
        """Compare with what was recorded of the samples in these places."""
        assert len(self.gains) == len(found) == len(places)
        expected = {places[ids]: gain for ids, gain in self.gains.items()}
        assert [expected[place] for place in range(len(found))] == pytest.approx(found, abs=1e-5)
        assert max(expected.values()) > 1e-3


def assert_gains_are_whole(folder: Path, names: Mapping[Any, str], num_processes: int) -> None:
    """Compare a trace with what a witness in each process has kept beside it, by other names."""
    gains: dict[str, float] = defaultdict(float)
    for rank in range(num_processes):
        for sample, gain in torch.load(folder / f"gains-{rank}.pt").items():
            gains[names[sample]] += gain
    table = pl.read_parquet(folder / "trace/self_influence.parquet")
    assert dict(table.rows()) == {name: pytest.approx(gains[name], abs=1e-5) for name in gains}
    assert table.height == len(names)
