"""Seconds of sampling and of a training step: the official algorithms in eager PyTorch, and ours.

python -m tests.benchmarks.generator_speed [--tasks=masked,autoregressive,train] [--compile]

The network is MaskGIL-B with the released switches, and LlamaGen-B for token by token; PyTorch has
the module that the package ships. Both sides hold the same weights, and run alternately (see
alternate.py). bfloat16 is autocast in PyTorch, as the official codes train and sample.
"""

import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

from absl import app, flags

from tests.benchmarks import alternate
from tests.benchmarks.generator_calls import (
    as_it_is,
    jax_cached,
    jax_masked,
    jax_train,
    torch_cached,
    torch_masked,
    torch_train,
)

DTYPES = ("float32", "bfloat16")


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_list("tasks", ["masked", "autoregressive", "train"], "what to time")
    flags.DEFINE_list("dtypes", list(DTYPES), "of the computation")
    flags.DEFINE_integer("batch", 8, "images of a training step", lower_bound=1)
    flags.DEFINE_boolean("compile", False, "PyTorch's network by torch.compile, which needs g++")
    alternate.define_flags(rounds=2)


def main() -> None:
    """Time all processes and print the table, or be one of the processes."""
    values = flags.FLAGS
    if alternate.is_worker(prepare, time_torch, time_jax):
        return
    settings = {name: values[name].value for name in ("batch", "rounds", "threads", "compile")}
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
            more: dict[str, Any] = {"batch": flags.FLAGS.batch} if task == "train" else {}
            more["wrap"] = torch.compile if flags.FLAGS.compile else as_it_is
            calls[f"torch {task} {dtype}"] = run[task](model, dtype == "bfloat16", **more)
    alternate.measure(scratch, calls, flags.FLAGS.rounds)


def time_jax(scratch: pathlib.Path) -> None:
    """Time ours as a user calls it."""
    import maskgil_jax

    calls: dict[str, Callable] = {}
    for dtype in flags.FLAGS.dtypes:
        for task in flags.FLAGS.tasks:
            kind = "causal" if task == "autoregressive" else "masked"
            model = maskgil_jax.load(scratch / kind, dtype=dtype)
            run: dict[str, Callable] = {
                "masked": lambda m=model: jax_masked(m),
                "autoregressive": lambda m=model: jax_cached(m),
                "train": lambda m=model: jax_train(m.network.config, flags.FLAGS.batch),
            }
            calls[f"jax {task} {dtype}"] = run[task]()
    alternate.measure(scratch, calls, flags.FLAGS.rounds)


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
