"""Images a second of the input pipeline, against what libjpeg-turbo alone decodes, on the CPU.

python -m tests.benchmarks.data_speed --source=folder:PHOTOS [--images=128] [--output=FILE]

On one core, alternately, the same JPEG files: decoded from memory by libjpeg-turbo and nothing else
(simplejpeg), by our decoder, and with our crops of tokenising and of training; read from a folder
and from a tar. These are seconds of the processor, which other work on the machine moves less. Then
the training pipeline on all cores, with its threads, by the clock.
"""

import itertools
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from absl import app, flags

from maskgil_jax.data import pipeline, sources
from maskgil_jax.data.images import cropping
from maskgil_jax.data.order import Order, pools_of
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError

LIMIT = "libjpeg-turbo decodes"
PIPELINE = "training pipeline, all cores"
BATCH = 16


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("source", None, "images, such as folder:PATH; those that are JPEG are used")
    flags.DEFINE_integer("images", 128, "how many of them, evenly spread", lower_bound=1)
    flags.DEFINE_integer("size", 256, "pixels a side of the crops", lower_bound=8)
    flags.DEFINE_integer("rounds", 5, "timings of each", lower_bound=1)
    flags.DEFINE_integer("threads", 16, "of the training pipeline", lower_bound=1)
    flags.DEFINE_string("output", "", "JSON file for all timings")


def main() -> None:
    """Time everything and print the table."""
    settings = {n: flags.FLAGS[n].value for n in ("source", "images", "size", "rounds", "threads")}
    records = jpegs(sources.open_source(flags.FLAGS.source), settings["images"])
    load, fast = (
        pipeline.image_loader(
            records,
            np.zeros(len(records), int),
            sizes=[(settings["size"],) * 2],
            crop="random",
            flip=True,
            resize=resize,
        )
        for resize in ("exact", "fast")
    )
    with tempfile.TemporaryDirectory() as folder:
        calls = one_core(records, load, fast, settings["size"], pathlib.Path(folder))
        seconds = in_turns(calls, settings["rounds"])
    seconds[PIPELINE] = all_cores(len(records), load, settings["rounds"], settings["threads"])
    cores = len(os.sched_getaffinity(0))
    settings |= {"images": len(records), "cores": cores, "megapixels": megapixels(records)}
    show(settings, rows(seconds, len(records)))
    if flags.FLAGS.output:
        content = json.dumps({"settings": settings, "seconds": seconds}, indent=1) + "\n"
        pathlib.Path(flags.FLAGS.output).expanduser().write_text(content)


def jpegs(source: image_records.Source, count: int) -> list[image_records.Record]:
    """Records of at most `count` JPEG files of three colours."""
    records = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int).tolist():
        record = source[index]
        is_jpeg = simplejpeg.is_jpeg(record.image)
        if is_jpeg and simplejpeg.decode_jpeg_header(record.image)[2] == "YCbCr":
            records.append(record)
    if not records:
        raise InputError("--source has no JPEG images")
    return records


def megapixels(records: list[image_records.Record]) -> float:
    """Mean of the images."""
    sizes = [simplejpeg.decode_jpeg_header(record.image)[:2] for record in records]
    return statistics.mean(height * width for height, width in sizes) / 1e6


def one_core(
    records: list[image_records.Record],
    load: pipeline.Load,
    fast: pipeline.Load,
    size: int,
    scratch: pathlib.Path,
) -> dict[str, Callable[[], None]]:
    """What is timed, by name; each call goes through all images."""
    files = scratch / "files"
    files.mkdir()
    with tarfile.open(scratch / "files.tar", "w") as tar:
        for number, record in enumerate(records):
            (files / f"{number:05}.jpg").write_bytes(record.image)
            tar.add(files / f"{number:05}.jpg", f"{number:05}.jpg")
    folder = sources.open_source(f"folder:{files}")
    shard = sources.open_source(f"tar:{scratch}/files.tar")
    rng = np.random.default_rng(0)

    def all_images(of_one: Callable[[int], Any]) -> Callable[[], None]:
        def call() -> None:
            for index in range(len(records)):
                of_one(index)

        return call

    return {
        LIMIT: all_images(lambda i: simplejpeg.decode_jpeg(records[i].image)),
        "we decode": all_images(lambda i: image_records.image_of(records[i])),
        "with the centre crop": all_images(
            lambda i: cropping.center_crop(image_records.image_of(records[i]), size)
        ),
        "with random crop and flip": all_images(lambda i: load(i, rng)),
        "the same, resize=fast": all_images(lambda i: fast(i, rng)),
        "we read a folder": all_images(lambda i: folder[i]),
        "we read a tar": all_images(lambda i: shard[i]),
    }


def in_turns(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each call in each round, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    return {name: times[1:] for name, times in seconds.items()}


def all_cores(length: int, load: pipeline.Load, rounds: int, threads: int) -> list[float]:
    """Seconds for so many images out of the training pipeline, one time a round."""
    order = Order(pools_of([np.zeros(length, int)]), BATCH, seed=0)
    batches = pipeline.batches(load, order, threads=threads)
    count = 3 * threads  # each thread loads a batch, and all are done at about the same time
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        loaded = sum(len(batch["image"]) for batch in itertools.islice(batches, count))
        seconds.append((time.perf_counter() - start) * length / loaded)
    return seconds[1:]  # threads start in the first


def rows(seconds: dict[str, list[float]], count: int) -> list[tuple[str, float, list[float]]]:
    """Name, images a second, and in each round how much of LIMIT's that is, sorted."""
    table = []
    for name, times in seconds.items():
        shares = sorted(limit / ours for limit, ours in zip(seconds[LIMIT], times, strict=True))
        table.append((name, count / statistics.median(times), shares))
    return table


def show(settings: dict[str, Any], table: list[tuple[str, float, list[float]]]) -> None:
    """Print the table."""
    print(f"\n{settings}")
    print(f"|  | images/s | {LIMIT} = 1 [range] |")
    print("| --- | --- | --- |")
    for name, rate, shares in table:
        share = statistics.median(shares)
        print(f"| {name} | {rate:,.0f} | {share:.2f} [{shares[0]:.2f}-{shares[-1]:.2f}] |")


if __name__ == "__main__":
    define_flags()
    flags.mark_flag_as_required("source")
    app.run(lambda _: main())
