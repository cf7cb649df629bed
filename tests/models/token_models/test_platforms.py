"""The table of what platforms do differently."""

import dataclasses

import jax
import pytest

from maskgil_jax.models.token_models import platforms
from maskgil_jax.models.token_models.llama_config import PRESETS
from maskgil_jax.models.token_models.products import product, product_of_transposed
from tests.helpers.tiny_llama import built, inputs


def test_the_platform_of_this_machine_has_a_row():
    assert set(platforms.PLATFORMS) == {"cpu", "gpu", "tpu"}
    assert platforms.current() is platforms.PLATFORMS[jax.default_backend()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", platforms.PLATFORMS)
def test_decoding_token_by_token_asks_the_table(name, dtype, monkeypatch):
    """Of weights and caches: transposed in float32 on CPUs alone, where caches are float32 too."""
    row = dataclasses.replace(platforms.PLATFORMS[name], fused_attention="")
    monkeypatch.setattr(platforms, "current", lambda: row)
    model, (_, classes) = built(**PRESETS["llamagen"], dtype=dtype), inputs()
    layers, cache, _ = jax.eval_shape(model.start, classes)
    transposed = name == "cpu" and dtype == "float32"
    assert layers[0].multiply is (product_of_transposed if transposed else product)
    assert cache.keys[0].dtype == ("float32" if name == "cpu" else dtype)
