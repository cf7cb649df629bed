import json

import pytest

from maskgil_jax import config as defaults
from maskgil_jax.training import config_changes
from tests.helpers import tiny


def as_written(config):
    """What config.json holds."""
    return json.loads(config.to_json_best_effort())


@pytest.mark.parametrize("field", config_changes.REMOVED)
def test_a_run_whose_config_has_a_removed_field_goes_on_if_it_had_todays_value(field):
    stage = tiny.tokenizer() if field.startswith("loss.") else tiny.generator()
    new = as_written(stage)
    old = as_written(stage)
    section, name = field.split(".")
    old[section][name] = config_changes.REMOVED[field]
    assert config_changes.differences(old, new) == []
    key = stage.stage
    assert config_changes.differences({"stages": {key: old}}, {"stages": {key: new}}) == []
    old[section][name] = 7.5
    lines = config_changes.differences({"stages": {key: old}}, {"stages": {key: new}})
    assert lines == [f"stages.{key}.{field}: 7.5 -> {config_changes.REMOVED[field]}"]


def test_a_field_that_never_was_is_a_difference():
    new = as_written(tiny.tokenizer())
    old = as_written(tiny.tokenizer())
    old["loss"]["another_weight"] = 1.0
    assert config_changes.differences(old, new) == ["loss.another_weight: 1.0 -> (absent)"]


def test_a_removed_field_is_an_unknown_key_of_new_configs():
    for field in config_changes.REMOVED:
        section, name = field.split(".")
        for config in (defaults.tokenizer(), defaults.generator()):
            assert name not in config[section]


def test_how_a_start_is_watched_may_change_in_configs_of_several_stages_too():
    old, new = (as_written(tiny.get_config()) for _ in range(2))
    new["stages"]["generator"]["trace"] = "3:4"
    new["stages"]["tokenizer"]["compilation_cache"] = ""
    for name in ("trace", "compilation_cache"):  # of a run that was begun before there were such
        del old["stages"]["generator"][name]
    del old["stages"]["generator"]["mesh"]["slices"]
    assert config_changes.differences(old, new) == []
    new["stages"]["generator"]["seed"] = 7
    assert config_changes.differences(old, new) == ["stages.generator.seed: 0 -> 7"]
