"""Images per second of FID's Inception: eager PyTorch against ours, float32 on the CPU.

python -m tests.benchmarks.inception_speed [--images=32] [--rounds=3] [--output=FILE]

Both sides hold the same random weights, take uint8 images, resize them, and give the same features,
which is checked. They run alternately (see alternate.py), and each is judged by its best batch.
"""

import functools
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from maskgil_jax.runtime.errors import InputError
from tests.benchmarks import alternate

LAYOUTS = ("torch", "torch channels_last")  # as the official code; as PyTorch may be faster
FEATURES = ("pool", "spatial", "logits")
TOLERANCE = 1e-4  # of the largest feature


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_integer("images", 32, "of a timing, a multiple of every batch", lower_bound=1)
    flags.DEFINE_list("batches", ["8", "16", "32"], "images a batch")
    flags.DEFINE_integer("size", 256, "pixels", lower_bound=16)
    alternate.define_flags(rounds=3)


def main() -> None:
    """Time all processes and print the table, or be one of the processes."""
    values = flags.FLAGS
    if alternate.is_worker(prepare, time_torch, time_jax):
        return
    settings = {name: values[name].value for name in ("images", "size", "rounds", "threads")}
    settings["batches"] = ",".join(values.batches)
    if any(values.images % batch for batch in batches()):
        raise InputError(f"--images={values.images} is no multiple of --batches={values.batches}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        runs = alternate.run(__spec__.name, scratch, settings)
        errors = compare(dict(np.load(scratch / "torch.npz")), dict(np.load(scratch / "jax.npz")))
    result = {"settings": settings, "errors": errors, "rows": rows(runs)}
    show(result)
    alternate.write_output(result, runs)


def batches() -> list[int]:
    """The flag's."""
    return [int(batch) for batch in flags.FLAGS.batches]


def prepare(scratch: pathlib.Path) -> None:
    """Write the weights and the images for both sides."""
    import torch

    from maskgil_jax.interop import conversion
    from tests.helpers import golden

    state = {name: torch.from_numpy(x) for name, x in golden.weights("fid_inception").items()}
    torch.save(state, scratch / "weights.pth")
    conversion.import_model(
        "fid-inception", str(scratch / "weights.pth"), str(scratch / "model"), {}
    )
    shape = (flags.FLAGS.images, flags.FLAGS.size, flags.FLAGS.size, 3)
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    np.save(scratch / "images.npy", images)


def time_torch(scratch: pathlib.Path) -> None:
    """Time PyTorch in both memory layouts."""
    import torch

    from tests.helpers import torch_inception

    torch.set_num_threads(flags.FLAGS.threads)
    calls = {}
    for name, layout in zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True):
        network = torch_inception.Inception()
        network.load_state_dict(torch.load(scratch / "weights.pth", weights_only=True), strict=True)
        network.to(memory_format=layout)
        for batch in batches():
            calls[f"{name}/{batch}"] = functools.partial(in_batches, network, layout, batch)
    keep(scratch, "torch", calls)


def in_batches(network: Any, layout: Any, batch: int, images: np.ndarray) -> dict[str, np.ndarray]:
    """PyTorch's features of all images."""
    from tests.helpers import torch_inception

    found = [
        torch_inception.features(network, images[i : i + batch], layout)
        for i in range(0, len(images), batch)
    ]
    return dict(zip(FEATURES, map(np.concatenate, zip(*found, strict=True)), strict=True))


def time_jax(scratch: pathlib.Path) -> None:
    """Time ours, as maskgil_jax.evaluate runs it: it takes all images, and makes the batches."""
    from maskgil_jax.evaluation import feature_networks
    from maskgil_jax.evaluation.image_sets import Block

    networks = {b: feature_networks.inception(str(scratch / "model"), b) for b in batches()}

    def features(batch: int, images: np.ndarray) -> dict[str, np.ndarray]:
        return networks[batch].compute(Block(images, None))

    calls = {f"jax/{batch}": functools.partial(features, batch) for batch in networks}
    keep(scratch, "jax", calls)


def keep(scratch: pathlib.Path, side: str, calls: dict[str, Callable]) -> None:
    """Time calls of all images, named NETWORK/BATCH, and keep what they give."""
    images = np.load(scratch / "images.npy")
    calls = {name: functools.partial(call, images) for name, call in calls.items()}
    outputs = alternate.measure(scratch, calls, flags.FLAGS.rounds)
    arrays = {
        f"{key.replace('/', ' ')} {feature}": found[feature]
        for key, found in outputs.items()
        for feature in FEATURES
    }
    np.savez(scratch / f"{side}.npz", **arrays)


def compare(theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest differences of ours to PyTorch's, relative to the largest feature.

    Raises:
      InputError: beyond TOLERANCE: these are not the same networks.
    """
    errors = {}
    for feature in FEATURES:
        pairs = [
            (theirs[f"{layout} {batch} {feature}"], ours[f"jax {batch} {feature}"])
            for layout in LAYOUTS
            for batch in batches()
        ]
        errors[feature] = max(float(abs(a - b).max() / abs(a).max()) for a, b in pairs)
        if not errors[feature] <= TOLERANCE:
            raise InputError(f"{feature} differs by {errors[feature]:.1e} of its largest value")
    return errors


def rows(runs: list[dict[str, list[float]]]) -> list[dict[str, Any]]:
    """For each layout of PyTorch: both sides' images per second at their best batch, and the ratio.

    Speeds are of medians. The range is that of the ratios of each torch process and the jax process
    next to it.
    """

    def speeds(name: str) -> tuple[int, float, list[float]]:
        def medians(batch: int) -> list[float]:
            key = f"{name}/{batch}"
            found = [run[key] for run in runs if key in run]
            return [statistics.median(times) for times in [sum(found, []), *found]]

        best = min(batches(), key=lambda batch: medians(batch)[0])
        overall, *each = [flags.FLAGS.images / seconds for seconds in medians(best)]
        return best, overall, each

    batch, ours, each = speeds("jax")
    table = []
    for layout in LAYOUTS:
        their_batch, theirs, their_each = speeds(layout)
        ratios = sorted(a / b for a, b in zip(each, their_each, strict=True))
        table.append(
            {"torch": layout, "jax batch": batch, "jax": ours}
            | {"torch batch": their_batch, "images per second": theirs}
            | {"ratio": ours / theirs, "range": ratios}
        )
    return table


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\nimages per second; {alternate.GRADE}; {result['settings']}")
    print("| PyTorch | images/s (batch) | JAX images/s (batch) | JAX / PyTorch [range] |")
    print("| --- | --- | --- | --- |")
    for row in result["rows"]:
        low, high = row["range"][0], row["range"][-1]
        print(
            f"| {row['torch']} | {row['images per second']:.2f} ({row['torch batch']}) | "
            f"{row['jax']:.2f} ({row['jax batch']}) | **{row['ratio']:.2f}** [{low:.2f}-{high:.2f}]"
            " |"
        )
    errors = ", ".join(f"{name} {error:.1e}" for name, error in result["errors"].items())
    print(f"\nfeatures differ by, relative to the largest: {errors}")


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
