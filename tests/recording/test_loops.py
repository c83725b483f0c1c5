"""What other loops than a Trainer record is what each sample alone would give, however they run."""

from pathlib import Path

import pytest

from tests.recording.gain_witness import assert_gains_are_whole
from tests.recording.loops import IDS, LOOPS, Condition, Sums
from tests.recording.trainer_builders import NUM_SAMPLES, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about small data


def assert_recorded(folder: Path, sums: Sums) -> None:
    epochs = recorded(folder)
    assert len(epochs) == len(sums) == 2
    for epoch, found in enumerate(epochs):
        assert len(sums[epoch]) == NUM_SAMPLES
        assert found == {
            IDS[row]: pytest.approx(total / count, rel=1e-5)
            for row, (total, count) in sums[epoch].items()
        }


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(Condition(), id="accumulated"),
        pytest.param(Condition(seed=1, is_packed=True), id="shuffled otherwise, packed"),
        pytest.param(Condition(is_by_length=True), id="grouped by length"),
        pytest.param(Condition(stop=1), id="resumed"),
    ],
)
def test_recorded_losses_are_those_of_each_sample_alone(
    loop: str, condition: Condition, tmp_path: Path
) -> None:
    assert_recorded(tmp_path / "trace", LOOPS[loop](tmp_path, condition))
    if loop == "lightning":
        assert_gains_are_whole(tmp_path, dict(enumerate(IDS)), 1)
