"""The table of what platforms do differently."""

import dataclasses

import jax
import pytest

from maskgil_jax.models.token_models import platforms
from maskgil_jax.models.token_models.llama_config import PRESETS
from tests.helpers.tiny_llama import built, inputs


def test_the_platform_of_this_machine_has_a_row():
    assert set(platforms.PLATFORMS) == {"cpu", "gpu", "tpu"}
    assert platforms.current() is platforms.PLATFORMS[jax.default_backend()]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", platforms.PLATFORMS)
def test_decoding_token_by_token_asks_the_table(name, dtype, monkeypatch):
    """Caches are float32 on CPUs, and in the dtype of the computation elsewhere."""
    row = dataclasses.replace(platforms.PLATFORMS[name], fused_attention="")
    monkeypatch.setattr(platforms, "current", lambda: row)
    model, (_, classes) = built(**PRESETS["llamagen"], dtype=dtype), inputs()
    _, cache, _ = jax.eval_shape(model.start, classes)
    assert cache.keys[0].dtype == ("float32" if name == "cpu" else dtype)
