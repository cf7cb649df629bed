"""MaskGIL-XXL: bidirectional LLaMA, 1.4B parameters, class-conditional ImageNet at 256 pixels.

    python -m maskgil_jax.main --config=configs/xxl.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at size XXL."""
    config = defaults.generator()
    config.model.update(layers=48, dim=1536, heads=24)
    config.model.remat = "full"
    config.mesh.update(data=-1, fsdp=-1)  # the state spread over as many devices as suit it
    return config
