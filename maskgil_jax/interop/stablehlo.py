"""A whole sampler, from a condition to images, that runs where JAX is and nothing of this package.

A folder of `weights.npz`, a module of jax.export for each size of a batch, `sampler_B.stablehlo`,
and a loader, `example.py`. The weights are arguments of the modules, which are small.

Letters: B batch, h w grid, H W pixels.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import autoregressive, masked_loop
from maskgil_jax.interop import decoding_arguments, export_folder, maskgil_decoder
from maskgil_jax.interop.decoding_arguments import Decoding
from maskgil_jax.models.token_models.conditions import Condition, Features, TokenModel
from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import checked_decoding, loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.runtime import sharding, trees
from maskgil_jax.runtime.errors import InputError

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT = "cpu,cuda,tpu"

EXAMPLE = '''"""Draws {batch} images with jax, flatbuffers, numpy: cd here, and python example.py"""

import jax
import numpy as np

with open("sampler_{batch}.stablehlo", "rb") as file:
    sampler = jax.export.deserialize(bytearray(file.read()))  # for {platforms}
weights = jax.device_put(dict(np.load("weights.npz")))
{condition}
seed, first = np.uint32(0), np.int32(0)  # image i depends on seed, first + i, condition
images = np.asarray(sampler.call(weights, seed, first, {given}))  # uint8 {shape}
np.save("example.npy", images)
'''
CLASSES = "classes = np.arange({batch}, dtype=np.int32) % {classes}  # class ids [{batch}]"
NOTHING = "nothing = np.zeros({batch}, np.int32)  # the model is unconditional"
FEATURES = """features = np.zeros(({batch}, {tokens}, {width}), np.float32)  # of its encoder
mask = np.ones(({batch}, {tokens}), bool)  # false at padding"""


def write(source: str, output: str, arguments: Mapping[str, Any], tokenizer: str = "") -> None:
    """Write the folder.

    Args:
      source: directory of a generator, of any network that is conditioned on classes, on features
        of text or speech, or on nothing.
      output: directory that is not there yet.
      arguments: `platforms`, some of PLATFORMS with commas in between; `batch`, sizes of batches,
        so too (1); and decoding options, see decoding_arguments.read.
      tokenizer: its directory; "": the generator's own.

    Raises:
      InputError: a model that cannot be exported, one without its tokenizer, arguments that it
        cannot be drawn with, or an output that cannot be written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("stablehlo needs flatbuffers: pip install 'maskgil_jax[stablehlo]'")
    options = dict(arguments)
    platforms = _platforms(str(options.pop("platforms", DEFAULT)))
    batches = _batches(str(options.pop("batch", 1)))
    described = loading.generator_without_weights(source)
    if isinstance(described, PromptedGenerator):
        raise InputError(
            f"source={source} reads prompts itself: stablehlo holds models of classes, of features "
            "or of no condition"
        )
    decoding = decoding_arguments.read(described, options)
    with export_folder.written(output) as folder:
        generator, decoder = loading.load_pair(source, tokenizer)
        weights = weights_of(generator.network, decoder.network)
        np.savez(folder / "weights.npz", **weights)  # type: ignore[arg-type]
        for batch in batches:
            module = exported(generator, decoder.network, decoding, batch, platforms)
            (folder / f"sampler_{batch}.stablehlo").write_bytes(module.serialize())
        size = [side * decoder.downsample for side in decoding.grid]
        text = example(generator.network.config, batches[0], platforms, size)
        (folder / "example.py").write_text(text)


def weights_of(generator: TokenModel, tokenizer: VQTokenizer) -> dict[str, np.ndarray]:
    """The weights that drawing reads, by path."""
    networks = trees.flatten({"generator": generator, "tokenizer": tokenizer})
    read = ("generator/", *(f"tokenizer/{path}" for path in maskgil_decoder.OF_DECODER))
    return {path: np.asarray(x) for path, x in networks.items() if path.startswith(read)}


def exported(
    generator: Generator,
    tokenizer: VQTokenizer,
    decoding: Decoding,
    batch: int,
    platforms: tuple[str, ...],
) -> jax.export.Exported:
    """The sampler: (weights, seed uint32, index of the first image int32, condition) -> images.

    The condition is class ids, int32 [B], or a pair of features, float32 [B, T, C], and their mask,
    bool [B, T]; images are uint8 [B, H, W, 3].
    """
    like: dict[str, Any] = {"generator": generator.network, "tokenizer": tokenizer}
    draw = drawing(generator, decoding, batch)

    def sampler(
        weights: dict[str, jax.Array], seed: jax.Array, start: jax.Array, condition: Any
    ) -> jax.Array:
        networks = trees.unflatten(like, trees.flatten(like) | weights)
        if isinstance(condition, tuple):
            condition = Features(*condition)
        codes_Bhw = draw(networks["generator"], condition, jax.random.key(seed), start)
        levels = 127.5 * networks["tokenizer"].decode(codes_Bhw) + 128  # as pixel_levels.to_uint8
        return jnp.clip(levels, 0, 255).astype(jnp.uint8)

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    weights = jax.tree.map(shape, weights_of(generator.network, tokenizer))
    condition = jax.tree.map(shape, generator.null_condition(batch))
    condition = tuple(condition) if isinstance(condition, Features) else condition
    seed, start = (jax.ShapeDtypeStruct((), kind) for kind in (jnp.uint32, jnp.int32))
    # As for CPUs, whose products and attention are plain ones: what fuses them elsewhere runs on
    # one platform, and on some of its chips.
    cpu = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices("cpu")[:1])
    with jax.set_mesh(cpu):
        export = jax.export.export(jax.jit(sampler), platforms=platforms)
        return export(weights, seed, start, condition)


def drawing(generator: Generator, decoding: Decoding, batch: int) -> Any:
    """A function (network, condition, key, start) -> codes, int32 [B, h, w], to be traced.

    Its codes are those of `Generator.sample`.
    """
    config, grid = generator.network.config, decoding.grid
    L = grid[0] * grid[1]
    is_causal, prefix = decoding.method == "autoregressive", decoding.prefix
    tokens = L if is_causal else prefix
    of_causal = checked_decoding.options_of_causal(
        config, decoding.options if is_causal else decoding.of_prefix
    )

    def causal(network: Any, condition: Condition, key: jax.Array, start: jax.Array) -> jax.Array:
        if not tokens:
            return jnp.full((batch, *grid), config.mask_id, jnp.int32)
        network = network if config.causal else network.as_causal()
        plan, numbers = autoregressive.plan(of_causal)
        return autoregressive.sample_codes(
            network, condition, numbers, key, start, plan=plan, grid=grid, tokens=tokens
        )

    if tokens == L:
        return causal
    masked = np.full(batch, L - prefix)
    plan, numbers = checked_decoding.plan_of(config, masked, decoding.options)

    def hybrid(network: Any, condition: Condition, key: jax.Array, start: jax.Array) -> jax.Array:
        codes_Bhw = causal(network, condition, key, start)
        return masked_loop.sample_codes(
            network, condition, codes_Bhw, numbers, key, start, plan=plan, prefix=prefix
        )

    return hybrid


def example(config: Any, batch: int, platforms: tuple[str, ...], size: list[int]) -> str:
    """The text of example.py."""
    given, condition = "classes", CLASSES
    if getattr(config, "feature_dim", 0):
        given, condition = "(features, mask)", FEATURES
    elif not config.num_classes:
        given, condition = "nothing", NOTHING
    condition = condition.format(
        batch=batch,
        classes=config.num_classes,
        tokens=getattr(config, "condition_tokens", 0),
        width=getattr(config, "feature_dim", 0),
    )
    return EXAMPLE.format(
        batch=batch,
        platforms=", ".join(platforms),
        condition=condition,
        given=given,
        shape=[batch, *size, 3],
    )


def _platforms(given: str) -> tuple[str, ...]:
    platforms = tuple(given.split(","))
    if unknown := [name for name in platforms if name not in PLATFORMS]:
        raise InputError(f"arg=platforms={given}: {unknown[0]} is none of {', '.join(PLATFORMS)}")
    return platforms


def _batches(given: str) -> tuple[int, ...]:
    sizes = given.split(",")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise InputError(f"arg=batch={given}: expected sizes of batches, such as 8 or 1,8")
    return tuple(map(int, sizes))
