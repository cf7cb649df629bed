"""FID's Inception in plain PyTorch, NCHW, as torch-fidelity runs it: operation by operation.

Speed is measured against it (tests/benchmarks), and features are compared with it. The official
state dict loads strictly.

Source: torch-fidelity 0.4.0, feature_extractor_inceptionv3.py, interpolate_compat_tensorflow.py.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from maskgil_jax.models.perceptual import inception


class BasicConv2d(nn.Module):
    def __init__(self, cin: int, conv: inception.Conv):
        super().__init__()
        padding = tuple(side // 2 for side in conv.kernel) if conv.pad else 0
        self.conv = nn.Conv2d(cin, conv.channels, conv.kernel, conv.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(conv.channels, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in inception.BLOCKS:
            self.add_module(name, nn.Module())
        for path, cin, conv in inception.layers():
            block, _, name = path.rpartition(".")
            self.get_submodule(block).add_module(name, BasicConv2d(cin, conv))
        self.fc = nn.Linear(2048, inception.CLASSES)
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pool, spatial and logits of uint8 [B, 3, H, W]; spatial as ours, channels last."""
        x = self.branch("", inception.STEM, (resize(images.float()) - 128) / 128)
        for name, branches in inception.BLOCKS.items():
            x = torch.cat([self.branch(f"{name}.", branch, x) for branch in branches], 1)
            if name == "Mixed_6d":
                spatial = x[:, : inception.SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        pool = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return pool, spatial, pool.mm(self.fc.weight.T)

    def branch(self, block: str, branch: inception.Branch, x: torch.Tensor) -> torch.Tensor:
        for layer in branch:
            if isinstance(layer, inception.Conv):
                x = self.get_submodule(block + layer.name)(x)
            elif isinstance(layer, str):
                x = POOLS[layer](x)
            else:
                x = torch.cat([self.branch(block, (conv,), x) for conv in layer], 1)
        return x


def resize(x: torch.Tensor) -> torch.Tensor:
    """float32 [B, 3, H, W] to 299 x 299, by the official code's four gathers."""
    (top, bottom, dy), (left, right, dx) = (grid(side) for side in x.shape[2:])
    upper = x[:, :, top][..., left]
    upper = upper + (x[:, :, top][..., right] - upper) * dx
    lower = x[:, :, bottom][..., left]
    lower = lower + (x[:, :, bottom][..., right] - lower) * dx
    return upper + (lower - upper) * dy[:, None]


def grid(side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    position = torch.arange(299, dtype=torch.float32) * torch.tensor(side / 299)
    low = position.long()
    return low, (low + 1).clamp_max(side - 1), position - low.float()


POOLS = {
    inception.AVERAGE: lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    inception.MAX: lambda x: F.max_pool2d(x, 3, 1, 1),
    inception.SHRINK: lambda x: F.max_pool2d(x, 3, 2),
}


def features(
    network: Inception, images: np.ndarray, layout: torch.memory_format = torch.contiguous_format
) -> list[np.ndarray]:
    """Of uint8 [B, H, W, 3], as the official code calls the network."""
    with torch.inference_mode():
        nchw = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        return [x.numpy() for x in network(nchw)]
