"""The official tokenizers in plain PyTorch, NCHW, with the official names of all tensors.

A file that `maskgil_jax.convert export` writes loads strictly into what `build` gives. Speed is
measured against these networks (tests/benchmarks), so they compute what the official code computes
in eager mode, operation by operation: swish is two of them, attention two `bmm` and a softmax.

Sources: FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py;
CompVis/taming-transformers, taming/modules/diffusionmodules/model.py;
TencentARC/SEED-Voken, src/Open_MAGVIT2/modules/diffusionmodules/improved_model.py.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from maskgil_jax.models.tokenizers.vq import VQConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """Names and switches of an official code base.

    Attributes:
      down, up: the levels of encoder and decoder.
      res: the residual blocks of a level.
      lowest_first: decoder level 0 is the lowest resolution, else the highest.
      mid: what stands between levels and quantiser.
      mid_names: of its residual block, attention, residual block; none: residual blocks alone, as
        many as a level has.
      magvit2: no bias in residual blocks, symmetric padding, depth-to-space, adaptive norms.
      ring: the quantiser keeps a buffer of this many codes.
    """

    down: str = "down"
    up: str = "up"
    res: str = "block"
    lowest_first: bool = False
    mid: str = "mid"
    mid_names: tuple[str, ...] = ("block_1", "attn_1", "block_2")
    magvit2: bool = False
    ring: int = 0


FAMILIES = {
    "llamagen-vq": Family(
        "conv_blocks", "conv_blocks", "res", True, mid_names=("0", "1", "2"), ring=65536
    ),
    "taming-vqgan": Family(),
    "chameleon-vq": Family(),
    "open-magvit2": Family(mid="mid_block", mid_names=(), magvit2=True),
}


def build(format_name: str, config: VQConfig) -> "Tokenizer":
    """The official module in eval mode; its weights are still to be loaded."""
    return Tokenizer(FAMILIES[format_name], config).eval()


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6, affine=affine)


def conv(cin: int, cout: int, kernel: int, **options) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, **options)


class ResBlock(nn.Module):
    def __init__(self, cin: int, cout: int, bias: bool):
        super().__init__()
        self.norm1, self.conv1 = norm(cin), conv(cin, cout, 3, bias=bias)
        self.norm2, self.conv2 = norm(cout), conv(cout, cout, 3, bias=bias)
        self.nin_shortcut = nn.Identity() if cin == cout else conv(cin, cout, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(swish(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(swish(self.norm2(y)))


class Attention(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        q, k, v = (layer(y).flatten(2) for layer in (self.q, self.k, self.v))
        weights = torch.bmm(q.transpose(1, 2), k) * x.shape[1] ** -0.5
        y = torch.bmm(v, weights.softmax(dim=2).transpose(1, 2))
        return x + self.proj_out(y.reshape(x.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DepthToSpace(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, 4 * channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, C, H, W = x.shape
        y = self.conv1(x).reshape(B, 2, 2, C, H, W)
        return y.permute(0, 3, 4, 1, 5, 2).reshape(B, C, 2 * H, 2 * W)


class AdaptiveNorm(nn.Module):
    def __init__(self, z_channels: int, channels: int):
        super().__init__()
        self.norm = norm(channels, affine=False)
        self.gamma, self.beta = (nn.Linear(z_channels, channels) for _ in range(2))

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        z = z.flatten(2)
        scale, shift = self.gamma((z.var(dim=2) + 1e-6).sqrt()), self.beta(z.mean(dim=2))
        return scale[..., None, None] * self.norm(x) + shift[..., None, None]


class Level(nn.Module):
    """Residual blocks, each followed by attention where asked, then one resize or none."""

    def __init__(self, family: Family, widths: Sequence[int], attention: bool, **resize: nn.Module):
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self._res, self._resize = family.res, tuple(resize)
        self.add_module(
            family.res, nn.ModuleList(ResBlock(*pair, not family.magvit2) for pair in pairs)
        )
        self.attn = nn.ModuleList(Attention(widths[-1]) for _ in widths[1:] if attention)
        for name, module in resize.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for j, block in enumerate(getattr(self, self._res)):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        for name in self._resize:
            x = getattr(self, name)(x)
        return x


def middle(family: Family, channels: int, blocks: int) -> nn.Sequential:
    if not family.mid_names:
        return nn.Sequential(*(ResBlock(channels, channels, False) for _ in range(blocks)))
    first, second = (ResBlock(channels, channels, True) for _ in range(2))
    members = zip(family.mid_names, (first, Attention(channels), second), strict=True)
    return nn.Sequential(OrderedDict(members))


class Encoder(nn.Module):
    def __init__(self, family: Family, config: VQConfig, z_channels: int):
        super().__init__()
        self.family, plain = family, not family.magvit2
        widths = [config.channels * m for m in (1, *config.channel_multipliers)]
        last = len(widths) - 2
        self.conv_in = conv(3, widths[0], 3, bias=plain)
        levels = nn.ModuleList()
        for i in range(last + 1):
            cin, cout = widths[i : i + 2]
            down = Downsample(cout) if plain else conv(cout, cout, 3, stride=2)
            resize = {"downsample": down} if i < last else {}
            inner = [cin] + [cout] * config.res_blocks
            levels.append(Level(family, inner, config.attention and i == last, **resize))
        self.add_module(family.down, levels)
        self.add_module(family.mid, middle(family, widths[-1], config.res_blocks))
        self.norm_out = norm(widths[-1])
        self.conv_out = conv(widths[-1], z_channels, 3 if plain else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for level in getattr(self, self.family.down):
            x = level(x)
        x = getattr(self, self.family.mid)(x)
        return self.conv_out(swish(self.norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, family: Family, config: VQConfig, z_channels: int):
        super().__init__()
        self.family, plain = family, not family.magvit2
        blocks, up = config.res_blocks + plain, Upsample if plain else DepthToSpace
        widths = [config.channels * m for m in reversed(config.channel_multipliers)]
        widths, last = widths[:1] + widths, len(widths) - 1
        self.conv_in = conv(z_channels, widths[0], 3)
        self.add_module(family.mid, middle(family, widths[0], config.res_blocks))
        levels, norms = [], []
        for i in range(last + 1):
            cin, cout = widths[i : i + 2]
            resize = {"upsample": up(cout)} if i < last else {}
            inner = [cin] + [cout] * blocks
            levels.append(Level(family, inner, config.attention and i == 0, **resize))
            norms += [] if plain else [AdaptiveNorm(z_channels, cin)]
        order = 1 if family.lowest_first else -1
        self.add_module(family.up, nn.ModuleList(levels[::order]))
        self.adaptive = nn.ModuleList(norms[::order])
        self.norm_out, self.conv_out = norm(widths[-1]), conv(widths[-1], 3, 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = getattr(self, self.family.mid)(self.conv_in(z))
        order = 1 if self.family.lowest_first else -1
        for i, level in list(enumerate(getattr(self, self.family.up)))[::order]:
            x = level(self.adaptive[i](x, z) if self.adaptive else x)
        return self.conv_out(swish(self.norm_out(x)))


class Tokenizer(nn.Module):
    """Encoder, quantiser, decoder; images [B, 3, H, W] in [-1, 1], codes [B, h, w]."""

    def __init__(self, family: Family, config: VQConfig):
        super().__init__()
        self.config, self.bits = config, config.codebook_dim
        z = config.z_channels or config.codebook_dim
        self.encoder, self.decoder = Encoder(family, config, z), Decoder(family, config, z)
        self.quant_conv = self.post_quant_conv = nn.Identity()
        if config.z_channels:
            self.quant_conv = conv(z, config.codebook_dim, 1)
            self.post_quant_conv = conv(config.codebook_dim, z, 1)
        self.quantize = nn.Module()
        if config.quantizer != "lookup_free":
            self.quantize.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        if family.ring:
            self.quantize.register_buffer("codebook_used", torch.zeros(family.ring))

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """What the quantiser sees, [B, C, h, w]."""
        return self.quant_conv(self.encoder(x))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        z = self.latents(x).permute(0, 2, 3, 1)
        if self.config.quantizer == "lookup_free":
            return ((z > 0) * 2 ** torch.arange(self.bits)).sum(dim=-1)
        rows, shape = self._rows(), z.shape[:-1]
        z = self._comparable(z.reshape(-1, self.bits))
        distances = (z**2).sum(1, keepdim=True) + (rows**2).sum(1) - 2 * z @ rows.T
        return distances.argmin(dim=1).reshape(shape)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        if self.config.quantizer == "lookup_free":
            vectors = (codes[..., None] >> torch.arange(self.bits) & 1) * 2.0 - 1.0
        else:
            vectors = F.embedding(codes, self._rows())
        return self.decoder(self.post_quant_conv(vectors.permute(0, 3, 1, 2)))

    def _comparable(self, x: torch.Tensor) -> torch.Tensor:
        return F.normalize(x, dim=-1) if self.config.quantizer == "cosine" else x

    def _rows(self) -> torch.Tensor:
        return self._comparable(self.quantize.embedding.weight)
