"""Samplers: labels to codes, by a generator and decoding options.

Letters: B batch, h w grid.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from maskgil_jax.conditioning.base import identity
from maskgil_jax.decoding import autoregressive, masked_options
from maskgil_jax.generation.images import Sample
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained import generators
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

# Labels, int [B], to their conditions: the class ids that they are, or features.
Conditions = Callable[[np.ndarray], Any]


def by_class(labels: np.ndarray) -> np.ndarray:
    """Class ids as conditions: the labels themselves."""
    return labels


def rows_of(table: Features) -> Conditions:
    """Rows of these features as conditions: label i stands for row i."""
    return lambda labels: Features(*(x[labels] for x in table))


def over_devices(model: Any) -> Any:
    """A Generator or Tokenizer whose weights every device of this process holds."""
    copied = copy.copy(model)
    copied.network = jax.device_put(model.network, sharding.replicated(sharding.local_mesh()))
    return copied


def split_over_devices(conditions: Conditions) -> Conditions:
    """The same conditions, split over the devices of this process."""
    split = sharding.batch(sharding.local_mesh())
    return lambda labels: jax.device_put(conditions(labels), split)


def sampler(
    generator: Generator,
    seed: int,
    conditions: Conditions = by_class,
    negative: Conditions | None = None,
    **options: Any,
) -> Sample:
    """A sampler that calls `Generator.sample`: image i depends on the seed, on i and on its label.

    Args:
      generator: draws.
      seed: of all draws.
      conditions: of the sampler's labels.
      negative: conditions of the negative prompts of the labels; None: the null condition.
      **options: as `Generator.sample` takes them.

    Raises:
      InputError: options that no decoding with this generator can use; before anything is drawn.
    """
    decoding = {name: value for name, value in options.items() if name not in ("grid", "tokens")}
    generator.check_options(decoding, options.get("grid"), negative=negative is not None)
    return lambda labels, start: generator.sample(
        conditions(labels),
        seed,
        negative=negative(labels) if negative else None,
        start=start,
        **options,
    )


def hybrid_sampler(
    causal: Generator,
    generator: Generator,
    seed: int,
    *,
    prefix: int,
    prefix_options: dict[str, Any],
    conditions: Conditions = by_class,
    negative: Conditions | None = None,
    grid: tuple[int, int] | None = None,
    **options: Any,
) -> Sample:
    """A sampler that draws the first `prefix` tokens one by one, the rest by masked decoding.

    Args:
      causal: draws the prefix, in its order.
      generator: draws the rest.
      seed: of all draws.
      prefix: tokens, 0 to all.
      prefix_options: fields of decoding.autoregressive.Options.
      conditions, negative: as in `sampler`.
      grid: (height, width) in tokens; None: that of the models.
      **options: fields of decoding.masked_options.Options.

    Raises:
      InputError: models of other codes, classes, encoders or grids; or options that no decoding
        with them can use.

    Source: the paper's section on hybrid generation, figures 7 to 9.
    """
    _check_hybrid(causal, generator, grid)
    causal.check_options(prefix_options, grid)
    generator.check_options(options, grid, known=prefix, negative=negative is not None)

    def sample(labels: np.ndarray, start: int) -> Any:
        common: dict[str, Any] = dict(negative=negative(labels) if negative else None, start=start)
        condition = conditions(labels)
        codes = causal.sample(condition, seed, tokens=prefix, grid=grid, **common, **prefix_options)
        return generator.sample(condition, seed, codes=codes, **common, **options)

    return sample


def _check_hybrid(causal: Generator, generator: Generator, grid: tuple[int, int] | None) -> None:
    """Raise InputError unless the first model can draw a prefix for the second."""
    kinds = causal.kind, generator.kind
    if kinds != ("causal", "masked"):
        raise InputError(f"hybrid decoding of models {kinds}, expected causal and masked")
    pairs = {
        name: (getattr(causal, name), getattr(generator, name))
        for name in ("codebook_size", "num_classes", *(() if grid else ("grid",)))
    }
    pairs["encoder"] = identity(causal.encoder), identity(generator.encoder)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    fingerprints = [model.tokenizer.get("fingerprint") for model in (causal, generator)]
    if differing or (all(fingerprints) and len(set(fingerprints)) > 1):
        raise InputError(
            f"hybrid decoding of models that do not fit: {differing or fingerprints} (tokens of "
            "the prefix, then the others)"
        )


def options_of(causal: bool) -> tuple[str, ...]:
    """Names of the decoding options of a model."""
    return tuple(defaults_of(causal))


def defaults_of(causal: bool) -> dict[str, Any]:
    """The decoding options of a model by name, with their defaults."""
    kind = autoregressive.Options if causal else masked_options.Options
    return {field.name: field.default for field in dataclasses.fields(kind)}


def checked_options(settings: ConfigDict, network: Any) -> dict[str, Any]:
    """The options of a generator's `sample` among a config's `samples`.

    Args:
      settings: the config's.
      network: config of the network.

    Raises:
      InputError: options that no decoding with this network can use.
    """
    defaults = defaults_of(network.causal)
    options = {name: settings.get(name, default) for name, default in defaults.items()}
    try:
        if network.causal:
            generators.options_of_causal(options)
        else:
            generators.plan_of(network, network.grid[0] * network.grid[1], options)
    except InputError as error:
        raise InputError(f"config.samples: {error}") from None
    return options
