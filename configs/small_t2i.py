"""A small generator from text, on few captioned images: minutes on two CPU cores.

    python -m maskgil_jax.main --config=configs/small_generators.py:tokenizer --workdir=RUNS/vq \\
        --config.data.source=folder:PAIRS/train
    python -m maskgil_jax.tokenize --tokenizer=RUNS/vq/model --encoder=GEMMA --features \\
        --data=folder:PAIRS/train --image_size=32 --crops=flip --output=RUNS/train
    python -m maskgil_jax.main --config=configs/small_t2i.py --workdir=RUNS/t2i \\
        --config.encoder=GEMMA --config.data.source=arrayrecord:RUNS/train

PAIRS/train holds NAME.txt, a caption a line, beside NAME.jpg (or .png, .webp); GEMMA is the
directory of Gemma 3 270M. (At scale: configs/t2i_xl.py.) :causal is the same network token by
token, by LlamaGen's recipe: the prefix of a hybrid.
"""

from maskgil_jax import config as defaults
from maskgil_jax.runtime.errors import InputError


def get_config(kind="masked"):
    """4 layers of 128, on 24 tokens of a caption; masked or causal."""
    if kind not in ("masked", "causal"):
        raise InputError(f"{kind!r} after the colon, expected masked or causal")
    config = defaults.causal_generator() if kind == "causal" else defaults.generator()
    config.model.update(
        layers=4,
        dim=128,
        heads=4,
        num_classes=0,
        feature_dim=640,
        condition_tokens=24,
        dtype="float32",
    )
    config.steps, config.batch_size = 1200, 32
    config.data.image_size = 32
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_steps=100)
    config.ema_decay = 0.998
    config.checkpoint_every = config.pictures_every = 400
    config.log_every = 50
    return config
