"""The benchmark of memory changes params.yaml, which other changes may make impossible."""

from importlib import import_module

import pytest

from gdc.config import Params
from tests.builders import REPOSITORY


@pytest.mark.parametrize("token_losses", [False, True])
def test_its_parameters_are_valid(token_losses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    values = import_module("memory").params(token_losses=token_losses)
    params = Params.model_validate(values)
    assert params.training.epochs == 1
    assert params.train.token_losses is token_losses
