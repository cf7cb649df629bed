"""MaskGIL-XL from text: 775M parameters, Chameleon-VQ, Gemma-2B, buckets at 256, 512 and 1024.

    python -m maskgil_jax.convert import --format=gemma --source=GEMMA_2B_SNAPSHOT --output=gemma
    python -m maskgil_jax.tokenize --tokenizer=chameleon --encoder=gemma --data=tar:PATTERN \\
        --buckets=lumina --image_size=256 --output=CODES
    python -m maskgil_jax.main --config=configs/t2i_xl.py --workdir=RUNS/t2i_xl \\
        --config.encoder=gemma --config.data.source=arrayrecord:CODES

and from there, on shards of --image_size=512, with --config=configs/t2i_xl.py:512 and
--workdir=RUNS/t2i_xl_512, and from there with :1024 on those of 1024. Several sets of shards, as of
short and long captions, are mixed by weight:
--config.data.mixture="(('arrayrecord:LONG', 0.7), ('arrayrecord:SHORT', 0.3))".
"""

from maskgil_jax import config as defaults


def get_config(size="256"):
    """256 tokens of a caption, as Lumina-Next, of the same authors, cuts them."""
    config = defaults.prompted_generator("t2i_xl", size)
    config.model.update(feature_dim=2048, condition_tokens=256)
    return config
