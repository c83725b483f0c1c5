"""Models move to the device that the environment names, if it is there."""

import pytest
from torch import nn

from gdc.errors import ConfigError
from gdc.training.models import on_device


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("junk", r"expected one of cpu, cuda, .* got 'junk'"),
        ("cuda:x", r"expected one of cpu, cuda, .* got 'cuda:x'"),
        ("", r"expected one of cpu, cuda, .* got ''"),
        ("xpu", r"expected a device that torch .* has here, got 'xpu': "),
        ("cuda:99", r"expected a device that torch .* has here, got 'cuda:99': "),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDC_DEVICE", name)
    with pytest.raises(ConfigError, match=f"GDC_DEVICE: {message}"):
        on_device(nn.Linear(1, 1))
    monkeypatch.setenv("GDC_DEVICE", "cpu:0")
    assert next(on_device(nn.Linear(1, 1)).parameters()).device.type == "cpu"
