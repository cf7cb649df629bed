"""MaskGIL-XL from speech: as configs/t2i_xl.py, with features of Whisper's encoder.

    python -m maskgil_jax.convert import --format=whisper --source=WHISPER_SMALL_SNAPSHOT \\
        --output=whisper
    python -m maskgil_jax.main --config=configs/s2i_xl.py --workdir=RUNS/s2i_xl \\
        --config.encoder=whisper --config.data.source=arrayrecord:CODES \\
        --config.data.speech=RECORDINGS

RECORDINGS holds NAME.wav (or .flac, .mp3, .ogg) for the image NAME.jpg. --config.encoder=log_mel
--config.model.feature_dim=640 takes the frames themselves, without Whisper.
"""

from maskgil_jax import config as defaults


def get_config(size="256"):
    """10 seconds of speech: Whisper gives 50 frames a second, of which 4 are one token."""
    config = defaults.prompted_generator("s2i_xl", size)
    config.model.update(feature_dim=4 * 768, condition_tokens=128)
    return config
