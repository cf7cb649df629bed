"""From what users ask of decoding to a sampler: masked, token by token, or hybrid."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from maskgil_jax.decoding import masked_options
from maskgil_jax.generation import samplers
from maskgil_jax.generation.images import Sample
from maskgil_jax.pretrained import model_directory
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import load_generator
from maskgil_jax.runtime.errors import InputError

METHODS = {"masked": "masked", "causal": "autoregressive"}  # of a model of each kind


def chosen_sampler(
    generator: Generator,
    given: Mapping[str, Any],
    seed: int,
    conditions: samplers.Conditions = samplers.by_class,
    negative: samplers.Conditions | None = None,
    grid: tuple[int, int] | None = None,
    *,
    verify: bool = True,
    placed: Callable[[Generator], Generator] = lambda model: model,
) -> Sample:
    """The sampler that options ask for.

    Args:
      generator: the model.
      given: fields of options.Decoding that are not None, by name.
      seed: of all draws.
      conditions, negative: as in samplers.sampler.
      grid: (height, width) in tokens; None: the model's own.
      verify: compare the fingerprint of `prefix_model` with what is read.
      placed: puts `prefix_model` on the devices where `generator` is.

    Raises:
      InputError: options that do not fit the model or one another.
    """
    method, options = _method_of(generator, dict(given))
    prefix = {name: options.pop(name) for name in list(options) if name.startswith("prefix")}
    if unknown := sorted(options.keys() - set(samplers.options_of(method == "autoregressive"))):
        raise InputError(f"{unknown[0]}={options[unknown[0]]} is not an option of method={method}")
    common: dict[str, Any] = dict(conditions=conditions, negative=negative, grid=grid)
    if method != "hybrid":
        if prefix:
            raise InputError(
                f"{next(iter(prefix))} is an option of method=hybrid, not of method={method}"
            )
        return samplers.sampler(generator, seed, **common, **options)
    if prefix.get("prefix") is None or not prefix.get("prefix_model"):
        raise InputError(
            "method=hybrid needs prefix=N (tokens drawn one by one) and prefix_model=DIR"
        )
    tokens = prefix.pop("prefix")
    causal = placed(load_generator(prefix.pop("prefix_model"), verify))
    return samplers.hybrid_sampler(
        causal,
        generator,
        seed,
        prefix=tokens,
        prefix_options={name.removeprefix("prefix_"): value for name, value in prefix.items()},
        **common,
        **options,
    )


def _method_of(generator: Generator, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method, and the options with those of a preset among them."""
    method = given.pop("method", METHODS[generator.kind])
    needed = "causal" if method == "autoregressive" else "masked"
    if generator.kind != needed:
        raise InputError(f"method={method} needs a {needed} model, but it is {generator.kind}")
    preset = given.pop("preset", "")
    if not preset:
        return method, given
    if method == "autoregressive" or preset not in masked_options.PRESETS:
        raise InputError(
            f"preset={preset}: expected one of {', '.join(masked_options.PRESETS)}, for masked "
            "decoding"
        )
    return method, dataclasses.asdict(masked_options.PRESETS[preset]) | given


def description(given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What images depend on besides models and conditions, JSON-able: the seed and the options."""
    about: dict[str, Any] = {"seed": seed, "options": dict(given)}
    if prefix_model := given.get("prefix_model"):
        about["prefix_model"] = model_directory.read_description(prefix_model).get(
            "fingerprint", ""
        )
    return about
