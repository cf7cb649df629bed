"""Masked-autoregressive image generation (MaskGIL) in JAX.

    import maskgil_jax
    m = maskgil_jax.pipeline("DIR")         # a generator and its tokenizer, for PIL images
    images = m("a red apple", num=4)

    generator = maskgil_jax.load_generator("DIR")       # for codes and logits
    tokenizer = maskgil_jax.load_tokenizer("DIR")

`load` reads a model directory of any kind. Names are loaded on first use, so that
`import maskgil_jax` and `--help` stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskgil_jax.generation.pipelines import Pipeline, pipeline
    from maskgil_jax.pretrained.loading import (
        ClipEncoder,
        Generator,
        PromptedGenerator,
        SpeechEncoder,
        TextEncoder,
        Tokenizer,
        load,
        load_clip,
        load_generator,
        load_text_encoder,
        load_tokenizer,
    )

    __version__: str

__all__ = [
    "ClipEncoder",
    "Generator",
    "Pipeline",
    "PromptedGenerator",
    "SpeechEncoder",
    "TextEncoder",
    "Tokenizer",
    "load",
    "load_clip",
    "load_generator",
    "load_text_encoder",
    "load_tokenizer",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("maskgil_jax")
    if name in __all__:
        room = "generation.pipelines" if name.lower() == "pipeline" else "pretrained.loading"
        return getattr(importlib.import_module(f"maskgil_jax.{room}"), name)
    raise AttributeError(f"module 'maskgil_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
