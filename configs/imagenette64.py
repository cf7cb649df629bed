"""Imagenette at 64 pixels by class: configs/cifar10.py on ten classes of ImageNet.

    python -m maskgil_jax.main --config=configs/imagenette64.py --workdir=RUNS/imagenette
    python -m maskgil_jax.main --config=configs/imagenette64.py:cpu --workdir=RUNS/imagenette \\
        --config.stages.tokenizer.data.source=folder:IMAGENETTE/train \\
        --config.stages.codes.source=folder:IMAGENETTE/train
    python -m maskgil_jax.sweep --model=RUNS/imagenette/model --vary=guidance=1,3,6 --num=1500 \\
        --batch_size=100 --metrics=frechet,pr,accuracy --reference=folder:IMAGENETTE/val \\
        --features=tests.helpers.efficientnet:efficientnet_lite0 --output=RUNS/guidance

The first is meant for ten minutes of a GPU, and has not been run to its end. The second took 126
minutes of two cores whose float32 products peak at 330 GFLOP a second, and which had other work too
in its first half. The third gives the figures in configs/README.md.
"""

from maskgil_jax.study_config import named


def get_config(machine="gpu"):
    """16 x 16 tokens of 1,024 codes; :cpu has 8 x 8 of them, each of 8 pixels a side."""
    config = named(f"cifar10:{machine}")
    tokenizer, codes, generator = (config.stages[s] for s in ("tokenizer", "codes", "generator"))
    tokenizer.data.source = codes.source = "tfds:imagenette/160px-v2/train"
    tokenizer.data.image_size = codes.image_size = generator.data.image_size = 64
    codes.crops = "ten"  # 9,469 images are few
    if machine == "cpu":
        tokenizer.model.channel_multipliers = (1, 1, 2, 4)
        tokenizer.steps = generator.steps = 6000  # of four times the pixels, a fifth of the images
    return config.lock()
