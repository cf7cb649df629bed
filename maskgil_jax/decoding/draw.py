"""Pictures out of models, batch by batch, one compiled shape."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from maskgil_jax import checkpoint, pictures
from maskgil_jax.api import Generator, Tokenizer, load_generator, load_tokenizer
from maskgil_jax.data.images import to_uint8
from maskgil_jax.decoding import masked
from maskgil_jax.errors import InputError

OPTIONS = tuple(field.name for field in dataclasses.fields(masked.Options))


def checked_options(settings: ConfigDict, grid: tuple[int, int]) -> dict[str, Any]:
    """The options of Generator.sample among a config's `samples`.

    Raises:
      InputError: options that no decoding over this grid can use.
    """
    options = {name: settings[name] for name in OPTIONS}
    try:
        masked.plan(grid[0] * grid[1], **options)
    except ValueError as error:
        raise InputError(f"config.samples: {error}") from None
    return options


def spread_classes(num_classes: int, count: int) -> np.ndarray:
    """At most `count` class ids, evenly spread over all, int64."""
    return np.unique(np.linspace(0, num_classes - 1, min(count, num_classes)).astype(np.int64))


def draw_images(
    generator: Generator,
    tokenizer: Tokenizer,
    labels: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    **decoding: Any,
) -> np.ndarray:
    """Sample an image for each label: uint8 [N, H, W, 3]. The batch size changes no image.

    Args:
      labels: int [N].
      seed: image i depends on it, on i and on labels[i].
      batch_size: images drawn at once.
      **decoding: options of Generator.sample.
    """
    parts = []
    for start, count, batch in fixed_batches(labels, batch_size):
        codes = generator.sample(batch, seed, start=start, **decoding)
        parts.append(to_uint8(tokenizer.decode(codes))[:count])
    return np.concatenate(parts)


def reconstruct(
    tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 [N, H, W, 3]: uint8 [N, H, W, 3] and codes int32 [N, h, w]."""
    codes = encode(tokenizer, images, batch_size)
    parts = [
        to_uint8(tokenizer.decode(batch))[:count]
        for _, count, batch in fixed_batches(codes, batch_size)
    ]
    return np.concatenate(parts), codes


def encode(tokenizer: Tokenizer, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
    """Codes of uint8 [N, H, W, 3]: int32 [N, h, w]."""
    parts = [
        np.asarray(tokenizer.encode(batch.astype(np.float32) / 127.5 - 1))[:count]
        for _, count, batch in fixed_batches(images, batch_size)
    ]
    return np.concatenate(parts)


def fixed_batches(array: np.ndarray, size: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, count, rows start .. start + count filled up with row 0 to `size`)."""
    for start in range(0, len(array), size):
        batch = array[start : start + size]
        fill = np.repeat(array[:1], size - len(batch), axis=0)
        yield start, len(batch), np.concatenate([batch, fill])


def write_samples(
    model: epath.PathLike,
    tokenizer: epath.PathLike,
    output: epath.PathLike,
    *,
    classes: np.ndarray,
    per_class: int,
    seed: int,
    batch_size: int,
    **decoding: Any,
) -> None:
    """Draw `per_class` images of each class.

    Writes OUTPUT/grid.png (a labelled row per class, at most 16 columns), OUTPUT/00000.png ... and
    OUTPUT/samples.npz (`arr_0` uint8 NHWC, `labels` int64, `class_names`).

    Args:
      model: generator directory.
      tokenizer: tokenizer directory; "" is the one that the generator was trained with.
      output: directory, made if needed.
      classes: class ids.
      per_class: images of each.
      seed: of all draws.
      batch_size: images drawn at once.
      **decoding: options of Generator.sample.

    Raises:
      InputError: directories that do not fit together, or options out of range.
    """
    generator, decoder = load_pair(model, tokenizer)
    if not 0 <= min(classes) <= max(classes) < generator.num_classes:
        raise InputError(
            f"class ids from {min(classes)} to {max(classes)}, expected 0 to "
            f"{generator.num_classes - 1}"
        )
    labels = np.repeat(classes, per_class)
    images = draw_images(generator, decoder, labels, seed=seed, batch_size=batch_size, **decoding)
    output = epath.Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pictures.save(output / f"{i:05}.png", image)
    names = generator.class_names or [str(c) for c in range(generator.num_classes)]
    shown = min(per_class, 16)
    first = images.reshape(len(classes), per_class, *images.shape[1:])[:, :shown]
    grid = pictures.labelled_rows(np.concatenate(first), [names[c] for c in classes], shown)
    pictures.save(output / "grid.png", grid)
    checkpoint.write_npz(
        output / "samples.npz", arr_0=images, labels=labels, class_names=np.array(names)
    )


def load_pair(model: epath.PathLike, tokenizer: epath.PathLike) -> tuple[Generator, Tokenizer]:
    """A Generator and the Tokenizer that it was trained with.

    Raises:
      InputError: another kind of model, or a tokenizer with other weights.
    """
    generator = load_generator(model)
    known = generator.tokenizer
    tokenizer = tokenizer or known.get("path", "")
    if not tokenizer:
        raise InputError(f"{model} does not name its tokenizer; give --tokenizer=DIR")
    if tokenizer == known.get("path") and not epath.Path(tokenizer).exists():
        raise InputError(
            f"the tokenizer that {model} was trained with is no longer at {tokenizer}; give "
            "--tokenizer=DIR"
        )
    decoder = load_tokenizer(tokenizer)
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
