"""The programs of a config, compiled for devices that are not here."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from maskgil_jax.decoding import autoregressive, masked, masked_loop
from maskgil_jax.generation import samplers
from maskgil_jax.models.perceptual.lpips import LPIPS, LPIPSConfig
from maskgil_jax.models.token_models import flops
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.planning.arithmetic import traced_flops
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import generator_step, tokenizer_stage, tokenizer_step


@dataclasses.dataclass(frozen=True)
class Program:
    """One jitted function at its full size, of shapes only.

    Attributes:
      function: of `arguments`.
      arguments: trees of ShapeDtypeStruct with shardings.
      options: of jax.jit.
      mesh: it runs on.
      batch_size: images of one call, over all devices.
      tokens_per_example: of an image.
      parameters: of the network, or of the networks together.
      model_flops: of one call without what is computed twice.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    mesh: Mesh
    batch_size: int
    tokens_per_example: int
    parameters: int
    model_flops: int


STEPS: dict[str, Callable[..., Any]] = {
    "generator": generator_step.step,
    "tokenizer": tokenizer_step.step,
}


def devices_of(topology: str) -> list[Any]:
    """The devices of a TPU topology such as `v5p:4x4x4`, which need not be here.

    Raises:
      InputError: no such topology, or the TPU's compiler is not installed.
    """
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # of various kinds
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"--topology={topology}: {reason}. Expected a TPU and its shape, as v5e:16x16, "
            "v5p:4x4x4 or v6e:16x16, and pip install -e '.[tpu]'"
        ) from None


def training_step(
    config: ConfigDict, mesh: Mesh, codebook_size: int, grid: tuple[int, int]
) -> Program:
    """The training step of a stage's config.

    Args:
      config: of a tokenizer or a generator.
      mesh: of devices that may be elsewhere.
      codebook_size, grid: of the codes that a generator is trained on.
    """
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    B, step = config.batch_size, STEPS[config.stage]
    if config.stage == "generator":
        network = presets.network_config(config.model, codebook_size, grid)
        shapes: dict[str, Any] = {"codes": ((B, *grid), jnp.int32)}
        if config.model.feature_dim:  # of code shards that hold them
            tokens = config.model.condition_tokens
            shapes["features"] = ((B, tokens, config.model.feature_dim), jnp.float32)
            shapes["mask"] = ((B, tokens), jnp.bool_)
        else:
            shapes["label"] = ((B,), jnp.int32)
        init = lambda: generator_step.init(config, network, None)  # noqa: E731
        frozen: Any = generator_step.Frozen()
        tokens_per_example = grid[0] * grid[1]
    else:
        networks_of = (
            tokenizer_stage.tokenizer_config(config),
            tokenizer_stage.discriminator_config(config),
        )
        side = config.data.image_size
        shapes = {"image": ((B, side, side, 3), jnp.uint8)}
        init = lambda: tokenizer_step.init(config, *networks_of, {})  # noqa: E731
        frozen = None
        if config.loss.perceptual_weight:
            lpips = LPIPSConfig(dtype=config.model.dtype)
            frozen = jax.eval_shape(lambda: LPIPS(lpips, jax.random.key(0)))
        tokens_per_example = (side // 2 ** (len(config.model.channel_multipliers) - 1)) ** 2
    state = jax.eval_shape(init)
    layout = sharding.state_shardings(state, mesh)
    by_batch = NamedSharding(mesh, sharding.BATCH)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=by_batch)
        for name, (shape, dtype) in shapes.items()
    }

    function = functools.partial(step, config=config)
    frozen = _laid_out(frozen, sharding.state_shardings(frozen, mesh))
    arguments = (_laid_out(state, layout), frozen, batch)
    if config.stage == "generator" and isinstance(network, LlamaConfig):
        model_flops = flops.training_flops(network, B)
    else:
        model_flops = traced_flops(jax.jit(function).trace(state, frozen, batch).jaxpr.jaxpr)
    return Program(
        function,
        arguments,
        dict(donate_argnums=0, out_shardings=(layout, None)),
        mesh,
        B,
        tokens_per_example,
        _size(state.model),
        model_flops,
    )


def sampling(config: ConfigDict, device: Any, codebook_size: int, grid: tuple[int, int]) -> Program:
    """All decoding steps of a generator for one batch of `config.samples`, on one device."""
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=1), [device])
    network = presets.network_config(config.model, codebook_size, grid)
    if not isinstance(network, LlamaConfig):
        raise InputError(
            f"config.model.preset = {config.model.preset}: the sampler is planned for LLaMAs only "
            "(--nosampler leaves it out)"
        )
    options = samplers.checked_options(config.samples, network)
    B, tokens = config.samples.batch_size, grid[0] * grid[1]
    model = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    condition: Any = jax.ShapeDtypeStruct((B,), jnp.int32)
    if network.feature_dim:  # made by an encoder, which is not a part of this program
        shape = (B, network.condition_tokens)
        condition = jax.eval_shape(
            lambda: Features(jnp.zeros((*shape, network.feature_dim)), jnp.zeros(shape, bool))
        )
    each = flops.forward_flops(network)
    start = jax.ShapeDtypeStruct((), jnp.int32)
    function: Callable[..., Any]
    if network.causal:
        chosen = autoregressive.Options(**options)
        function = functools.partial(
            autoregressive.sample_codes, options=chosen, grid=grid, tokens=tokens
        )
        arguments: tuple[Any, ...] = (model, condition, key, start)
        passes = 2 if chosen.guidance != 1.0 else 1
        model_flops = B * (passes * (each["layers"] + each["attention"]) + each["head"])
    else:
        plan, counts_SB = masked.plan(np.full(B, tokens), **options)
        function = functools.partial(masked_loop.sample_codes, plan=plan)
        codes = jax.ShapeDtypeStruct((B, *grid), jnp.int32)
        counts = jax.ShapeDtypeStruct(counts_SB.shape, counts_SB.dtype)
        arguments = (model, condition, codes, counts, key, start)
        passes = sum(1 + (scale != 1) for scale in plan.guidance)
        head = each["head"] * sum(plan.hidden) // tokens
        model_flops = B * (passes * (each["layers"] + each["attention"]) + head)
    return Program(
        function, _replicated(arguments, mesh), {}, mesh, B, tokens, _size(model), model_flops
    )


def compiled(program: Program) -> tuple[jax.stages.Compiled, int, float]:
    """The program compiled, the FLOPs that were traced of it, and the seconds that it took."""
    start = time.monotonic()
    with jax.set_mesh(program.mesh):
        traced = jax.jit(program.function, **program.options).trace(*program.arguments)
        result = traced.lower(lowering_platforms=("tpu",)).compile()
    return result, traced_flops(traced.jaxpr.jaxpr), time.monotonic() - start


def _laid_out(tree: Any, layout: Any) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout
    )


def _replicated(tree: Any, mesh: Mesh) -> Any:
    return _laid_out(tree, jax.tree.map(lambda _: sharding.replicated(mesh), tree))


def _size(model: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model))
