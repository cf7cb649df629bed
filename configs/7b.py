"""MaskGIL-7B: bidirectional LLaMA, 6.6B parameters, class-conditional ImageNet at 256 pixels.

    python -m maskgil_jax.main --config=configs/7b.py --workdir=DIR \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH
"""

from maskgil_jax import config as defaults


def get_config():
    """The paper's recipe, at the size of LlamaGen's list that no one has trained masked."""
    config = defaults.generator()
    config.model.update(layers=32, dim=4096, heads=32)
    config.model.remat = "full"
    config.mesh.update(data=-1, fsdp=-1)  # the state spread over as many devices as suit it
    return config
