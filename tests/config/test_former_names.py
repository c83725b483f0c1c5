"""Keys of older versions are told by their new names, new ones by the value that keeps results."""

from collections.abc import Mapping
from typing import Any

import pytest

from gdc.config import params, parse_params
from gdc.errors import ConfigError
from tests.builders import params_with


def test_a_key_of_an_older_version_is_refused_with_its_new_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(params, "FORMER_NAMES", {"training.lr": "training.learning_rate"})
    values = params_with().model_dump(mode="json")
    values["training"]["lr"] = values["training"].pop("learning_rate")
    with pytest.raises(ConfigError) as refused:
        parse_params(values, name="params.yaml")
    assert str(refused.value) == (
        "params.yaml: 1 wrong value(s):\n"
        "  training.lr: is called training.learning_rate now. Rename it."
    )


def test_a_key_that_an_older_version_did_not_have_is_named_with_the_value_that_keeps_results() -> (
    None
):
    values = params_with().model_dump(mode="json")
    del values["ingest"]["choose_by"]
    with pytest.raises(ConfigError) as refused:
        parse_params(values, name="params.yaml")
    assert str(refused.value) == (
        "params.yaml: 1 wrong value(s):\n"
        "  ingest.choose_by: is new. Add it; text keeps results as they were."
    )
    kinds = {
        "model": {"pretrained": {"lora": None, "gradient_checkpointing": False}},
        "ingest": params_with().model_dump(mode="json")["ingest"],
    }
    assert all(stands(kinds, added) for added in params.ADDED_KEYS)


def test_no_former_name_is_a_present_one_and_each_leads_to_one() -> None:
    values = params_with().model_dump(mode="json")
    for former, name in params.FORMER_NAMES.items():
        assert not stands(values, former)
        assert stands(values, name)
    assert stands(values, "training.learning_rate")
    assert not stands(values, "training.lr")


def stands(values: Mapping[str, Any], name: str) -> bool:
    section, _, rest = name.partition(".")
    return section in values and (not rest or stands(values[section], rest))
