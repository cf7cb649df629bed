"""All that is measured on one GPU, in at most 8 minutes: tests, training, drawing, tokenizers.

python -m tests.benchmarks.gpu --output=gpu.json [--minutes=8] [--tiny]

Ours and the same networks in PyTorch, eager and compiled, in bfloat16 (autocast in PyTorch), with
random weights, in processes of their own, one after another. What there was no time or memory for
is named in the JSON. --tiny does all of it with tiny networks, on a CPU where there is no GPU: it
shows that the script works, and its figures mean nothing.
"""

import dataclasses
import gc
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import app, flags

from tests.benchmarks import generator_calls as calls
from tests.benchmarks.alternate import ROOT

PARTS = {"tests": 0.25, "jax": 0.35, "torch": 0.40}  # of the time, in the order of their turns
SPARE = 30.0  # seconds for starting, and for what a part is in when its time is up
REPEATS, LONG = 5, 4.0  # timings of a task, or as many as begin in so many seconds, at least 2
MODES = ("eager", "compiled")

Task = Callable[[], Any]


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("output", "gpu.json", "the JSON file")
    flags.DEFINE_float("minutes", 8.0, "that all of it may take", lower_bound=1.0)
    flags.DEFINE_bool("tiny", False, "tiny networks, to try the script")
    flags.DEFINE_string("part", "", "internal: jax or torch")
    flags.DEFINE_string("found", "", "internal: JSON lines of a part")
    flags.DEFINE_float("until", 0.0, "internal: when a part begins no further task")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large all of it is.

    Attributes:
      sizes: names of the generators, and what they differ from B in.
      shape: of all generators.
      batches: of a training step.
      draws: images drawn at once, 8 steps and token by token.
      images, pixels: that a tokenizer encodes and decodes at once, and their side.
      tokenizer: arguments of VQConfig.
    """

    sizes: dict[str, dict[str, Any]]
    shape: dict[str, Any]
    batches: tuple[int, ...]
    draws: int
    images: int
    pixels: int
    tokenizer: dict[str, Any]


def scale() -> Scale:
    """That of the flags."""
    from maskgil_jax.models.token_models.llama_config import SIZES

    if not flags.FLAGS.tiny:
        shape = dict(codebook_size=16384, num_classes=1000, grid=(16, 16))
        return Scale({name: SIZES[name] for name in "BL"}, shape, (32, 128), 32, 32, 256, {})
    small, shape = (
        dict(layers=2, dim=32, heads=2),
        dict(codebook_size=64, num_classes=10, grid=(4, 4)),
    )
    vq = dict(channels=32, channel_multipliers=(1, 1), res_blocks=1, codebook_size=64)
    return Scale({"B": small, "L": small | {"layers": 3}}, shape, (2, 3), 2, 2, 16, vq)


def main() -> None:
    """Run all parts and write the JSON, or be one of the parts."""
    values = flags.FLAGS
    if values.part:
        {"jax": time_jax, "torch": time_torch}[values.part]()
        return
    began, seconds = time.time(), values.minutes * 60 - SPARE
    result: dict[str, Any] = {"tiny": values.tiny, "versions": versions()}
    found: dict[str, list[dict[str, Any]]] = {}
    share = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for part, of_time in PARTS.items():
            share += of_time
            until = began + share * seconds
            print(f"{part}, until {until - began:.0f} s ...", file=sys.stderr)
            if part == "tests":
                result["tests"] = run_tests(until - time.time())
            else:
                found[part] = run_part(part, pathlib.Path(folder) / part, until)
    result |= table(found)
    result["seconds"] = round(time.time() - began, 1)
    pathlib.Path(values.output).expanduser().write_text(json.dumps(result, indent=1) + "\n")
    show(result)


def versions() -> dict[str, str]:
    """Of what is compared."""
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "torch", "flax")}


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the tests that are marked gpu, on the GPU if there is one; of them with --tiny a few."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "--durations=0"]
    command += ["tests/decoding/test_masked.py"] if flags.FLAGS.tiny else []
    environment = os.environ | {"MASKGIL_TESTS_ON": "gpu" if has_gpu() else "cpu"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return {"passed": False, "summary": f"stopped after {seconds:.0f} s", "end": output[-2000:]}
    lines = done.stdout.strip().splitlines() or [done.stderr[-300:]]
    end = "" if done.returncode == 0 else done.stdout[-2000:]
    return {"passed": done.returncode == 0, "summary": lines[-1], "end": end}


def has_gpu() -> bool:
    """Whether PyTorch sees one; JAX is not asked, since it would take its memory."""
    import torch

    return bool(torch.cuda.is_available())


def run_part(part: str, found: pathlib.Path, until: float) -> list[dict[str, Any]]:
    """Run a part as a process; what it found before it ended, or its time did."""
    options = [f"--part={part}", f"--found={found}", f"--until={until}"]
    options += ["--tiny"] if flags.FLAGS.tiny else []
    environment = os.environ | {"JAX_PLATFORMS": "cuda" if has_gpu() else "cpu"}
    command = [sys.executable, "-m", __spec__.name, *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        code = process.wait(until - time.time() + SPARE / 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    lines = found.read_text().splitlines() if found.exists() else []
    every = [json.loads(line) for line in lines]
    if code != 0:
        why = "its time was up" if code is None else f"it ended with exit code {code}"
        every.append({"task": "the rest", "missing": why})
    return every


def measure(
    tasks: Iterator[tuple[str, int, Callable[[], Task]]],
    device: dict[str, Any],
    found: str,
    until: float,
) -> None:
    """Time tasks until the time is up: a JSON line for each, as soon as it is known.

    Args:
      tasks: name, images of one call, and what makes the task.
      device: what is said of it first.
      found: file of the lines.
      until: seconds since 1970, after which no task begins.
    """
    with open(found, "w") as file:

        def say(**line: Any) -> None:
            print(json.dumps(line), file=file, flush=True)

        say(device=device)
        for name, images, make in tasks:
            if time.time() > until:
                say(task=name, missing="its time was up")
                continue
            try:
                began = time.perf_counter()
                task = make()
                task()
                first = time.perf_counter() - began
                say(task=name, images=images, first=first, seconds=timings(task))
            except Exception as error:  # out of memory, or of the compiler: the others go on
                say(task=name, missing=f"{type(error).__name__}: {error}"[:500])
            task = make = None
            gc.collect()


def timings(task: Task) -> list[float]:
    """Seconds of one call after another."""
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < REPEATS and sum(seconds) < LONG):
        began = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - began)
    return seconds


def networks() -> dict[str, Any]:
    """Configs of the generators: of each size masked, of the first one causal too."""
    from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig

    def config(size: str, preset: str) -> Any:
        arguments = chosen.sizes[size] | chosen.shape | PRESETS[preset]
        return LlamaConfig(**arguments, dtype="bfloat16")

    chosen = scale()
    every = {size: config(size, "paper") for size in chosen.sizes}
    return every | {"causal": config(next(iter(chosen.sizes)), "llamagen")}


def time_jax() -> None:
    """Time ours."""
    import jax

    from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
    from maskgil_jax.pretrained import loading
    from maskgil_jax.pretrained import networks as all_networks

    chosen, configs = scale(), networks()
    labels = list(range(chosen.draws))

    def generator(name: str) -> Any:
        init = jax.jit(lambda: all_networks.init_network(configs[name], jax.random.key(0)))
        return loading.wrap(init())

    def tokenizer() -> Any:
        config = VQConfig(**chosen.tokenizer, dtype="bfloat16")
        return loading.Tokenizer(jax.jit(lambda: VQTokenizer(config, jax.random.key(0)))())

    def tasks() -> Iterator[tuple[str, int, Callable[[], Task]]]:
        first = next(iter(chosen.sizes))
        for size in chosen.sizes:
            for batch in chosen.batches:
                make = lambda s=size, b=batch: calls.jax_train(configs[s], b)  # noqa: E731
                yield f"training step, {size}, batch {batch}", batch, make
        draw = lambda: calls.jax_masked(generator(first), labels)  # noqa: E731
        yield f"drawing in {calls.STEPS} steps, {first}", chosen.draws, draw
        draw = lambda: calls.jax_cached(generator("causal"), labels)  # noqa: E731
        yield f"drawing token by token, {first}", chosen.draws, draw
        for task in ("encode", "decode"):
            make = lambda t=task: of_tokenizer(getattr(tokenizer(), t), t)  # noqa: E731
            yield f"tokenizer, {task}", chosen.images, make

    def of_tokenizer(method: Callable, task: str) -> Task:
        given = inputs()[task]
        return lambda: np.asarray(method(given))

    device = {"jax": jax.devices()[0].device_kind, "platform": jax.default_backend()}
    measure(tasks(), device, flags.FLAGS.found, flags.FLAGS.until)


def inputs() -> dict[str, np.ndarray]:
    """Images to encode, float32 [B, H, W, 3], and codes to decode, int64 [B, h, w]."""
    from maskgil_jax.models.tokenizers.vq import VQConfig

    chosen, rng = scale(), np.random.default_rng(0)
    config = VQConfig(**chosen.tokenizer)
    side = chosen.pixels // config.downsample
    images = rng.uniform(-1, 1, (chosen.images, chosen.pixels, chosen.pixels, 3))
    codes = rng.integers(config.codebook_size, size=(chosen.images, side, side))
    return {"encode": images.astype(np.float32), "decode": codes}


def time_torch() -> None:
    """Time PyTorch, eager and compiled."""
    import torch

    from maskgil_jax.interop.maskgil_torch import MaskGIL
    from maskgil_jax.models.tokenizers.vq import VQConfig
    from tests.helpers import torch_tokenizers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    chosen, configs = scale(), networks()
    labels = list(range(chosen.draws))
    wraps = {"eager": calls.as_it_is, "compiled": lambda f: torch.compile(f, dynamic=False)}

    def generator(name: str) -> Any:
        config = json.loads(json.dumps(dataclasses.asdict(configs[name])))
        return calls.ready(MaskGIL(config), device)

    def of_tokenizer(task: str, wrap: Callable) -> Task:
        network = torch_tokenizers.build("llamagen-vq", VQConfig(**chosen.tokenizer))
        network = network.to(device, memory_format=torch.channels_last)
        given = torch.from_numpy(inputs()[task]).to(device)
        if task == "encode":
            given = given.permute(0, 3, 1, 2)  # which is channels_last
        method = wrap(getattr(network, task))

        def run() -> np.ndarray:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
                return method(given).float().cpu().numpy()

        return run

    def tasks() -> Iterator[tuple[str, int, Callable[[], Task]]]:
        first = next(iter(chosen.sizes))
        for mode in MODES:  # what is compiled takes longest to begin
            wrap = wraps[mode]
            for task in ("encode", "decode"):
                make = lambda t=task, w=wrap: of_tokenizer(t, w)  # noqa: E731
                yield f"{mode} tokenizer, {task}", chosen.images, make
            draw = lambda w=wrap: calls.torch_masked(generator(first), True, labels, w)  # noqa: E731
            yield f"{mode} drawing in {calls.STEPS} steps, {first}", chosen.draws, draw
            for size in chosen.sizes:
                for batch in chosen.batches:
                    make = lambda s=size, b=batch, w=wrap: calls.torch_train(  # noqa: E731
                        generator(s).train(), True, b, w
                    )
                    yield f"{mode} training step, {size}, batch {batch}", batch, make
            draw = lambda w=wrap: calls.torch_cached(generator("causal"), True, labels, w)  # noqa: E731
            yield f"{mode} drawing token by token, {first}", chosen.draws, draw

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    measure(tasks(), {"torch": name}, flags.FLAGS.found, flags.FLAGS.until)


def table(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The device, for each task medians and ratios PyTorch / ours, and what is missing."""
    device: dict[str, Any] = {}
    known: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for part, lines in found.items():
        for line in lines:
            device |= line.get("device", {})
            name = line.get("task", "")
            if "missing" in line:
                missing[f"{part}: {name}"] = line["missing"]
            elif name:
                known[name if part == "jax" else f"torch {name}"] = line
    rows = []
    for task, ours in known.items():
        if task.startswith("torch "):
            continue
        seconds = statistics.median(ours["seconds"])
        row = {"task": task, "jax": seconds, "images_per_second": ours["images"] / seconds}
        row["compiling"] = ours["first"] - seconds
        for mode in MODES:
            if theirs := known.get(f"torch {mode} {task}"):
                row[f"torch {mode}"] = statistics.median(theirs["seconds"])
                row[f"{mode} / jax"] = row[f"torch {mode}"] / seconds
        rows.append(row)
    return {"device": device, "rows": rows, "missing": missing, "found": found}


def show(result: dict[str, Any]) -> None:
    """Print the table, and what is not in it."""
    print(f"\n{result['device']}; {result['versions']}; tests: {result['tests']['summary']}")
    print("| task, bfloat16 | JAX, s | images/s | PyTorch eager / JAX | compiled / JAX |")
    print("| --- | --- | --- | --- | --- |")
    for row in result["rows"]:
        ratios = [f"{row[k]:.2f}" if (k := f"{mode} / jax") in row else "" for mode in MODES]
        speed = f"{row['jax']:.4f} | {row['images_per_second']:.1f}"
        print(f"| {row['task']} | {speed} | {ratios[0]} | {ratios[1]} |")
    for name, why in result["missing"].items():
        print(f"not measured: {name}: {why}")


if __name__ == "__main__":
    define_flags()
    app.run(lambda _: main())
