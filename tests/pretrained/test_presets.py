"""Which presets go with which recipe of maskgil_jax/config.py."""

import dataclasses

import pytest

from maskgil_jax import config as defaults
from maskgil_jax.pretrained import presets
from maskgil_jax.runtime.errors import InputError

CONFIGS = {
    "generator": defaults.generator(),
    "causal_generator": defaults.causal_generator(),
    "lumina_generator": defaults.lumina_generator("7B"),
}


def test_every_preset_is_of_one_recipe():
    listed = [preset for known in presets.RECIPES.values() for preset in known]
    assert sorted(listed) == sorted(presets.NETWORKS)
    for recipe, config in CONFIGS.items():
        assert config.model.preset in presets.RECIPES[recipe]


@pytest.mark.parametrize(
    "field, value",
    [
        ("qk_norm", "none"),
        ("qk_norm", "rms"),
        ("post_norm", "none"),
        ("rope", "1d"),
        ("condition_position", "last"),
        ("condition_rope", "identity"),
        ("joint_embedding", "true"),
        ("mask_logit", "true"),
    ],
)
def test_a_switch_changes_its_field_of_the_network_and_no_other(field, value):
    config = CONFIGS["generator"].copy_and_resolve_references()
    arguments = (8192, (8, 8), config.loss)
    before = presets.network_config(config.model, *arguments)
    config.model[field] = value
    after = presets.network_config(config.model, *arguments)
    value = value == "true" or value
    assert getattr(before, field) != value
    assert after == dataclasses.replace(before, **{field: value})


@pytest.mark.parametrize(
    "preset, field, value, said",
    [
        ("paper", "qk_norm", "batch", "expected one of|layer"),
        ("paper", "rope", "sequence", "rope"),
        ("besnier", "post_norm", "none", "besnier has not"),
        ("halton", "mask_logit", "false", "halton has not"),
        ("paper", "mask_logit", "no", "expected true or false"),
    ],
)
def test_switches_that_a_network_cannot_have_are_refused(preset, field, value, said):
    config = CONFIGS["generator"].copy_and_resolve_references()
    config.model.update({"preset": preset, field: value})
    with pytest.raises(InputError, match=said):
        presets.network_config(config.model, 8192, (8, 8), config.loss)


@pytest.mark.parametrize("recipe", CONFIGS)
@pytest.mark.parametrize("preset", presets.NETWORKS)
def test_a_preset_of_another_recipe_is_refused_and_its_own_named(recipe, preset):
    config = CONFIGS[recipe].copy_and_resolve_references()
    config.model.preset = preset
    if preset in presets.RECIPES[recipe]:
        presets.check_recipe(config.model, config.loss)
        return
    with pytest.raises(InputError, match=f"{preset} is of those that begin with [a-z_]*generator"):
        presets.check_recipe(config.model, config.loss)
    with pytest.raises(InputError, match=f"the config begins with {recipe} of"):
        presets.network_config(config.model, 8192, (8, 8), config.loss)
