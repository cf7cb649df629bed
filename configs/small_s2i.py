"""A small generator from speech: spoken digits to handwritten ones, minutes on two CPU cores.

    python -m maskgil_jax.main --config=configs/small_s2i.py --workdir=RUNS/s2i \\
        --config.data.source=arrayrecord:/tmp/quickstart/codes \\
        --config.encoder=WHISPER --config.data.speech=SPOKEN

trains on the codes of configs/quickstart.py. SPOKEN holds a folder of recordings for each of 0 to
9; WHISPER is the directory of Whisper tiny. (At scale: configs/s2i_xl.py.)
"""

from maskgil_jax import config as defaults


def get_config():
    """The quickstart's generator, which hears the first second of a recording as 25 tokens."""
    config = defaults.generator()
    config.steps, config.batch_size = 600, 64
    config.data.image_size = 16
    config.log_every, config.checkpoint_every, config.pictures_every = 20, 100, 200
    config.ema_decay = 0.99
    config.model.update(
        layers=4,
        dim=128,
        heads=4,
        num_classes=0,
        feature_dim=2 * 384,  # two frames of Whisper tiny
        condition_tokens=25,
        dtype="float32",
    )
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, schedule="cosine")
    config.samples.guidance = 2.0
    return config
