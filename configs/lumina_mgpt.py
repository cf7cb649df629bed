"""Lumina-mGPT, tuned on captions: a 7B or 34B model of text and image tokens in one sequence.

    python -m maskgil_jax.convert import --format=lumina-mgpt --source=SNAPSHOT --output=lumina \\
        --arg=tokenizer=chameleon
    python -m maskgil_jax.main --config=configs/lumina_mgpt.py --workdir=RUNS/lumina \\
        --config.start_from.generator=lumina --config.tokenizer=chameleon \\
        --config.data.source=tar:PATTERN

goes on from a released model; without start_from.generator a network is trained from random weights
and --config.vocabulary=TOKENIZER_JSON reads the captions. :34B is the larger size;
--config.data.image_size=768 and 1024 are the later stages of the recipe.
"""

from maskgil_jax import config as defaults


def get_config(size="7B"):
    """The recipe of the fine-tuning: 2 epochs of 10 million images, 512 pixels first."""
    return defaults.lumina_generator(size)
