"""MaskGIL-XXL at 512 pixels, weak to strong: goes on from the model of configs/xxl.py at 256.

    python -m maskgil_jax.main --config=configs/xxl_512.py --workdir=RUNS/xxl_512 \\
        --config.start_from.generator=RUNS/xxl/model \\
        --config.tokenizer=TOKENIZER_DIR --config.data.source=folder:PATH

The rotary positions are those of the grid of 32 x 32 tokens. Code shards have to be of 512 pixels
(`maskgil_jax.tokenize --image_size=512`).
"""

from maskgil_jax import config as defaults


def get_config():
    """The recipe of 256 pixels for 50 epochs more (the paper does not say how many)."""
    config = defaults.generator()
    config.model.update(layers=48, dim=1536, heads=24)
    config.model.remat = "full"
    config.mesh.update(data=-1, fsdp=-1)
    config.data.image_size = 512
    config.start_from.generator = "{workdir}/../xxl/model"
    config.steps = 50 * 1_281_167 // 256
    return config
