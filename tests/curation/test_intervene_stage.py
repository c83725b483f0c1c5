"""From the rules of params.yaml to plans, and from plans to what a run is trained by."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.config import InterveneConfig, LiveArm
from gdc.curation.live import LiveWeights
from gdc.schema import CORPUS, LAST_WEIGHTS
from gdc.stages import intervene, retrain
from gdc.training.recording import Recording
from gdc.workspace import tables
from tests.curation.builders import FIVE

ORDER = {"rule": "order", "score": "memorization", "tie_break": "difficulty", "fraction": 0.4}
CONFIG = InterveneConfig.model_validate(
    {
        "curated_arm": "auto",
        "recommend": None,
        "arms": {
            "order": ORDER,
            "order-shuffled": {"rule": "shuffled", "of": "order"},
            "live": {"rule": "live", "fraction": 0.4, "weight": 0.25},
            "live-shuffled": {"rule": "shuffled", "of": "live"},
            "none": {"rule": "none"},
        },
    }
)


@pytest.fixture(autouse=True)
def _empty_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text: these rules read none."""
    monkeypatch.chdir(tmp_path)
    tables.write("corpus", pl.DataFrame(schema=CORPUS))


def test_an_order_and_its_control_say_which_samples_come_early() -> None:
    plans = intervene._plans(CONFIG.arms, FIVE.lazy(), 1)
    early = {arm: retrain._early(plan.collect()) for arm, plan in plans.items()}
    assert early["order"] is not None
    assert early["order"].tolist() == [False, False, False, True, True]
    assert early["order-shuffled"] is not None
    assert early["order-shuffled"].sum() == 2
    assert [arm for arm in early if early[arm] is None] == ["live", "none", "live-shuffled"]


def test_a_live_arm_and_its_control_differ_in_who_picks() -> None:
    rule = LiveArm(rule="live", fraction=0.4, weight=0.25)
    assert retrain._revision(CONFIG, "live", 3) == LiveWeights(rule, 3, by_chance=False)
    assert retrain._revision(CONFIG, "live-shuffled", 3) == LiveWeights(rule, 3, by_chance=True)
    assert retrain._revision(CONFIG, "order-shuffled", 3) is None
    assert retrain._revision(CONFIG, "none", 3) is None
    plans = intervene._plans(CONFIG.arms, FIVE.lazy(), 1)
    reasons = pl.concat([plans[arm] for arm in ("live", "live-shuffled")]).collect()["reason"]
    share = "in the 40 % of a pass with the highest contrast: 0.25"
    assert reasons.to_list() == [share] * 5 + [f"by chance, not {share}"] * 5


def test_the_weights_of_the_last_pass_are_named_by_sample() -> None:
    samples = pl.DataFrame({"sample_id": ["a", "b"], "weight": [1.0, 1.0]})
    assert retrain._last_weights(samples, Recording()) is None
    table = retrain._last_weights(samples, Recording(weights=np.array([0.25, 1])))
    assert table is not None
    assert table.rows() == [("a", 0.25), ("b", 1.0)]
    assert table.schema == LAST_WEIGHTS
