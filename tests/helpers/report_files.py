"""Directories such as a report reads: results of commands, logs, pictures."""

import json

import numpy as np
from PIL import Image

PIXELS = "pixels, averaged to 8x8 RGB (no network: not comparable with FID)"
EVALUATION = {
    "samples": {"path": "/samples", "count": 500, "protocol": ""},
    "reference": {"path": "embedded", "count": 1437, "protocol": ""},
    "features": [PIXELS],
    "metrics": {"pixel_frechet_distance": 0.90571, "fid": {"value": 3.5, "low": 3.0, "high": 4.0}},
    "real_to_real": {"pixel_frechet_distance": 0.16489},
    "protocol": {"frechet": PIXELS, "real_to_real": "halves of the reference"},
    "seed": 7,
    "code": "0.1.0+abcdef0",
    "warnings": ["fid of 500 images: too few for 2,048 features"],
}
TABLES = {
    "tokenizers.json": {
        "protocol": {"images": "embedded, first 20", "rounding": "half_up"},
        "tokenizers": [{"tokenizer": "vq", "codes": 16384, "grid": "4x4", "psnr": 20.789}],
    },
    "generators.json": {
        "protocol": {"samples": "40 images, default decoding", "real_to_real": "halves"},
        "generators": [{"generator": "b", "kind": "masked", "pixel_recall": 0.12345}],
        "real_to_real": {"pixel_recall": 0.9011},
    },
    "sweep.json": {
        "protocol": {"samples": "30 images"},
        "rows": [{"rule": "halton", "guidance": 3.0, "seconds_per_image": 0.00123456}],
    },
    "any_name.json": {
        "notes": {"counted": "parameters and FLOPs"},
        "plans": [
            {
                "config": "configs/xxl.py",
                "topology": "v5p:4x4x4",
                "chips": 64,
                "mesh": {"data": 1, "fsdp": 64, "tensor": 1},
                "parameters": 1411133952,
                "fits": True,
                "mfu": 0.46123,
                "sampler": {"chips": 1, "parameters": 1411133952, "fits": False},
            }
        ],
    },
    "scaling.json": {
        "notes": {"intervals": "95%, by a parametric bootstrap"},
        "runs": [{"run": "1x16-400", "parameters": 30032, "validation_loss": 4.98297}],
        "fits": [
            {
                "loss_against": "parameters",
                "runs": 12,
                "exponent": {"value": 0.6895, "low": 0.0712, "high": 2.0884},
                "determined": False,
            }
        ],
        "plans": [],
    },
}


def with_files(directory, contents, pictures=()):
    directory.mkdir(parents=True)
    for name, content in contents.items():
        written = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(written)
    for name in pictures:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(directory / name)
    return directory


def lines(*steps, **values):
    return "".join(
        json.dumps({"step": step, "loss": 5.0 / step, **values}) + "\n" for step in steps
    )
