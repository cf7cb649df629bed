"""The decoders of the image tokenizers: codes to pixels.

The families share one skeleton (GroupNorm of 32 groups, swish, 3x3 convolutions, levels of residual
blocks between two resolutions); `style` says what they do differently: "vqgan" (LlamaGen VQ-16 and
VQ-8, taming, Chameleon), "magvit2" (Open-MAGVIT2) or "maskgit" (Google's MaskGIT tokenizer).

Letters: B batch, h w grid, C channels, H W pixels.
"""

import struct
import zlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Decoder(nn.Module):
    """Pixels of codes.

    Args:
      config: arguments of maskgil_jax.models.tokenizers.vq.VQConfig; see there.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        style, blocks = config["style"], config["res_blocks"]
        dim, z = config["codebook_dim"], config["z_channels"] or config["codebook_dim"]
        if config["quantizer"] != "lookup_free":
            self.codebook = nn.Parameter(torch.zeros(config["codebook_size"], dim))
        if config["z_channels"]:
            self.post_quant_conv = nn.Conv2d(dim, z, 1)
        outputs = [config["channels"] * m for m in reversed(config["channel_multipliers"])]
        widths = outputs[:1] + outputs
        lowest = widths[0]
        self.conv_in = nn.Conv2d(z, lowest, 3, padding=1)
        if style == "vqgan":
            self.middle = nn.Sequential(
                ResBlock(lowest, lowest, style), Attention(lowest), ResBlock(lowest, lowest, style)
            )
        else:
            self.middle = nn.Sequential(*(ResBlock(lowest, lowest, style) for _ in range(blocks)))
        adaptive = widths[:-1] if style == "magvit2" else []
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(z, width) for width in adaptive)
        last = len(outputs) - 1
        self.levels = nn.ModuleList(
            Level(
                *(widths[i], widths[i + 1], blocks + (style == "vqgan"), style),
                attention=config["attention"] and i == 0,
                upsample=i < last,
            )
            for i in range(last + 1)
        )
        self.norm_out = group_norm(outputs[-1])
        self.conv_out = nn.Conv2d(outputs[-1], 3, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        """Integers [B, h, w] to pixels [B, 3, H, W], nominally in [-1, 1], not clipped."""
        z = self.vectors(codes)
        if self.config["z_channels"]:
            z = self.post_quant_conv(z)
        x = self.middle(self.conv_in(z))
        for i, level in enumerate(self.levels):
            if self.adaptive:
                x = self.adaptive[i](x, z)
            x = level(x)
        y = self.conv_out(F.silu(self.norm_out(x)))
        return 2 * y - 1 if self.config["style"] == "maskgit" else y  # which has them in [0, 1]

    def vectors(self, codes: Tensor) -> Tensor:
        """The codebook's rows, [B, C, h, w]; a lookup-free one's are the bits as signs."""
        if self.config["quantizer"] == "lookup_free":
            bits = torch.arange(self.config["codebook_dim"], device=codes.device)
            return ((codes[:, None] >> bits[:, None, None]) & 1) * 2.0 - 1.0
        table: Tensor = self.codebook
        if self.config["quantizer"] == "cosine":
            table = F.normalize(table, dim=-1)
        return table[codes].permute(0, 3, 1, 2)

    @torch.inference_mode()
    def images(self, codes: Tensor) -> Tensor:
        """Integers [B, h, w] to images, uint8 [B, H, W, 3]."""
        pixels = self(codes.to(self.conv_out.weight.device)).permute(0, 2, 3, 1)
        return (127.5 * pixels + 128).clamp(0, 255).to(torch.uint8)


class Level(nn.Module):
    """Residual blocks of one resolution, each with attention behind it where asked, then twice it.

    Args:
      cin, cout: channels.
      blocks: residual ones.
      style: of the family.
      attention: whether there is any.
      upsample: whether the resolution is doubled.
    """

    def __init__(
        self, cin: int, cout: int, blocks: int, style: str, *, attention: bool, upsample: bool
    ):
        super().__init__()
        widths = [cin] + [cout] * blocks
        self.res = nn.ModuleList(ResBlock(width, cout, style) for width in widths[:-1])
        self.attention = nn.ModuleList(Attention(cout) for _ in range(blocks if attention else 0))
        self.resize = Upsample(cout, style) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] to [B, cout, H', W']."""
        for i, block in enumerate(self.res):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return self.resize(x)


class ResBlock(nn.Module):
    """Two norm-swish-convolution layers added to the input."""

    def __init__(self, cin: int, cout: int, style: str):
        super().__init__()
        bias, self.of_branch = style == "vqgan", style == "maskgit"
        self.norm1, self.norm2 = group_norm(cin), group_norm(cout)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=bias)
        if cin != cout:
            self.shortcut = nn.Conv2d(cout if self.of_branch else cin, cout, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, cin, H, W] to [B, cout, H, W]."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        if hasattr(self, "shortcut"):  # Google's is of the branch: the block has no identity path
            x = self.shortcut(y if self.of_branch else x)
        return y + x


class Attention(nn.Module):
    """Single-head self-attention over all positions."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, H, W]."""
        y = self.norm(x)
        q, k, v = (
            layer(y).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Twice the side: nearest neighbour, then a convolution; or one to a quarter of each pixel."""

    def __init__(self, channels: int, style: str):
        super().__init__()
        self.to_space = style == "magvit2"
        self.conv = nn.Conv2d(channels, 4 * channels if self.to_space else channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, C, 2 H, 2 W]."""
        if not self.to_space:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        B, C, H, W = x.shape
        y = self.conv(x).view(B, 2, 2, C, H, W)  # the offset in the block leads, not the channel
        return y.permute(0, 3, 4, 1, 5, 2).reshape(B, C, 2 * H, 2 * W)


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm whose scale and bias come from the statistics of the quantised latents."""

    def __init__(self, z_channels: int, channels: int):
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.scale, self.shift = (nn.Linear(z_channels, channels) for _ in range(2))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """[B, C, H, W], [B, z_channels, h, w] to [B, C, H, W]."""
        z = z.flatten(2)
        deviation = torch.sqrt(z.var(dim=2, correction=min(1, z.shape[2] - 1)) + 1e-6)
        scale, shift = self.scale(deviation), self.shift(z.mean(dim=2))
        return scale[..., None, None] * self.norm(x) + shift[..., None, None]


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm as all families have it."""
    return nn.GroupNorm(32, channels, eps=1e-6, affine=affine)


def write_png(path: str, image: Tensor) -> None:
    """Write uint8 [H, W, 3] as PNG, by the standard library alone."""
    height, width, _ = image.shape
    rows = F.pad(image.cpu().flatten(1), (1, 0))  # each row begins with its filter, 0: none
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(rows.flatten().tolist()))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + name + content)
            file.write(struct.pack(">I", zlib.crc32(name + content)))
