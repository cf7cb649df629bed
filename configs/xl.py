"""MaskGIL-XL: bidirectional LLaMA, 775M parameters, class-conditional ImageNet at 256 pixels.

    python -m maskgil_jax.main --config=configs/xl.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at size XL."""
    config = defaults.generator()
    config.model.update(layers=36, dim=1280, heads=20)
    config.model.remat = "full"
    config.mesh.update(data=-1, fsdp=-1)  # the state spread over as many devices as suit it
    return config
