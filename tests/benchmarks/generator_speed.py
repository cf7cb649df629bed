"""Seconds of sampling and of a training step: the official algorithms in eager PyTorch, and ours.

python -m tests.benchmarks.generator_speed [--tasks=masked,autoregressive,train] [--output=FILE]

The network is MaskGIL-B with the released switches, and LlamaGen-B for token by token; PyTorch has
the module that the package ships. Both sides hold the same weights, and run alternately (see
alternate.py). bfloat16 is autocast in PyTorch, as the official codes train and sample.
"""

import math
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from tests.benchmarks import alternate

DTYPES = ("float32", "bfloat16")
LABELS = (207, 360, 387, 974)
STEPS, WEIGHT, CHOICE_TEMPERATURE = 8, 3.0, 4.5
TOP_K, GUIDANCE = 2000, 4.0


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list("tasks", ["masked", "autoregressive", "train"], "what to time")
    flags.DEFINE_list("dtypes", list(DTYPES), "of the computation")
    flags.DEFINE_integer("batch", 8, "images of a training step", lower_bound=1)
    alternate.define_flags(rounds=2)


def main() -> None:
    """Time all processes and print the table, or be one of the processes."""
    values = flags.FLAGS
    if alternate.is_worker(prepare, time_torch, time_jax):
        return
    settings = {name: values[name].value for name in ("batch", "rounds", "threads")}
    settings |= {name: ",".join(values[name].value) for name in ("tasks", "dtypes")}
    with tempfile.TemporaryDirectory() as folder:
        runs = alternate.run(__spec__.name, pathlib.Path(folder), settings)
    rows = []
    for key in next(run for run in runs if "torch" in next(iter(run))):
        key = key.removeprefix("torch ")
        theirs, ours = (
            [statistics.median(run[f"{name} {key}"]) for run in runs if f"{name} {key}" in run]
            for name in ("torch", "jax")
        )
        ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
        rows.append({"task": key, "torch": theirs, "jax": ours, "ratios": ratios})
    print(f"\nseconds, medians; {alternate.GRADE}; {settings}")
    print("| task | PyTorch | JAX | ratio [range] |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        theirs, ours = (statistics.mean(row[name]) for name in ("torch", "jax"))
        low, high = row["ratios"][0], row["ratios"][-1]
        print(
            f"| {row['task']} | {theirs:.2f} | {ours:.2f} | **{theirs / ours:.2f}** "
            f"[{low:.2f}-{high:.2f}] |"
        )
    alternate.write_output({"settings": settings, "rows": rows}, runs)


def prepare(scratch: pathlib.Path) -> None:
    """Write both models, with random weights, for both sides."""
    import jax

    from maskgil_jax.interop import conversion
    from maskgil_jax.models.token_models.llama import Llama
    from maskgil_jax.models.token_models.llama_config import PRESETS, SIZES, LlamaConfig
    from maskgil_jax.pretrained import loading

    for name, preset in (("masked", "maskgil_released"), ("causal", "llamagen")):
        shape = dict(codebook_size=16384, num_classes=1000, grid=(16, 16))
        config = LlamaConfig(**SIZES["B"], **shape, **PRESETS[preset])
        network = jax.jit(lambda c=config: Llama(c, jax.random.key(0)))()
        network.head[...] = 0.02 * jax.random.normal(jax.random.key(1), network.head.shape)
        loading.wrap(network).save(scratch / name)
        conversion.export_model(
            "maskgil", str(scratch / name), str(scratch / f"{name}.safetensors")
        )


def time_torch(scratch: pathlib.Path) -> None:
    """Time the official algorithms."""
    import torch

    from maskgil_jax.interop import maskgil_torch

    torch.set_num_threads(flags.FLAGS.threads)
    calls: dict[str, Callable] = {}
    for task in flags.FLAGS.tasks:
        kind = "causal" if task == "autoregressive" else "masked"
        model = maskgil_torch.load(str(scratch / f"{kind}.safetensors"))
        for dtype in flags.FLAGS.dtypes:
            run = {"masked": torch_masked, "autoregressive": torch_cached, "train": torch_train}
            calls[f"torch {task} {dtype}"] = run[task](model, dtype == "bfloat16")
    alternate.measure(scratch, calls, flags.FLAGS.rounds)


def torch_masked(model: Any, bf16: bool) -> Callable:
    """MaskGIL's released sampler (Trainer/vit.py, `sample`): 8 steps, linear guidance."""
    import torch

    from maskgil_jax.decoding.schedules import maskgil_counts

    counts = maskgil_counts("arccos", STEPS, 256).tolist()
    labels = torch.tensor(LABELS)
    null = torch.full_like(labels, 1000)

    def sample() -> np.ndarray:
        code = torch.full((len(labels), 16, 16), 16384)
        mask = torch.ones(len(labels), 256, dtype=torch.bool)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, bf16):
            for step, count in enumerate(counts):
                fraction = step / (STEPS - 1)
                both = model(torch.cat([code, code]), torch.cat([labels, null])).float()
                c, u = both.chunk(2)
                weight = WEIGHT * fraction
                prob = torch.softmax((1 + weight) * c - weight * u, -1)
                drawn = torch.distributions.Categorical(probs=prob).sample()
                conf = torch.gather(prob, 2, drawn[..., None])[..., 0]
                noise = torch.from_numpy(np.random.gumbel(size=conf.shape)).float()
                conf = torch.log(conf) + CHOICE_TEMPERATURE * noise * (1 - fraction)
                conf[~mask] = -math.inf
                chosen = torch.topk(conf, k=count, dim=-1).indices
                code.view(len(labels), 256).scatter_(1, chosen, drawn.gather(1, chosen))
                mask.scatter_(1, chosen, False)
        return code.numpy()

    return sample


def torch_cached(model: Any, bf16: bool) -> Callable:
    """LlamaGen's sampler (generate.py) with its cache: guidance 4, the 2,000 likeliest codes."""
    import torch
    import torch.nn.functional as F

    from maskgil_jax.interop.maskgil_torch.network import rotate

    labels = torch.tensor([*LABELS, *[1000] * len(LABELS)])
    table = model.rotations(16, 16)
    B, H, K = len(labels), model.config["heads"], model.config["dim"] // model.config["heads"]
    dtype = torch.bfloat16 if bf16 else torch.float32

    def run(x: Any, position: int, cache: list) -> Any:
        allowed = torch.arange(264)[None] <= position
        for layer, (keys, values) in zip(model.layers, cache, strict=True):
            attention = layer.attention
            qkv = attention.wqkv(layer.attention_norm(x)).view(B, 1, 3, H, K)
            q, k, v = qkv.unbind(2)
            q, k = (rotate(part, table[position : position + 1]) for part in (q, k))
            keys[:, :, position], values[:, :, position] = k[:, 0], v[:, 0]
            o = F.scaled_dot_product_attention(
                q.transpose(1, 2).to(dtype), keys, values, attn_mask=allowed
            )
            x = x + attention.wo(o.transpose(1, 2).reshape(B, 1, H * K))
            x = x + layer.feed_forward(layer.ffn_norm(x))
        return model.output(model.norm(x)).float()

    def sample() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, bf16):
            cache = [
                (torch.zeros(B, H, 264, K, dtype=dtype), torch.zeros(B, H, 264, K, dtype=dtype))
                for _ in model.layers
            ]
            x, found = model.cls_embedding(labels)[:, None], []
            for position in range(256):
                c, u = run(x, position, cache)[:, -1].chunk(2)
                logits = u + GUIDANCE * (c - u)
                least = torch.topk(logits, TOP_K).values[:, -1:]
                logits[logits < least] = -math.inf
                found.append(torch.multinomial(torch.softmax(logits, -1), 1))
                x = model.tok_embeddings(torch.cat([found[-1]] * 2))
        return torch.cat(found, 1).numpy()

    return sample


def torch_train(model: Any, bf16: bool) -> Callable:
    """The released trainer's step: all tokens, label smoothing, clipping, AdamW."""
    import torch
    import torch.nn.functional as F

    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.96), weight_decay=1e-5)
    codes, labels, hidden = (torch.from_numpy(x) for x in train_batch())

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, bf16):
            logits = model(torch.where(hidden, 16384, codes), labels)
        loss = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten(), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def train_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, labels, and what is hidden."""
    rng = np.random.default_rng(0)
    batch = flags.FLAGS.batch
    codes = rng.integers(16384, size=(batch, 16, 16))
    return codes, rng.integers(1000, size=batch), rng.random((batch, 16, 16)) < 0.64


def time_jax(scratch: pathlib.Path) -> None:
    """Time ours as a user calls it."""
    import maskgil_jax

    calls: dict[str, Callable] = {}
    for dtype in flags.FLAGS.dtypes:
        for task in flags.FLAGS.tasks:
            kind = "causal" if task == "autoregressive" else "masked"
            model = maskgil_jax.load(scratch / kind, dtype=dtype)
            run = {"masked": jax_masked, "autoregressive": jax_cached, "train": jax_train}
            calls[f"jax {task} {dtype}"] = run[task](model)
    alternate.measure(scratch, calls, flags.FLAGS.rounds)


def jax_masked(model: Any) -> Callable:
    """8 steps of the same rule."""
    options = dict(steps=STEPS, guidance=1 + WEIGHT, choice_temperature=CHOICE_TEMPERATURE)
    return lambda: np.asarray(model.sample(np.array(LABELS), 0, **options))


def jax_cached(model: Any) -> Callable:
    """Token by token with the same filter."""
    return lambda: np.asarray(model.sample(np.array(LABELS), 0, guidance=GUIDANCE, top_k=TOP_K))


def jax_train(model: Any) -> Callable:
    """A step of the training loop, its state donated."""
    import jax

    from maskgil_jax import config as defaults
    from maskgil_jax.training import generator_step

    config = defaults.generator()
    config.ema_decay = 0.0
    config.batch_size, config.loss.unmasked_weight = flags.FLAGS.batch, 1.0
    state = jax.jit(lambda: generator_step.init(config, model.network.config, None))()
    codes, labels, _ = train_batch()
    batch = {"codes": codes.astype(np.int32), "label": labels.astype(np.int32)}
    frozen = generator_step.Frozen()
    step = jax.jit(lambda s, b: generator_step.step(s, frozen, b, config), donate_argnums=0)
    held = [state]

    def run() -> float:
        held[0], metrics = step(held[0], batch)
        return float(metrics["loss"])

    return run


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
