"""From the rules of params.yaml to plans, and from plans to what a run is trained by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.config import DpSgdArm, InterveneConfig, LiveArm, Params
from gdc.curation.live import LiveWeights
from gdc.errors import ConfigError
from gdc.schema import CORPUS, REVISED_WEIGHTS
from gdc.stages import intervene, manifest, retrain
from gdc.training.private import Accountant, Privacy
from gdc.training.recording import Recording
from gdc.workspace import tables
from tests.builders import params_with
from tests.curation.builders import FIVE
from tests.training.builders import recipe_with, training_data

ORDER = {"rule": "order", "score": "memorization", "tie_break": "difficulty", "fraction": 0.4}
PRIVATE = {
    "rule": "dp-sgd", "clip_norm": 0.5, "noise_multiplier": 2.0, "target_epsilon": None,
    "delta": 1e-5,
}  # fmt: skip
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


def test_a_private_arm_chooses_its_noise_or_says_what_it_gives() -> None:
    by_noise = DpSgdArm.model_validate(PRIVATE)
    by_epsilon = by_noise.model_copy(update={"noise_multiplier": None, "target_epsilon": 3.0})
    # A single batch of a pass has all texts.
    recipe, data = recipe_with(batch_tokens=100, epochs=3), training_data()
    accountant = Accountant(sample_rate=1.0, num_steps=3, delta=1e-5)
    private, numbers = retrain._made_private(recipe, data, by_noise)
    assert private.privacy == Privacy(clip_norm=0.5, noise_multiplier=2.0)
    assert numbers == {"privacy_epsilon": accountant.epsilon(2.0), "noise_multiplier": 2.0}
    private, numbers = retrain._made_private(recipe, data, by_epsilon)
    assert private.privacy is not None
    assert numbers["noise_multiplier"] == private.privacy.noise_multiplier
    assert numbers["privacy_epsilon"] == pytest.approx(3.0, rel=0.03)
    other = retrain._made_private(replace(recipe, num_steps=60), data, by_noise)[1]
    assert other["privacy_epsilon"] == replace(accountant, num_steps=60).epsilon(2.0)
    assert retrain._made_private(recipe, data, CONFIG.arms["none"]) == (recipe, {})


def test_without_its_accountant_a_private_arm_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arms = {"none": {"rule": "none"}, "dp": PRIVATE}
    usual = params_with().retrain.model_dump()
    intervene = {"curated_arm": "auto", "recommend": None, "arms": arms}

    def retraining(*names: str) -> Params:
        return params_with(intervene=intervene, retrain={**usual, "arms": names})

    manifest._require_accountant(retraining("none", "dp"))
    monkeypatch.setattr(manifest, "find_spec", lambda _: None)
    manifest._require_accountant(retraining("none"))
    with pytest.raises(ConfigError, match=r"arms\.dp: dp-sgd needs .*'gendatacarto\[privacy\]'"):
        manifest._require_accountant(retraining("none", "dp"))


def test_revised_weights_are_named_by_sample() -> None:
    samples = pl.DataFrame({"sample_id": ["a", "b"], "weight": [1.0, 1.0]})
    assert retrain._revised_weights(samples, Recording()) is None
    recording = Recording(weights=np.array([0.25, 1]), first_changed=np.array([3, 0]))
    table = retrain._revised_weights(samples, recording)
    assert table is not None
    assert table.rows() == [("a", 0.25, 3), ("b", 1.0, None)]
    assert table.schema == REVISED_WEIGHTS
