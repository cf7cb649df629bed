import json

import pytest

from maskgil_jax import config as defaults
from tests.helpers import tiny


def as_written(config):
    """What config.json holds."""
    return json.loads(config.to_json_best_effort())


@pytest.mark.parametrize("field", defaults.REMOVED)
def test_a_run_whose_config_has_a_removed_field_goes_on_if_it_had_todays_value(field):
    stage = tiny.tokenizer() if field.startswith("loss.") else tiny.generator()
    new = as_written(stage)
    old = as_written(stage)
    section, name = field.split(".")
    old[section][name] = defaults.REMOVED[field]
    assert defaults.differences(old, new) == []
    key = stage.stage
    assert defaults.differences({"stages": {key: old}}, {"stages": {key: new}}) == []
    old[section][name] = 7.5
    lines = defaults.differences({"stages": {key: old}}, {"stages": {key: new}})
    assert lines == [f"stages.{key}.{field}: 7.5 -> {defaults.REMOVED[field]}"]


def test_a_field_that_never_was_is_a_difference():
    new = as_written(tiny.tokenizer())
    old = as_written(tiny.tokenizer())
    old["loss"]["another_weight"] = 1.0
    assert defaults.differences(old, new) == ["loss.another_weight: 1.0 -> (absent)"]


def test_a_removed_field_is_an_unknown_key_of_new_configs():
    for field in defaults.REMOVED:
        section, name = field.split(".")
        for config in (defaults.tokenizer(), defaults.generator()):
            assert name not in config[section]
