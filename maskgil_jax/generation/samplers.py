"""Pictures out of models, batch by batch, one compiled shape."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.conditioning.base import identity
from maskgil_jax.data.images.pixel_levels import to_uint8
from maskgil_jax.decoding import autoregressive, masked
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.pretrained import generators
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer, load_generator, load_tokenizer
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError


def options_of(causal: bool) -> tuple[str, ...]:
    """Names of the decoding options of a model."""
    kind = autoregressive.Options if causal else masked.Options
    return tuple(field.name for field in dataclasses.fields(kind))


def checked_options(settings: ConfigDict, network: Any) -> dict[str, Any]:
    """The options of a generator's `sample` among a config's `samples`.

    Args:
      settings: the config's.
      network: config of the network.

    Raises:
      InputError: options that no decoding with this network can use.
    """
    options = {name: settings[name] for name in options_of(network.causal)}
    try:
        if network.causal:
            generators.options_of_causal(options)
        else:
            generators.plan_of(network, network.grid[0] * network.grid[1], options)
    except InputError as error:
        raise InputError(f"config.samples: {error}") from None
    return options


def spread(total: int, count: int) -> np.ndarray:
    """At most `count` of 0 .. total - 1, evenly spread, int64."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


# Labels, int [B], to their conditions: the class ids that they are, or features.
Conditions = Callable[[np.ndarray], Any]
# (labels [B], index of the first) -> codes [B, h, w].
Sample = Callable[[np.ndarray, int], Any]


def draw_images(
    sample: Sample, tokenizer: Tokenizer, labels: np.ndarray, batch_size: int
) -> np.ndarray:
    """An image for each label or row: uint8 [N, H, W, 3]. The batch size changes no image.

    Args:
      sample: draws the codes; `sampler` makes one of a generator.
      tokenizer: turns them into images.
      labels: int [N].
      batch_size: images drawn at once.
    """
    parts = []
    for start, count, batch in fixed_batches(labels, batch_size):
        parts.append(pixels(tokenizer, sample(batch, start))[:count])
    return np.concatenate(parts)


def pixels(tokenizer: Tokenizer, codes: Any) -> np.ndarray:
    """The images of codes [B, h, w]: uint8 [B, H, W, 3].

    Raises:
      InputError: the tokenizer gives values that are not finite.
    """
    return to_uint8(np.asarray(tokenizer.decode(codes)))


def by_class(labels: np.ndarray) -> np.ndarray:
    """Conditions of labels that are class ids."""
    return labels


def rows_of(table: Features) -> Conditions:
    """Conditions of labels that are rows of these features."""
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
    """Draws codes by `Generator.sample`: image i depends on the seed, on i and on its label.

    Args:
      generator: draws.
      seed: of all draws.
      conditions: of the sampler's labels.
      negative: of them, what guidance goes away from; None: the null condition.
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
    """Draws the first `prefix` tokens one by one, and the rest by masked decoding.

    Args:
      causal: draws the prefix, in its order.
      generator: draws the rest.
      seed: of all draws.
      prefix: tokens, 0 to all.
      prefix_options: fields of decoding.autoregressive.Options.
      conditions, negative: as in `sampler`.
      grid: (height, width) in tokens; None: that of the models.
      **options: fields of decoding.masked.Options.

    Raises:
      InputError: models of other codes, classes, encoders or grids; or options that no decoding
        with them can use.

    Source: the paper's section on hybrid generation, figures 7 to 9.
    """
    pairs = {
        name: (getattr(causal, name), getattr(generator, name))
        for name in ("kind", "codebook_size", "num_classes", *(() if grid else ("grid",)))
    }
    pairs["encoder"] = identity(causal.encoder), identity(generator.encoder)
    kinds = pairs.pop("kind")
    if kinds != ("causal", "masked"):
        raise InputError(f"hybrid decoding of models {kinds}, expected causal and masked")
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    fingerprints = [model.tokenizer.get("fingerprint") for model in (causal, generator)]
    if differing or (all(fingerprints) and len(set(fingerprints)) > 1):
        raise InputError(
            f"hybrid decoding of models that do not fit: {differing or fingerprints} (tokens of "
            "the prefix, then the others)"
        )
    causal.check_options(prefix_options, grid)
    generator.check_options(options, grid, known=prefix, negative=negative is not None)

    def sample(labels: np.ndarray, start: int) -> Any:
        away = negative(labels) if negative else None
        common: dict[str, Any] = dict(negative=away, start=start)
        condition = conditions(labels)
        codes = causal.sample(condition, seed, tokens=prefix, grid=grid, **common, **prefix_options)
        return generator.sample(condition, seed, codes=codes, **common, **options)

    return sample


def reconstruct(
    tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 [N, H, W, 3]: uint8 [N, H, W, 3] and codes int32 [N, h, w]."""
    codes = encode(tokenizer, images, batch_size)
    parts = [
        pixels(tokenizer, batch)[:count] for _, count, batch in fixed_batches(codes, batch_size)
    ]
    return np.concatenate(parts), codes


def encode(tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Codes of uint8 [N, H, W, 3]: int32 [N, h, w]."""
    parts = [
        np.asarray(tokenizer.encode(batch.astype(np.float32) / 127.5 - 1))[:count]
        for _, count, batch in fixed_batches(images, batch_size)
    ]
    return np.concatenate(parts)


def even_batch(size: int, total: int, multiple: int) -> int:
    """A batch size that divides rows evenly, so that few are added to fill up the last batch.

    Args:
      size: wanted; the result needs no more batches than this.
      total: rows.
      multiple: of which the result is one (devices).
    """
    return -(-total // (-(-total // size) * multiple)) * multiple


def fixed_batches(array: np.ndarray, size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, count, rows start .. start + count filled up with row 0 to `size`)."""
    for start in range(0, len(array), size):
        batch = array[start : start + size]
        fill = np.repeat(array[:1], size - len(batch), axis=0)
        yield start, len(batch), np.concatenate([batch, fill])


def load_pair(
    model: epath.PathLike, tokenizer: epath.PathLike, verify: bool = True
) -> tuple[Generator, Tokenizer]:
    """A Generator and the Tokenizer that it was trained with.

    Args:
      model: directory of the generator.
      tokenizer: of the tokenizer; "": the one that the generator names.
      verify: compare fingerprints with what is read, as api.load.

    Raises:
      InputError: another kind of model, or a tokenizer with other weights.
    """
    generator = load_generator(model, verify)
    known = generator.tokenizer
    tokenizer = tokenizer or known.get("path", "")
    if not tokenizer:
        raise InputError(f"{model} does not name its tokenizer; give --tokenizer=DIR")
    if tokenizer == known.get("path") and not epath.Path(tokenizer).exists():
        raise InputError(
            f"the tokenizer that {model} was trained with is no longer at {tokenizer}; give "
            "--tokenizer=DIR"
        )
    decoder = load_tokenizer(tokenizer, verify)
    if known and decoder.fingerprint != known["fingerprint"]:
        raise InputError(
            f"--tokenizer={tokenizer} has weights {decoder.fingerprint}, but {model} was trained "
            f"on codes of {known['fingerprint']} (then at {known['path']})"
        )
    if decoder.codebook_size != generator.codebook_size:
        raise InputError(
            f"--tokenizer={tokenizer} has {decoder.codebook_size} codes, but {model} has "
            f"{generator.codebook_size}"
        )
    return generator, decoder
