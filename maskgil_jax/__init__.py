"""Masked-autoregressive image generation (MaskGIL) in JAX.

    import maskgil_jax
    generator = maskgil_jax.load("DIR")     # a model directory: a Generator, a Tokenizer ...

Names are loaded on first use, so that `import maskgil_jax` and `--help` stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskgil_jax.pretrained.loading import Generator, TextEncoder, Tokenizer, load

__all__ = ["Generator", "TextEncoder", "Tokenizer", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("maskgil_jax.pretrained.loading"), name)
    raise AttributeError(f"module 'maskgil_jax' has no attribute {name!r}")
