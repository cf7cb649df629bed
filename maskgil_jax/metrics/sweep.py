"""A generator's quality and speed under several settings of decoding."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath

from maskgil_jax import pictures
from maskgil_jax.api import Tokenizer
from maskgil_jax.checkpoint import write_json
from maskgil_jax.decoding import draw
from maskgil_jax.generators import Generator
from maskgil_jax.metrics import compare, tables


def write_sweep(
    samplers: Sequence[tuple[Mapping[str, Any], draw.Sample]],
    generator: Generator,
    tokenizer: Tokenizer,
    reference: str,
    output: epath.PathLike,
    *,
    labels: np.ndarray,
    batch_size: int,
    metrics: Sequence[str],
    inception: str = "",
    network: str = "",
) -> None:
    """Draw with each sampler and measure.

    Writes OUTPUT/sweep.{json,csv,md}, OUTPUT/quality_time.png (each metric against seconds per
    image, the paper's figures 8 and 9) and, where one option varies, OUTPUT/NAME.png (each metric
    against it, figure 10).

    Args:
      samplers: the options that vary, and what draws with them.
      generator: knows the names of the classes.
      tokenizer: turns codes into images.
      reference: images to compare with, as compare.read_images takes them.
      output: directory, made if needed.
      labels: int [N], classes to draw.
      batch_size: images drawn at once.
      metrics: names that compare.chosen knows.
      inception: Inception directory, for those that need it.
      network: as compare.chosen takes it.

    Raises:
      InputError: metrics or images that do not fit.
    """
    table = compare.chosen(metrics, inception=inception, network=network)
    extract = compare.extractor(table, inception)
    size = generator.grid[0] * tokenizer.downsample
    real = compare.read_images(reference, size).with_features(extract)
    names = np.array(generator.class_names or range(generator.num_classes))[labels]
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for setting, sample in tqdm.tqdm(samplers, unit="setting"):
        seconds = seconds_per_image(sample, labels, batch_size)
        images = draw.draw_images(sample, tokenizer, labels, batch_size)
        drawn = compare.ImageSet(images, names).with_features(extract)
        values = compare.measure(drawn, real, table)
        rows.append({**setting, "seconds_per_image": seconds, **values})
    protocol = {
        "samples": f"{len(labels)} images",
        "reference": f"{reference}, {len(real.images)} images, ADM centre crop to {size}",
        "seconds_per_image": f"codes alone, a batch of {batch_size} after one that compiles, "
        f"{jax.devices()[0].device_kind}",
    } | {name: metric.protocol for name, metric in table.items()}
    write_json(output / "sweep.json", {"protocol": protocol, "rows": rows})
    tables.write(output / "sweep", rows)
    varied = list(samplers[0][0])
    measured = [name for name in rows[0] if name not in (*varied, "seconds_per_image")]
    title = f"{len(labels)} images against {len(real.images)} of {reference}"
    labelled = {" ".join(f"{n}={row[n]}" for n in varied): row for row in rows}
    axes = ["seconds_per_image", *(varied if len(varied) == 1 else [])]
    for axis in axes:
        if not all(isinstance(row[axis], int | float) for row in rows):
            continue
        name = "quality_time" if axis == "seconds_per_image" else axis
        pictures.panels(labelled, axis, measured, title, output / f"{name}.png")


def seconds_per_image(sample: draw.Sample, labels: np.ndarray, batch_size: int) -> float:
    """Of drawing the codes of a batch, after one that compiles."""
    _, _, batch = next(draw.fixed_batches(labels, batch_size))
    np.asarray(sample(batch, 0))
    start = time.perf_counter()
    np.asarray(sample(batch, 0))
    return (time.perf_counter() - start) / len(batch)
