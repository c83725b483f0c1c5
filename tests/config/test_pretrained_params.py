"""params.yaml: a pretrained model, its tokenizer, and its losses as a reference."""

import pytest

from gdc.config import parse_params
from gdc.errors import ConfigError
from tests.builders import params_with
from tests.config.builders import PRETRAINED, changed


def test_a_pretrained_model_with_its_own_tokenizer_is_accepted() -> None:
    tokenizer = {"kind": "pretrained", "name": "some/model", "revision": None}
    values = changed({"model": PRETRAINED, "ingest.tokenizer": tokenizer})
    assert parse_params(values, name="params.yaml").model.kind == "pretrained"


def test_the_pretrained_model_stands_before_the_models_of_halves() -> None:
    tokenizer = {"kind": "pretrained", "name": "some/model", "revision": None}
    pretrained = {"model": PRETRAINED, "ingest.tokenizer": tokenizer}
    alone = {"reference.models": ["base"], "score.enabled": ["final_loss", "base_gap", "random"]}
    found = [
        parse_params(changed({**pretrained, **changes}), name="params.yaml")
        for changes in ({"reference.models": ["base", 0, 1]}, alone, {"reference.models": [0, 1]})
    ]
    assert [of.reference.halves for of in found] == [(0, 1), (), (0, 1)]
    assert [of.reference.has_base for of in found] == [True, True, False]
    # The pretrained model is not trained again.
    assert [of.num_models - found[1].num_models for of in found] == [2, 0, 2]
    for models in ([0, 1, "base"], ["base", "base"], ["base", 0]):
        with pytest.raises(ConfigError, match=r"with or without base before them, got \["):
            parse_params(changed({**pretrained, "reference.models": models}), name="params.yaml")


def test_a_model_and_its_tokenizer_have_one_revision() -> None:
    name = {"kind": "pretrained", "name": "some/model"}
    values = params_with().model_dump(mode="json")
    tuning = {"lora": None, "gradient_checkpointing": False}
    sizes = {"block_size": 8, "precision": "float32"}
    values["model"] = {**name, **sizes, **tuning, "revision": "v1"}
    for revision in ("v2", None):
        values["ingest"]["tokenizer"] = {**name, "revision": revision}
        with pytest.raises(
            ConfigError, match=rf"tokenizer.revision: expected 'v1' .* got {revision!r}"
        ):
            parse_params(values, name="test")
    values["ingest"]["tokenizer"] = {**name, "revision": "v1"}
    parse_params(values, name="test")
