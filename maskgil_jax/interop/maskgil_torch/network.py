"""MaskGIL's token model: logits of image codes.

Letters: B batch, L = h * w image tokens, c condition tokens, T tokens of the sequence, S of them
that are run, D width, H heads, K head dimension, V classes of the head (the sum of several, where
codes have digits).
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kept = tuple[Tensor, Tensor]  # keys and values of a layer, [B, H, T, K] each


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
        # Sizes of the parts of the logits: of each digit; one is of all codes, and maybe the mask.
        self.vocabularies = config["factors"] or [V + config["mask_logit"]]
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    def forward(self, codes: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits in raster order.

        Args:
          codes: integers [B, h, w]; `codebook_size` where masked.
          condition: class ids [B] (`num_classes` for none), or features [B, c, C].
          mask: of features, bool [B, c], false at padding.

        Returns:
          [B, h * w, classes].
        """
        joint, *others = self.digits(codes, condition, mask).split(self.vocabularies, dim=-1)
        for digit in others:
            joint = (digit[..., :, None] + joint[..., None, :]).flatten(-2)
        return joint

    def digits(
        self, codes: Tensor, condition: Tensor, mask: Tensor | None = None, prefix: int = 0
    ) -> Tensor:
        """As `forward`, but the logits of all digits of a code side by side: [B, h * w, V].

        With a `prefix`, the first tokens in `order`, so many, are read as a causal prefix. Their
        own logits then mean nothing.
        """
        height, width = codes.shape[1:]
        tokens = codes.flatten(1)[:, self.order(height, width)]
        if self.config["causal"]:
            tokens = tokens[:, :-1]
        first = self.config["condition_position"] == "first"
        parts = self.embed_condition(condition), self.embed_codes(tokens)
        x = torch.cat(parts if first else parts[::-1], dim=1)
        T = x.shape[1]
        x = self.run(x, self.rotations(height, width)[:T], self.allowed(T, mask, prefix))
        c = self.config["condition_tokens"]
        if self.config["causal"]:
            x = x[:, c - 1 :]
        else:
            x = x[:, c:] if first else x[:, :-c]
        return self.classify(x[:, torch.argsort(self.order(height, width))])

    def run(
        self,
        x: Tensor,
        table: Tensor,
        allowed: Tensor | None,
        cache: list[Kept | None] | None = None,
    ) -> Tensor:
        """All layers over S tokens, [B, S, D].

        Args:
          x: embedded tokens.
          table: their rows of `rotations`.
          allowed: their rows of `allowed`.
          cache: keys and values of the tokens before, for each layer (None at the start); those of
            these tokens are added to it.
        """
        table = table.to(x.device)
        for i, layer in enumerate(self.layers):
            x, kept = layer(x, table, allowed, cache[i] if cache else None)
            if cache:
                cache[i] = kept
        return x

    def classify(self, x: Tensor) -> Tensor:
        """The head: [B, S, D] to logits of all digits side by side, [B, S, V]."""
        return self.output(self.norm(x))

    def as_causal(self) -> "MaskGIL":
        """The same weights, token by token; of a model with a causal prefix."""
        model = copy.copy(self)
        model.config = self.config | {"causal": True}
        return model

    def embed_condition(self, condition: Tensor) -> Tensor:
        """The condition's tokens, [B, c, D]."""
        config = self.config
        if config["feature_dim"]:
            if config["feature_norm"]:
                condition = F.rms_norm(condition, condition.shape[-1:], eps=1e-5)
            condition = condition.to(self.feature_in.weight.dtype)
            return self.feature_out(F.gelu(self.feature_in(condition), approximate="tanh"))
        if config["joint_embedding"]:
            return self.tok_emb(config["codebook_size"] + self.masks + condition)[:, None]
        return self.cls_embedding(condition)[:, None]

    def null_condition(self, condition: Tensor) -> Tensor:
        """What stands for no condition, in the shape of this one."""
        if self.config["feature_dim"]:
            return self.null_features.to(condition.dtype).expand_as(condition)
        return torch.full_like(condition, self.config["num_classes"])

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

    def allowed(self, T: int, mask: Tensor | None, prefix: int = 0) -> Tensor | None:
        """Bool [B or 1, 1, T, T], true where a query (rows) may see a key; None: everywhere."""
        config, device = self.config, self.device
        allowed = None
        if config["causal"] or prefix:
            allowed = torch.ones(T, T, dtype=torch.bool, device=device).tril()[None, None]
            if not config["causal"]:  # tokens behind the prefix see everything
                allowed[..., config["condition_tokens"] + prefix :, :] = True
        if mask is not None:
            images = mask.new_ones(len(mask), T - mask.shape[1])
            last = config["condition_position"] == "last"
            visible = torch.cat([images, mask] if last else [mask, images], dim=1)[:, None, None]
            itself = torch.eye(T, dtype=torch.bool, device=device)
            allowed = (visible if allowed is None else visible & allowed) | itself
        return allowed

    def order(self, height: int, width: int) -> Tensor:
        """Raster positions in the order of a causal model's tokens."""
        raster = self.config["order"] == "raster"
        return torch.arange(height * width) if raster else halton(height, width)

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

    def forward(
        self, x: Tensor, table: Tensor, allowed: Tensor | None, past: Kept | None
    ) -> tuple[Tensor, Kept]:
        """[B, S, D] to [B, S, D], and the keys and values of all tokens so far."""
        before, after = self.post_norm != "output", self.post_norm != "none"
        y, kept = self.attention(self.attention_norm(x) if before else x, table, allowed, past)
        x = x + (self.attention_post_norm(y) if after else y)
        y = self.feed_forward(self.ffn_norm(x) if before else x)
        return x + (self.ffn_post_norm(y) if after else y), kept


class Attention(nn.Module):
    """Attention with rotated queries and keys."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        D, self.heads = config["dim"], config["heads"]
        K = D // self.heads
        self.wqkv = nn.Linear(D, 3 * D, bias=False)
        self.wo = nn.Linear(D, D, bias=False)
        self.q_norm, self.k_norm = (qk_norm(config["qk_norm"], K) for _ in range(2))

    def forward(
        self, x: Tensor, table: Tensor, allowed: Tensor | None, past: Kept | None
    ) -> tuple[Tensor, Kept]:
        """[B, S, D] to [B, S, D], and the keys and values of all tokens so far."""
        B, S, D = x.shape
        q, k, v = self.wqkv(x).view(B, S, 3, self.heads, -1).unbind(2)
        q, k = rotate(self.q_norm(q), table), rotate(self.k_norm(k), table)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if past:
            k, v = (torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.wo(y.transpose(1, 2).reshape(B, S, D)), (k, v)


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


def halton(height: int, width: int) -> Tensor:
    """Raster positions as the Halton sequence first meets them; what it never meets comes last."""
    cells = [
        int(_mirrored(i, 2) * height) * width + int(_mirrored(i, 3) * width)
        for i in range(1, 10_001)
    ]
    return torch.tensor(list(dict.fromkeys(cells + list(range(height * width)))))


def _mirrored(index: int, base: int) -> float:
    """Digits of the index mirrored at the point (van der Corput)."""
    mirrored, scale = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        scale /= base
        mirrored += digit * scale
    return mirrored
