"""Weights that follow a run: picks by hand, and laws of what is picked by chance."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gdc.config import LiveArm
from gdc.curation.live import LiveWeights

RULE = LiveArm(rule="live", fraction=0.25, weight=0.5)
# Four samples in three passes. The first falls to 1/16 after 16, so 2 - 2.5 / 2 = 0.75; the second
# stays at 1: -1.5; the third was easy from the start: 2 - 5 = -3; the last is never learned.
ONLINE = np.array([[20, 1, 1 / 16, 16], [16, 1, 1 / 16, 16], [1, 1, 1 / 16, 16]], dtype=np.float32)
FROZEN = np.array(
    [[16, 1, 1 / 16, 16], [1 / 16, 1, 1 / 16, 16], [1 / 16, 1, 1 / 16, 16]], dtype=np.float32
)


def weights(num_passes: int, *, by_chance: bool = False, seed: int = 0) -> NDArray[np.float64]:
    return LiveWeights(RULE, seed, by_chance)(ONLINE[:num_passes], FROZEN[:num_passes])


def test_what_was_learned_from_a_high_loss_has_the_lower_weight() -> None:
    assert weights(2).tolist() == [0.5, 1, 1, 1]
    assert weights(3).tolist() == [0.5, 1, 1, 1]


@pytest.mark.parametrize("by_chance", [False, True])
def test_one_pass_says_nothing_yet(by_chance: bool) -> None:
    assert weights(1, by_chance=by_chance).tolist() == [1, 1, 1, 1]


def test_a_sample_that_is_forgotten_has_its_weight_back() -> None:
    # Sample 0 stands at 16 again: 1/2 - 2.5/2 < 0; of the others sample 3 has 1/2 - 2.5/2 too, the
    # same, and sample 1 -1.5: of equals the first is taken.
    frozen = FROZEN.copy()
    frozen[2, 0], frozen[2, 3] = 16, 1
    assert LiveWeights(RULE, 0, by_chance=False)(ONLINE, frozen).tolist() == [1, 1, 1, 0.5]


def test_chance_picks_as_many_anew_after_each_pass_and_the_same_for_a_seed() -> None:
    online = np.ones((9, 40), dtype=np.float32)
    picks = [
        LiveWeights(RULE, 3, by_chance=True)(online[:n], online[:n]).tolist() for n in range(2, 10)
    ]
    assert {pick.count(0.5) for pick in picks} == {10}
    assert len({tuple(pick) for pick in picks}) == 8
    again = LiveWeights(RULE, 3, by_chance=True)(online[:2], 2 * online[:2])
    assert again.tolist() == picks[0]
    assert LiveWeights(RULE, 4, by_chance=True)(online[:2], online[:2]).tolist() != picks[0]


def test_a_sample_without_a_score_is_never_picked() -> None:
    online, frozen = ONLINE.copy(), FROZEN.copy()
    online[:, 0] = np.nan
    assert LiveWeights(RULE, 0, by_chance=False)(online, frozen).tolist() == [1, 1, 1, 0.5]
