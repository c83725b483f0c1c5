"""Wrong inputs of every kind: refused in words, or taken for what they are; a few of each.

``make fuzz`` gives each target hundreds or thousands, others in every run.
"""

from pathlib import Path

import pytest

from tests.fuzz.campaign import attack
from tests.fuzz.targets import TARGETS

NUM_INPUTS = 8


@pytest.mark.parametrize("name", TARGETS)
def test_no_traceback_no_hang_and_no_result_that_the_input_does_not_support(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target, _ = TARGETS[name]
    tally = attack(target, NUM_INPUTS, seed=0)
    assert not tally.faults, "\n".join(tally.faults.values())
    assert tally.counts.total() == NUM_INPUTS
