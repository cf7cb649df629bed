"""Samplers: labels to codes, by a generator and decoding options.

`from_options` makes the one that a user asks for: masked, token by token, or a hybrid of both.
Letters: B batch, h w grid.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from maskgil_jax.conditioning.base import identity
from maskgil_jax.decoding import autoregressive, masked_options
from maskgil_jax.generation.parts import in_parts
from maskgil_jax.generation.passes import PassCount
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained import checked_decoding, loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import generator_without_weights, load_generator
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.runtime.errors import InputError

# (labels, int [B], and the index among all images of the first, or of each) -> codes, int32
# [B, h, w].
Sampler = Callable[[np.ndarray, int | np.ndarray], Any]
# Labels, int [B], to their conditions: the class ids that they are, features, or a list of texts.
Conditions = Callable[[np.ndarray], Any]

log = logging.getLogger("maskgil_jax")


class Texts(NamedTuple):
    """What a model that reads prompts itself takes.

    Attributes:
      prompts: of labels.
      negative: negative prompts of labels; None: there are none.
    """

    prompts: Conditions
    negative: Conditions | None = None


METHODS = {"masked": "masked", "causal": "autoregressive"}  # of a model of each kind


def by_class(labels: np.ndarray) -> np.ndarray:
    """Class ids as conditions: the labels themselves."""
    return labels


def rows_of(table: Features) -> Conditions:
    """Rows of these features as conditions: label i stands for row i."""
    return lambda labels: Features(*(x[labels] for x in table))


def kept(conditions: Conditions, most: int = 2**28) -> Conditions:
    """The same conditions, which are not computed again for labels that they were asked for.

    So a sweep encodes a prompt once for all settings, and what is timed after a first draw is the
    drawing alone.

    Args:
      conditions: these.
      most: bytes that are kept; what is asked for after that is computed each time.
    """
    known: dict[bytes, Any] = {}
    room = most

    def of_labels(labels: np.ndarray) -> Any:
        nonlocal room
        key = np.asarray(labels).tobytes()
        if key in known:
            return known[key]
        computed = conditions(labels)
        size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(computed))
        if size <= room:
            known[key], room = computed, room - size
        return computed

    return of_labels


def from_options(
    generator: Generator,
    given: Mapping[str, Any],
    seed: int,
    conditions: Conditions = by_class,
    negative: Conditions | None = None,
    grid: tuple[int, int] | None = None,
    *,
    texts: Texts | None = None,
    verify: bool = True,
    tensor: int = 1,
    placed: Callable[[Generator], Generator] = lambda model: model,
    memory: float | None = None,
    devices: int = 1,
    passes: PassCount | None = None,
) -> Sampler:
    """The sampler that the options of a command ask for.

    Args:
      generator: the model.
      given: fields of options.Decoding that are not None, by name.
      seed: of all images.
      conditions, negative: as in `sampler`.
      grid: (height, width) in tokens; None: the model's own.
      texts: of the same labels, for a `prefix_model` that reads prompts itself.
      verify: compare the fingerprint of `prefix_model` with what is read.
      tensor: devices that share its weights.
      placed: puts `prefix_model` on the devices where `generator` is.
      memory: bytes of each device to stay within beside the weights; None: what is free there.
      devices: that `conditions` are split over.
      passes: counts those of all that is drawn.

    Returns:
      One that draws a batch in parts where the memory does not allow it whole.

    Raises:
      InputError: options that do not fit the model or one another.
    """
    method, options = _method_of(generator, dict(given))
    if method == "autoregressive" and generator.has_causal_prefix:
        generator = generator.as_causal()
    prefix = {name: options.pop(name) for name in list(options) if name.startswith("prefix")}
    _check_names(options, method)
    common: dict[str, Any] = dict(
        conditions=conditions,
        negative=negative,
        grid=grid,
        memory=memory,
        devices=devices,
        passes=passes,
    )
    if method != "hybrid":
        if prefix:
            name, value = next(iter(prefix.items()))
            raise InputError(
                f"{name}={value} is an option of method=hybrid, not of method={method}"
            )
        return sampler(generator, seed, **common, **options)
    first = prefix.pop("prefix_model", "")
    if prefix.get("prefix") is None or not (first or generator.has_causal_prefix):
        raise InputError(
            "method=hybrid needs prefix=N (tokens sampled one by one) and prefix_model=DIR, unless "
            "the model was trained token by token too (config.loss.autoregressive_share)"
        )
    tokens = prefix.pop("prefix")
    _check_prefix(tokens, grid or generator.grid)
    if first:
        _check_hybrid(_of_prefix(generator_without_weights(first)), generator, grid)
    return hybrid_sampler(
        placed(load_generator(first, verify, tensor)) if first else None,
        generator,
        seed,
        prefix=tokens,
        texts=texts,
        prefix_options={name.removeprefix("prefix_"): value for name, value in prefix.items()},
        **common,
        **options,
    )


def masked_options_of(generator: Generator, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of masked decoding, those of a preset among them.

    Args:
      generator, given: as in `from_options`.

    Raises:
      InputError: another method, an option of another one, or an unknown preset.
    """
    method, options = _method_of(generator, dict(given))
    if method != "masked":
        raise InputError(f"method={method}: a part of an image is redrawn by method=masked only")
    _check_names(options, method)
    return options


def _check_names(options: Mapping[str, Any], method: str) -> None:
    if unknown := sorted(options.keys() - set(options_of(method == "autoregressive"))):
        raise InputError(f"{unknown[0]}={options[unknown[0]]} is not an option of method={method}")


def _method_of(generator: Generator, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method, and the options with those of a preset among them."""
    method = given.pop("method", METHODS[generator.kind])
    needed = "causal" if method == "autoregressive" else "masked"
    if generator.kind != needed and not (needed == "causal" and generator.has_causal_prefix):
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


def in_words(options: Mapping[str, Any]) -> str:
    """`steps=8, guidance=2.0`."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def description(given: Mapping[str, Any], seed: int, generator: Generator) -> dict[str, Any]:
    """What images depend on besides weights and conditions, JSON-able: the seed and the options."""
    about: dict[str, Any] = {"seed": seed, "options": dict(given)}
    if generator.decoding:
        about["options_of_model"] = dict(generator.decoding)
    if prefix_model := given.get("prefix_model"):
        # Of a checkpoint, whose fingerprint nothing records, the name says which it is.
        about["prefix_model"] = loading.describe(prefix_model).get("fingerprint") or prefix_model
    return about


def sampler(
    generator: Generator,
    seed: int,
    conditions: Conditions = by_class,
    negative: Conditions | None = None,
    devices: int = 1,
    passes: PassCount | None = None,
    **options: Any,
) -> Sampler:
    """A sampler that calls `Generator.sample`: image i depends on the seed, on i and on its label.

    Args:
      generator: the model.
      seed: of all images.
      conditions: of the sampler's labels.
      negative: conditions of the negative prompts of the labels; None: the null condition.
      devices: that `conditions` are split over.
      passes: counts those of all that is drawn.
      **options: as `Generator.sample` takes them.

    Raises:
      InputError: options that no decoding with this generator can use; before anything is sampled.
    """
    beside = ("grid", "tokens", "memory")
    decoding = {name: value for name, value in options.items() if name not in beside}
    generator.check_options(decoding, options.get("grid"), negative=negative is not None)

    def sample(labels: np.ndarray, start: int | np.ndarray) -> Any:
        other = negative(labels) if negative else None
        given: dict[str, Any] = dict(negative=other, start=start, passes=passes)
        codes = generator.sample(conditions(labels), seed, **given, **options)
        if passes is not None:
            passes.drawn(len(labels))
        return codes

    return in_parts(sample, devices)


def hybrid_sampler(
    causal: Generator | None,
    generator: Generator,
    seed: int,
    *,
    prefix: int,
    prefix_options: dict[str, Any],
    conditions: Conditions = by_class,
    negative: Conditions | None = None,
    texts: Texts | None = None,
    grid: tuple[int, int] | None = None,
    memory: float | None = None,
    devices: int = 1,
    passes: PassCount | None = None,
    **options: Any,
) -> Sampler:
    """A sampler of the first `prefix` tokens one by one, and of the rest by masked decoding.

    Args:
      causal: generator of the prefix, in its order; None: `generator`, which is of both, and whose
        masked steps read the prefix as they did in training.
      generator: of the rest.
      seed: of all images.
      prefix: tokens, 0 to all.
      prefix_options: fields of decoding.autoregressive.Options.
      conditions, negative: as in `sampler`.
      texts: of the same labels, for a prefix's model that reads prompts itself: codes are all that
        passes from one model to the other.
      grid: (height, width) in tokens; None: that of the models.
      memory, devices, passes: as in `from_options`.
      **options: fields of decoding.masked_options.Options.

    Raises:
      InputError: models of other codes, classes, encoders or grids; or options that no decoding
        with them can use.

    Source: the paper's section on hybrid generation, figures 7 to 9.
    """
    known: dict[str, Any] = dict(prefix=prefix) if causal is None else {}
    causal = _of_prefix(causal or generator)
    _check_hybrid(causal, generator, grid)
    prompted = None
    if isinstance(causal, PromptedGenerator):
        if texts is None:
            raise InputError("the model of the prefix reads prompts: expected prompts")
        prompted = texts
    if not causal.tokenizer or not generator.tokenizer:
        log.warning(
            "%s or %s names no tokenizer: that codes of one fit the other is not verified",
            *(model.path or f"the {model.kind} model" for model in (causal, generator)),
        )
    _check_prefix(prefix, grid or generator.grid)
    causal.check_options(prefix_options, grid)
    generator.check_options(options, grid, known=prefix, negative=negative is not None)

    def sample(labels: np.ndarray, start: int | np.ndarray) -> Any:
        given, against = conditions(labels), negative(labels) if negative else None
        first, first_against = given, against
        if prompted:
            first = prompted.prompts(labels)
            first_against = prompted.negative(labels) if prompted.negative else None
        codes = causal.sample(
            first,
            seed,
            negative=first_against,
            tokens=prefix,
            grid=grid,
            start=start,
            memory=memory,
            passes=passes,
            **prefix_options,
        )
        codes = generator.sample(
            given,
            seed,
            negative=against,
            codes=codes,
            start=start,
            memory=memory,
            passes=passes,
            **known,
            **options,
        )
        if passes is not None:
            passes.drawn(len(labels))
        return codes

    return in_parts(sample, devices)


def _of_prefix(generator: Generator) -> Generator:
    """The model as it draws a prefix: one of both tasks as a causal one."""
    return generator.as_causal() if generator.has_causal_prefix else generator


def _check_prefix(tokens: int, grid: tuple[int, int]) -> None:
    height, width = grid
    if not 0 <= tokens <= height * width:
        raise InputError(
            f"prefix={tokens}, expected 0 to {height * width}: an image has {height} x {width} "
            "tokens"
        )


def _check_hybrid(causal: Generator, generator: Generator, grid: tuple[int, int] | None) -> None:
    """Raise InputError unless the first model can sample a prefix for the second."""
    kinds = causal.kind, generator.kind
    if kinds != ("causal", "masked"):
        raise InputError(f"hybrid decoding of models {kinds}, expected causal and masked")
    pairs = {
        name: (getattr(causal, name), getattr(generator, name))
        for name in ("codebook_size", "num_classes", *(() if grid else ("grid",)))
    }
    if not isinstance(causal, PromptedGenerator):
        pairs["encoder"] = identity(causal.encoder), identity(generator.encoder)
        if not generator.num_classes:  # both are given the same features
            configs = causal.network.config, generator.network.config
            for name in ("condition_tokens", "feature_dim"):
                pairs[name] = tuple(getattr(config, name) for config in configs)
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    fingerprints = [model.tokenizer.get("fingerprint") for model in (causal, generator)]
    if differing or (all(fingerprints) and len(set(fingerprints)) > 1):
        raise InputError(
            f"hybrid decoding of models that do not fit: {differing or fingerprints} (tokens of "
            "the prefix, then the others)"
        )


def options_of(causal: bool) -> tuple[str, ...]:
    """Names of the decoding options of a model."""
    kind = autoregressive.Options if causal else masked_options.Options
    return tuple(field.name for field in dataclasses.fields(kind))


def checked_options(settings: ConfigDict, network: Any) -> dict[str, Any]:
    """The options of a generator's `sample` among a config's `samples`.

    Args:
      settings: the config's.
      network: config of the network.

    Raises:
      InputError: options that no decoding with this network can use.
    """
    options = {name: settings[name] for name in options_of(network.causal) if name in settings}
    try:
        if network.causal:
            checked_decoding.options_of_causal(network, options)
        else:
            checked_decoding.plan_of(network, network.grid[0] * network.grid[1], options)
    except InputError as error:
        raise InputError(f"config.samples: {error}") from None
    return options
