"""Seconds per image of a tokenizer: the official network in eager PyTorch against ours, on the CPU.

python -m tests.benchmarks.tokenizer_speed [--tokenizer=DIR] [--format=llamagen-vq] [--output=FILE]

Both sides hold the same weights, and run alternately (see alternate.py).
"""

import itertools
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime.errors import InputError
from tests.benchmarks import alternate

DTYPES = ("float32", "bfloat16")
TASKS = ("encode", "decode")
LAYOUTS = ("torch", "torch channels_last")  # as the official code; as PyTorch is fastest
SKIMAGE = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina")


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("tokenizer", "default", "model directory; default: VQ-16, random weights")
    flags.DEFINE_string("format", "llamagen-vq", "of maskgil_jax.convert: the official network")
    flags.DEFINE_string("source", "skimage", "folder of images, or skimage: the package's own")
    flags.DEFINE_integer("images", 4, "images a batch", lower_bound=1)
    flags.DEFINE_integer("size", 256, "pixels, a multiple of 16", lower_bound=16)
    alternate.define_flags(rounds=3)


def main() -> None:
    """Time all processes and print the table, or be one of the processes."""
    if alternate.is_worker(prepare, time_torch, time_jax):
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        np.save(scratch / "images.npy", read_images(flags.FLAGS.source))
        # A relative path is meant from here, and the processes run in the repository.
        tokenizer = flags.FLAGS.tokenizer
        if tokenizer != "default":
            tokenizer = str(pathlib.Path(tokenizer).expanduser().resolve())
        runs = alternate.run(__spec__.name, scratch, settings() | {"tokenizer": tokenizer})
        codes = {name: dict(np.load(scratch / f"{name}.npz")) for name in ("torch", "jax")}
    result = {
        "settings": settings(),
        "rows": rows(runs),
        "codes": compare(codes),
    }
    show(result)
    alternate.write_output(result, runs)


def settings() -> dict[str, Any]:
    """The flags that say what was measured."""
    names = ("tokenizer", "format", "source", "images", "size", "rounds", "threads")
    return {name: flags.FLAGS[name].value for name in names}


def read_images(source: str) -> np.ndarray:
    """Natural images, float32 [B, size, size, 3] in [-1, 1]: centre squares, scaled."""
    if source == "skimage":
        from skimage import data

        names = SKIMAGE[: flags.FLAGS.images]
        pictures = [Image.fromarray(getattr(data, name)()) for name in names]
    else:
        suffixes = (".jpg", ".jpeg", ".png", ".webp")
        paths = sorted(pathlib.Path(source).expanduser().rglob("*"))
        paths = [path for path in paths if path.suffix.lower() in suffixes]
        pictures = [Image.open(path) for path in paths[: flags.FLAGS.images]]
    if len(pictures) < flags.FLAGS.images:
        raise InputError(f"--source={source} has {len(pictures)} images, not {flags.FLAGS.images}")
    squares = []
    for picture in pictures[: flags.FLAGS.images]:
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        box, size = (left, top, left + side, top + side), (flags.FLAGS.size,) * 2
        squares.append(np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX, box)))
    return np.stack(squares).astype(np.float32) / 127.5 - 1


def prepare(scratch: pathlib.Path) -> None:
    """Write the weights for both sides, and codes to decode."""
    import jax

    from maskgil_jax.interop import conversion
    from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
    from maskgil_jax.pretrained import loading

    if flags.FLAGS.tokenizer == "default":
        tokenizer = loading.Tokenizer(VQTokenizer(VQConfig(), jax.random.key(0)))
    else:
        tokenizer = loading.load_tokenizer(flags.FLAGS.tokenizer)
    tokenizer.save(scratch / "tokenizer")
    conversion.export_model(
        flags.FLAGS.format, str(scratch / "tokenizer"), str(scratch / "official.safetensors")
    )
    grid = (flags.FLAGS.size // tokenizer.downsample,) * 2
    shape = (flags.FLAGS.images, *grid)
    codes = np.random.default_rng(0).integers(tokenizer.codebook_size, size=shape)
    np.save(scratch / "codes.npy", codes)


def time_torch(scratch: pathlib.Path) -> None:
    """Time the official network in both memory layouts; bfloat16 is autocast, as it trains."""
    import safetensors.torch
    import torch

    from maskgil_jax.models.tokenizers.vq import VQConfig
    from tests.helpers import torch_tokenizers

    torch.set_num_threads(flags.FLAGS.threads)
    arguments = model_directory.read_description(scratch / "tokenizer")["arguments"]
    state = safetensors.torch.load_file(scratch / "official.safetensors")
    images = torch.from_numpy(np.load(scratch / "images.npy")).permute(0, 3, 1, 2)
    codes = torch.from_numpy(np.load(scratch / "codes.npy"))

    def call(method: Callable, x: Any, dtype: str) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, dtype == "bfloat16"):
            return method(x).float().numpy()

    calls = {}
    for name, layout in zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True):
        network = torch_tokenizers.build(flags.FLAGS.format, VQConfig(**arguments))
        network.load_state_dict(state, strict=True)
        network.to(memory_format=layout)
        inputs = {"encode": images.contiguous(memory_format=layout), "decode": codes}
        for dtype, task in itertools.product(DTYPES, TASKS):
            arguments_ = (getattr(network, task), inputs[task], dtype)
            calls[f"{name}/{dtype}/{task}"] = lambda a=arguments_: call(*a)
    keep(scratch, "torch", calls)


def time_jax(scratch: pathlib.Path) -> None:
    """Time ours as a user calls it, NumPy arrays in and out."""
    import maskgil_jax

    inputs = {
        task: np.load(scratch / f"{x}.npy")
        for task, x in zip(TASKS, ("images", "codes"), strict=True)
    }
    calls = {}
    for dtype in DTYPES:
        tokenizer = maskgil_jax.load(scratch / "tokenizer", dtype=dtype)
        for task in TASKS:
            method = getattr(tokenizer, task)
            calls[f"jax/{dtype}/{task}"] = lambda m=method, t=task: np.asarray(m(inputs[t]))
    keep(scratch, "jax", calls)


def keep(scratch: pathlib.Path, name: str, calls: dict[str, Callable]) -> None:
    """Time the calls, and keep what they give."""
    outputs = alternate.measure(scratch, calls, flags.FLAGS.rounds)
    np.savez(scratch / f"{name}.npz", **{key.replace("/", " "): x for key, x in outputs.items()})


def rows(runs: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """For each dtype and task: medians in seconds per image, and ratios PyTorch / JAX.

    The range of a ratio is that of its medians over each torch process and the jax process next to
    it.
    """
    table = []
    for dtype, task in itertools.product(DTYPES, TASKS):
        row: dict[str, Any] = {"dtype": dtype, "task": task}
        for name in ("jax", *LAYOUTS):
            key = f"{name}/{dtype}/{task}"
            found = [run[key] for run in runs if key in run]
            row[name] = statistics.median(sum(found, [])) / flags.FLAGS.images
            medians = [statistics.median(times) for times in found]
            if name == "jax":
                ours = medians
                continue
            pairs = sorted(a / b for a, b in zip(medians, ours, strict=True))
            row[f"{name} / jax"] = {"ratio": row[name] / row["jax"], "range": pairs}
        table.append(row)
    return table


def compare(outputs: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Shares of codes that differ between two ways of encoding the same images."""

    def changed(first: tuple[str, str], second: tuple[str, str]) -> float:
        a, b = (outputs[n.split()[0]][f"{n} {dtype} encode"] for n, dtype in (first, second))
        return float((a != b).mean())

    result = {
        f"{name}: bfloat16 instead of float32": changed((name, "float32"), (name, "bfloat16"))
        for name in ("jax", *LAYOUTS)
    }
    for name in LAYOUTS:
        pair = (name, "float32"), ("jax", "float32")
        result[f"float32: jax instead of {name}"] = changed(*pair)
    return result


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\nseconds per image, median; {alternate.GRADE}; {result['settings']}")
    print("|  | JAX | PyTorch | ratio [range] | PyTorch channels_last | ratio [range] |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in result["rows"]:
        cells = [f"{row['task']} {row['dtype']}", f"{row['jax']:.3f}"]
        for name in LAYOUTS:
            ratio = row[f"{name} / jax"]
            low, high = ratio["range"][0], ratio["range"][-1]
            cells += [f"{row[name]:.3f}", f"**{ratio['ratio']:.2f}** [{low:.2f}-{high:.2f}]"]
        print(f"| {' | '.join(cells)} |")
    print("\ncodes that change:")
    for name, share in result["codes"].items():
        print(f"  {name}: {share:.2%}")


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
