"""MaskGIL in PyTorch: a folder to copy elsewhere, which needs torch and safetensors alone.

    python -m maskgil_jax.convert export --format=maskgil --source=DIR --output=FOLDER

    import maskgil_torch  # from FOLDER
    generator = maskgil_torch.load("generator.safetensors")
    tokenizer = maskgil_torch.load_tokenizer("tokenizer.safetensors")
    codes = maskgil_torch.sample(generator, torch.tensor([0, 3, 7]), seed=0, steps=8)  # [3, h, w]
    images = tokenizer.images(codes)  # uint8 [3, H, W, 3]
    logits = generator(codes, condition)  # as maskgil_jax.load(DIR).logits(codes, condition)

`network.py` is the token model, `sampling.py` draws codes with it by `schedules.py`, and
`tokenizers.py` makes images of them.
"""

import json
from typing import Any

import torch

from .network import MaskGIL
from .sampling import sample
from .tokenizers import Decoder, write_png

__all__ = ["Decoder", "MaskGIL", "load", "load_tokenizer", "sample", "write_png"]


def load(path: str) -> MaskGIL:
    """The model of a .safetensors or .pt file of `maskgil_jax.convert export --format=maskgil`."""
    config, state = _read(path)
    model = MaskGIL(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def load_tokenizer(path: str) -> Decoder:
    """The decoder in the tokenizer.safetensors that such an export writes into a folder."""
    config, state = _read(path)
    decoder = Decoder(config)
    decoder.load_state_dict(state, strict=True)
    return decoder.eval()


def _read(path: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The config of a network and its weights."""
    if not path.endswith(".safetensors"):
        content = torch.load(path, weights_only=True)
        return json.loads(content["config"]), content["model"]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["config"]), state
