"""The training step and the sampler of a config, compiled for devices that are not here."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from maskgil_jax.decoding import autoregressive, masked_loop, masked_plan
from maskgil_jax.generation import samplers
from maskgil_jax.models.token_models import flops
from maskgil_jax.models.token_models.conditions import Features, Text
from maskgil_jax.models.token_models.llama_config import LlamaConfig
from maskgil_jax.pretrained import networks, presets
from maskgil_jax.runtime import compiler_options, sharding
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training import step_shapes


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
      compiler_options: by name.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    mesh: Mesh
    batch_size: int
    tokens_per_example: int
    parameters: int
    model_flops: int
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Topology(NamedTuple):
    """TPUs that are named as `2xv5e:16x16`.

    Attributes:
      slices: joined by the data center's network; 1 where the name begins with no number.
      generation: such as v5e.
      shape: of a slice.
    """

    slices: int
    generation: str
    shape: str


def topology_of(name: str) -> Topology:
    """A topology by its name; its generation is "" where it is no such name."""
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([a-z]\w*):(\S+)", name)
    return Topology(int(match[1] or 1), match[2], match[3]) if match else Topology(1, "", "")


def devices_of(name: str) -> list[Any]:
    """The devices of TPUs such as `v5p:4x4x4` or `2xv5e:16x16`, which need not be here.

    Raises:
      InputError: no such topology, or the TPU's compiler is not installed.
    """
    topology = topology_of(name)
    several = {"num_slices": topology.slices} if topology.slices > 1 else {}
    one_slice = f"{topology.generation}:{topology.shape}"
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=one_slice, **several
        ).devices
    except Exception as error:  # of various kinds
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"topology={name}: {reason}. Expected a TPU and its shape, as v5e:16x16, v5p:4x4x4 or "
            "2xv6e:16x16, and pip install -e '.[tpu]'"
        ) from None


def training_step(
    config: ConfigDict,
    mesh: Mesh,
    codebook_size: int,
    grid: tuple[int, int],
) -> Program:
    """The training step of a stage's config.

    Args:
      config: of a tokenizer or a generator.
      mesh: of devices that may be elsewhere.
      codebook_size, grid: of the codes that a generator is trained on.
    """
    options = compiler_options.check(list(mesh.devices.flat), config.compiler_options)
    sharding.check_batch(config.batch_size, config.accumulate_steps, mesh)
    if config.stage == "generator":
        network = presets.network_config(config.model, codebook_size, grid, config.loss)
        training = step_shapes.of_generator(config, network)
    else:
        training = step_shapes.of_tokenizer(config)

    function = functools.partial(training.step, config=config)
    state = jax.eval_shape(training.init)
    layout = sharding.state_shardings(state, mesh)
    by_batch = NamedSharding(mesh, sharding.BATCH)
    arguments = (
        _laid_out(state, layout),
        _laid_out(training.frozen, sharding.state_shardings(training.frozen, mesh)),
        _laid_out(training.batch, dict.fromkeys(training.batch, by_batch)),
    )
    return Program(
        function,
        arguments,
        dict(donate_argnums=0, out_shardings=(layout, None)),
        mesh,
        config.batch_size,
        training.tokens_per_example,
        _size(state.model),
        training.flops(config),
        options,
    )


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """What sampling token by token and masked sampling differ in.

    Attributes:
      function: samples codes.
      arguments: of the function after the model and the condition, shapes.
      model_flops: of one batch.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    model_flops: int


def sampling(
    config: ConfigDict,
    devices: list[Any],
    codebook_size: int,
    grid: tuple[int, int],
) -> Program:
    """All decoding steps of a generator for one batch of `config.samples`.

    Args:
      config: of a generator.
      devices: that share the weights (the tensor axis).
      codebook_size, grid: of the codes.

    Raises:
      InputError: the config's network is not a LLaMA.
    """
    mesh = sharding.make_mesh(dict(data=1, fsdp=1, tensor=-1), devices)
    network = presets.network_config(config.model, codebook_size, grid, config.loss)
    if not isinstance(network, LlamaConfig):
        raise InputError(
            f"config.model.preset = {config.model.preset}: the sampler is planned for LLaMAs only "
            "(sampler=false leaves it out)"
        )
    if network.vocabulary:  # its weights are released so
        network = dataclasses.replace(network, param_dtype=network.dtype)
    options = samplers.checked_options(config.samples, network)
    B, condition_tokens = config.samples.batch_size, config.model.condition_tokens
    shapes = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    model = _laid_out(shapes, sharding.state_shardings(shapes, mesh))
    condition = _replicated(_condition(network, B, condition_tokens), mesh)
    sample = _autoregressive_sampling if network.causal else _masked_sampling
    chosen = sample(network, condition, B, grid, options)
    return Program(
        chosen.function,
        (model, condition, *_replicated(chosen.arguments, mesh)),
        {},
        mesh,
        B,
        grid[0] * grid[1],
        _size(model),
        chosen.model_flops,
        compiler_options.options_for(devices[0]),
    )


def _condition(network: LlamaConfig, batch_size: int, tokens: int) -> Any:
    """Shapes of class ids, of prompts, or of an encoder's features, which is not planned."""
    shape = (batch_size, tokens)
    if network.vocabulary:
        return jax.eval_shape(lambda: Text(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool)))
    if not network.feature_dim:
        return jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return jax.eval_shape(
        lambda: Features(jnp.zeros((*shape, network.feature_dim)), jnp.zeros(shape, bool))
    )


def _length(condition: Any) -> int:
    """Tokens of a condition in the sequence."""
    first = jax.tree.leaves(condition)[0]
    return first.shape[1] if first.ndim > 1 else 1


def _autoregressive_sampling(
    network: LlamaConfig,
    condition: Any,
    batch_size: int,
    grid: tuple[int, int],
    options: dict[str, Any],
) -> _Sampling:
    """Sampling token by token; `options` are those of autoregressive.Options."""
    chosen = autoregressive.Options(**options)
    plan, numbers = autoregressive.plan(chosen)
    function = functools.partial(
        autoregressive.sample_codes, plan=plan, grid=grid, tokens=grid[0] * grid[1]
    )
    each = flops.forward_flops(network, condition_tokens=_length(condition))
    passes = 2 if chosen.guidance != 1.0 else 1
    return _Sampling(
        function,
        (jax.eval_shape(lambda: numbers), *_randomness()),
        batch_size * (passes * (each["layers"] + each["attention"]) + each["head"]),
    )


def _masked_sampling(
    network: LlamaConfig,
    condition: Any,
    batch_size: int,
    grid: tuple[int, int],
    options: dict[str, Any],
) -> _Sampling:
    """Masked sampling; `options` are those of masked_plan.plan."""
    tokens = grid[0] * grid[1]
    plan, numbers = masked_plan.plan(np.full(batch_size, tokens), **options)
    codes = jax.ShapeDtypeStruct((batch_size, *grid), jnp.int32)
    each = flops.forward_flops(network, condition_tokens=_length(condition))
    head = each["head"] * sum(plan.masked) // tokens
    return _Sampling(
        functools.partial(masked_loop.sample_codes, plan=plan),
        (codes, jax.eval_shape(lambda: numbers), *_randomness()),
        batch_size * (int(plan.passes * (each["layers"] + each["attention"])) + head),
    )


def _randomness() -> tuple[Any, Any]:
    """Shapes of the key, and of the number of the first image, which is folded into it."""
    return jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)


def _laid_out(tree: Any, layout: Any) -> Any:
    """Shapes with the shardings of a layout."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout
    )


def _replicated(tree: Any, mesh: Mesh) -> Any:
    return _laid_out(tree, jax.tree.map(lambda _: sharding.replicated(mesh), tree))


def _size(model: Any) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))
