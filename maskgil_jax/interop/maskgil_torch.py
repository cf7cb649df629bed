"""MaskGIL's token model in PyTorch, in one file that needs nothing else of this package.

    python -m maskgil_jax.convert export --format=maskgil --source=DIR --output=model.safetensors

    from maskgil_torch import load  # a copy of this file
    model = load("model.safetensors")
    logits = model(codes, condition)  # as maskgil_jax.load(DIR).logits(codes, condition)

Letters: B batch, L = h * w image tokens, c condition tokens, T tokens of the sequence, D width, H
heads, K head dimension, V classes of the head.
"""

import json
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def load(path: str) -> "MaskGIL":
    """The model of a .safetensors or .pt file of `maskgil_jax.convert export --format=maskgil`."""
    if path.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    else:
        content = torch.load(path, weights_only=True)
        config, state = json.loads(content["config"]), content["model"]
    model = MaskGIL(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


class MaskGIL(nn.Module):
    """Logits of image tokens: of masked ones, or, for a causal model, of the next ones.

    Args:
      config: arguments of maskgil_jax.models.token_models.llama.LlamaConfig; see there. One with a
        causal prefix gives the logits of masked tokens; with `"causal": True`, those of the next.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        # Files of older versions do not name these.
        older: dict[str, Any] = {"factors": [], "feature_norm": False, "causal_prefix": False}
        self.config = config = older | config
        D, self.sizes = config["dim"], config["factors"] or [config["codebook_size"]]
        V = sum(self.sizes)
        self.masks = not config["causal"] or config["causal_prefix"]  # has a row for the mask
        rows, classes = V + self.masks, config["num_classes"] + 1
        if config["joint_embedding"]:
            self.tok_emb = nn.Embedding(rows + classes, D)
        else:
            self.tok_embeddings = nn.Embedding(rows, D)
        if config["feature_dim"]:
            C = config["feature_dim"]
            self.feature_in = nn.Linear(C, D, bias=False)
            self.feature_out = nn.Linear(D, D, bias=False)
            self.null_features = nn.Parameter(torch.zeros(config["condition_tokens"], C))
        elif not config["joint_embedding"]:
            self.cls_embedding = nn.Embedding(classes, D)
        self.layers = nn.ModuleList(Block(config) for _ in range(config["layers"]))
        self.norm = RMSNorm(D)
        self.output = nn.Linear(D, V + config["mask_logit"], bias=False)

    def forward(self, codes: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits in raster order.

        Args:
          codes: integers [B, h, w]; `codebook_size` where masked.
          condition: class ids [B] (`num_classes` for none), or features [B, c, C].
          mask: of features, bool [B, c], false at padding.

        Returns:
          [B, h * w, V].
        """
        x, table = self.embed(codes, condition), self.rotations(*codes.shape[1:])
        allowed, table = self.allowed(x.shape[1], mask), table[: x.shape[1]].to(x)
        for layer in self.layers:
            x = layer(x, table, allowed)
        c = self.config["condition_tokens"]
        if self.config["causal"]:
            x = x[:, c - 1 :]
        else:
            x = x[:, c:] if self.config["condition_position"] == "first" else x[:, :-c]
        x = x[:, torch.argsort(self.order(*codes.shape[1:]))]
        logits = self.output(self.norm(x))
        if not self.config["factors"]:
            return logits
        joint, *others = logits.split(self.sizes, dim=-1)
        for digit in others:
            joint = (digit[..., :, None] + joint[..., None, :]).flatten(-2)
        return joint

    def embed(self, codes: Tensor, condition: Tensor) -> Tensor:
        """The sequence, [B, T, D]; without the last token for a causal model."""
        config, tokens = self.config, codes.flatten(1)[:, self.order(*codes.shape[1:])]
        if config["causal"]:
            tokens = tokens[:, :-1]
        x = self.embed_codes(tokens)
        if config["feature_dim"]:
            if config["feature_norm"]:
                condition = F.rms_norm(condition, condition.shape[-1:], eps=1e-5)
            c = self.feature_out(F.gelu(self.feature_in(condition), approximate="tanh"))
        elif config["joint_embedding"]:
            c = self.tok_emb(config["codebook_size"] + self.masks + condition)[:, None]
        else:
            c = self.cls_embedding(condition)[:, None]
        return torch.cat([c, x] if config["condition_position"] == "first" else [x, c], dim=1)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Rows of the table, the sum of one for each digit of a code: [B, L, D]."""
        table = self.tok_emb if self.config["joint_embedding"] else self.tok_embeddings
        if not self.config["factors"]:
            return table(codes)
        x, rest, start = torch.zeros(()), codes, 0
        for size in self.sizes:
            x, rest, start = x + table(start + rest % size), rest // size, start + size
        if self.config["causal"]:
            return x
        masked = (codes == self.config["codebook_size"])[..., None]
        return torch.where(masked, table.weight[-1], x)

    def allowed(self, T: int, mask: Tensor | None) -> Tensor | None:
        """Bool [B or 1, 1, T, T], true where a query (rows) may see a key; None: everywhere."""
        config, device = self.config, self.output.weight.device
        allowed = None
        if config["causal"]:
            allowed = torch.ones(T, T, dtype=torch.bool, device=device).tril()[None, None]
        if mask is not None:
            images = mask.new_ones(len(mask), T - mask.shape[1])
            last = config["condition_position"] == "last"
            visible = torch.cat([images, mask] if last else [mask, images], dim=1)[:, None, None]
            itself = torch.eye(T, dtype=torch.bool, device=device)
            allowed = (visible if allowed is None else visible & allowed) | itself
        return allowed

    def order(self, height: int, width: int) -> Tensor:
        """Raster positions in the order of a causal model's tokens."""
        if self.config["order"] == "raster":
            return torch.arange(height * width)
        cells = [
            int(_mirrored(i, 2) * height) * width + int(_mirrored(i, 3) * width)
            for i in range(1, 10_001)
        ]
        return torch.tensor(list(dict.fromkeys(cells + list(range(height * width)))))

    def rotations(self, height: int, width: int) -> Tensor:
        """Cosines and sines of the sequence, [c + L, K / 2, 2]."""
        config = self.config
        K = config["dim"] // config["heads"]
        if config["rope"] == "1d":
            angles = torch.outer(torch.arange(height * width).float(), _frequencies(K))
        else:
            places = self.order(height, width)
            coordinates = (places // width, places % width)
            rows, columns = config.get("rope_grid") or (height, width)  # interpolated, or not
            step = min(1.0, (rows * columns / (height * width)) ** 0.5)
            angles = torch.cat(
                [torch.outer(axis.float() * step, _frequencies(K // 2)) for axis in coordinates],
                dim=1,
            )
        image = torch.stack([angles.cos(), angles.sin()], dim=-1)
        c = config["condition_tokens"]
        condition = torch.zeros(c, K // 2, 2)
        if config["condition_rope"] == "identity":
            condition[..., 0] = 1
        # The released 1D table has the condition's row first even if its token stands last.
        first = config["rope"] == "1d" or config["condition_position"] == "first"
        return torch.cat([condition, image] if first else [image, condition])


class Block(nn.Module):
    """Attention, then SwiGLU, each added to its input."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        D, multiple = config["dim"], config["ffn_multiple"]
        width = -(-int(8 * D / 3) // multiple) * multiple
        self.post_norm = config["post_norm"]
        self.attention = Attention(config)
        self.feed_forward = FeedForward(D, width)
        if self.post_norm != "output":
            self.attention_norm, self.ffn_norm = RMSNorm(D), RMSNorm(D)
        if self.post_norm != "none":
            self.attention_post_norm, self.ffn_post_norm = RMSNorm(D), RMSNorm(D)

    def forward(self, x: Tensor, table: Tensor, allowed: Tensor | None) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        before, after = self.post_norm != "output", self.post_norm != "none"
        y = self.attention(self.attention_norm(x) if before else x, table, allowed)
        x = x + (self.attention_post_norm(y) if after else y)
        y = self.feed_forward(self.ffn_norm(x) if before else x)
        return x + (self.ffn_post_norm(y) if after else y)


class Attention(nn.Module):
    """Attention with rotated queries and keys."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        D, self.heads = config["dim"], config["heads"]
        K = D // self.heads
        self.wqkv = nn.Linear(D, 3 * D, bias=False)
        self.wo = nn.Linear(D, D, bias=False)
        self.q_norm, self.k_norm = (qk_norm(config["qk_norm"], K) for _ in range(2))

    def forward(self, x: Tensor, table: Tensor, allowed: Tensor | None) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        B, T, D = x.shape
        q, k, v = self.wqkv(x).view(B, T, 3, self.heads, -1).unbind(2)
        q, k = rotate(self.q_norm(q), table), rotate(self.k_norm(k), table)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.wo(y.transpose(1, 2).reshape(B, T, D))


def qk_norm(kind: str, width: int) -> nn.Module:
    """The norm of queries or keys."""
    if kind == "none":
        return nn.Identity()
    return RMSNorm(width) if kind == "rms" else nn.LayerNorm(width)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.w1, self.w3 = (nn.Linear(dim, width, bias=False) for _ in range(2))
        self.w2 = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class RMSNorm(nn.Module):
    """x / rms(x), computed in float32 and cast before the scale."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)
        return y.type_as(x) * self.weight


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate pairs (2p, 2p + 1) of [B, T, H, K] by [T, K / 2, 2], in float32."""
    pairs = x.float().unflatten(-1, (-1, 2))
    cos, sin = table[:, None].float().unbind(-1)
    even, odd = pairs.unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return rotated.flatten(-2).type_as(x)


def _frequencies(dim: int) -> Tensor:
    return 10000.0 ** (-torch.arange(0, dim, 2).float() / dim)


def _mirrored(index: int, base: int) -> float:
    """Digits of the index mirrored at the point (van der Corput)."""
    mirrored, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        mirrored += digit * scale
    return mirrored
