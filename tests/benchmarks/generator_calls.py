"""One call of each task of generators, by the official algorithms in PyTorch and by ours.

Each function gives a function without arguments that does the task once, and waits for its result.
PyTorch's run where the model's weights are; `wrap` is torch.compile, or nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LABELS = (207, 360, 387, 974)
STEPS, WEIGHT, CHOICE_TEMPERATURE = 8, 3.0, 4.5
TOP_K, GUIDANCE = 2000, 4.0


def as_it_is(function: Any) -> Any:
    """Eager PyTorch."""
    return function


def ready(model: Any, device: str) -> Any:
    """A PyTorch model on a device, with its tables there too instead of made in each call."""
    model = model.to(device)
    height, width = model.config["grid"]
    table, order = model.rotations(height, width).to(device), model.order(height, width).to(device)
    model.rotations, model.order = lambda *_: table, lambda *_: order
    return model


def torch_masked(
    model: Any, bf16: bool, labels: Sequence[int] = LABELS, wrap: Callable = as_it_is
) -> Callable:
    """MaskGIL's released sampler (Trainer/vit.py, `sample`): 8 steps, linear guidance."""
    import torch

    from maskgil_jax.decoding.schedules import maskgil_counts

    (height, width), device, hidden = model.config["grid"], model.device, codes_of(model)
    counts = maskgil_counts("arccos", STEPS, height * width).tolist()
    ids, forward = torch.tensor(labels, device=device), wrap(model)
    null = torch.full_like(ids, model.config["num_classes"])

    def sample() -> np.ndarray:
        code = torch.full((len(ids), height, width), hidden, device=device)
        mask = torch.ones(len(ids), height * width, dtype=torch.bool, device=device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, bf16):
            for step, count in enumerate(counts):
                fraction = step / (STEPS - 1)
                both = forward(torch.cat([code, code]), torch.cat([ids, null])).float()
                c, u = both.chunk(2)
                weight = WEIGHT * fraction
                prob = torch.softmax((1 + weight) * c - weight * u, -1)
                drawn = torch.distributions.Categorical(probs=prob).sample()
                conf = torch.gather(prob, 2, drawn[..., None])[..., 0]
                noise = torch.from_numpy(np.random.gumbel(size=conf.shape)).float().to(device)
                conf = torch.log(conf) + CHOICE_TEMPERATURE * noise * (1 - fraction)
                conf[~mask] = -math.inf
                chosen = torch.topk(conf, k=count, dim=-1).indices
                code.view(len(ids), -1).scatter_(1, chosen, drawn.gather(1, chosen))
                mask.scatter_(1, chosen, False)
        return code.cpu().numpy()

    return sample


def torch_cached(
    model: Any, bf16: bool, labels: Sequence[int] = LABELS, wrap: Callable = as_it_is
) -> Callable:
    """LlamaGen's sampler (generate.py) with its cache: guidance 4, the 2,000 likeliest codes."""
    import torch
    import torch.nn.functional as F

    from maskgil_jax.interop.maskgil_torch.network import rotate

    device, (height, width) = model.device, model.config["grid"]
    null = [model.config["num_classes"]] * len(labels)
    ids = torch.tensor([*labels, *null], device=device)
    table, tokens = model.rotations(height, width).to(device), height * width
    length = tokens + 8  # that the cache holds
    B, H, K = len(ids), model.config["heads"], model.config["dim"] // model.config["heads"]
    dtype = torch.bfloat16 if bf16 else torch.float32

    def run(x: Any, position: Any, cache: list) -> Any:
        allowed = torch.arange(length, device=device)[None] <= position
        for layer, (keys, values) in zip(model.layers, cache, strict=True):
            attention = layer.attention
            qkv = attention.wqkv(layer.attention_norm(x)).view(B, 1, 3, H, K)
            q, k, v = qkv.unbind(2)
            q, k = (rotate(part, table.index_select(0, position)) for part in (q, k))
            keys.index_copy_(2, position, k.transpose(1, 2).to(dtype))
            values.index_copy_(2, position, v.transpose(1, 2).to(dtype))
            o = F.scaled_dot_product_attention(
                q.transpose(1, 2).to(dtype), keys, values, attn_mask=allowed
            )
            x = x + attention.wo(o.transpose(1, 2).reshape(B, 1, H * K))
            x = x + layer.feed_forward(layer.ffn_norm(x))
        return model.output(model.norm(x)).float()

    step = wrap(run)

    def empty() -> Any:
        return torch.zeros(B, H, length, K, dtype=dtype, device=device)

    def sample() -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, bf16):
            cache = [(empty(), empty()) for _ in model.layers]
            x, found = model.cls_embedding(ids)[:, None], []
            for position in torch.arange(tokens, device=device).split(1):
                c, u = step(x, position, cache)[:, -1].chunk(2)
                logits = u + GUIDANCE * (c - u)
                least = torch.topk(logits, min(TOP_K, logits.shape[-1])).values[:, -1:]
                logits[logits < least] = -math.inf
                found.append(torch.multinomial(torch.softmax(logits, -1), 1))
                x = model.tok_embeddings(torch.cat([found[-1]] * 2))
        return torch.cat(found, 1).cpu().numpy()

    return sample


def torch_train(model: Any, bf16: bool, batch: int = 8, wrap: Callable = as_it_is) -> Callable:
    """The released trainer's step: all tokens, label smoothing, clipping, AdamW."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.96), weight_decay=1e-5)
    device, forward = model.device, wrap(model)
    given = train_batch(batch, model.config["grid"], codes_of(model), model.config["num_classes"])
    codes, labels, hidden = (torch.from_numpy(x).to(device) for x in given)

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, bf16):
            logits = forward(torch.where(hidden, codes_of(model), codes), labels)
        loss = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten(), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def codes_of(model: Any) -> int:
    """The size of a PyTorch model's codebook, which is also the id of a masked token."""
    return model.config["codebook_size"]


def train_batch(
    batch: int, grid: tuple[int, int], codebook_size: int, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, labels, and what is hidden."""
    rng, shape = np.random.default_rng(0), (batch, *grid)
    codes = rng.integers(codebook_size, size=shape)
    return codes, rng.integers(classes, size=batch), rng.random(shape) < 0.64


def jax_masked(model: Any, labels: Sequence[int] = LABELS) -> Callable:
    """8 steps of the same rule."""
    options = dict(steps=STEPS, guidance=1 + WEIGHT, choice_temperature=CHOICE_TEMPERATURE)
    return lambda: np.asarray(model.sample(np.array(labels), 0, **options))


def jax_cached(model: Any, labels: Sequence[int] = LABELS) -> Callable:
    """Token by token with the same filter."""
    options = dict(guidance=GUIDANCE, top_k=min(TOP_K, model.network.config.codebook_size))
    return lambda: np.asarray(model.sample(np.array(labels), 0, **options))


def jax_train(network: Any, batch: int = 8) -> Callable:
    """A step of the training loop, its state donated, of a network that its config describes."""
    import jax

    from maskgil_jax import config as defaults
    from maskgil_jax.training import generator_step

    config = defaults.generator()
    config.ema_decay = 0.0
    config.batch_size, config.loss.unmasked_weight = batch, 1.0
    state = jax.jit(lambda: generator_step.init(config, network, None))()
    shape = (batch, network.grid, network.codebook_size, network.num_classes)
    codes, labels, _ = train_batch(*shape)
    examples = {"codes": codes.astype(np.int32), "label": labels.astype(np.int32)}
    frozen = generator_step.Frozen()
    step = jax.jit(lambda s, b: generator_step.step(s, frozen, b, config), donate_argnums=0)
    held = [state]

    def run() -> float:
        held[0], metrics = step(held[0], examples)
        return float(metrics["loss"])

    return run
