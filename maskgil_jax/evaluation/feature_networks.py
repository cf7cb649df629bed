"""What turns images into the features that metrics are made of.

Letters: n images, H W image, D features.
"""

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from maskgil_jax.evaluation import image_sets
from maskgil_jax.evaluation.image_sets import Block
from maskgil_jax.metrics import features, reconstruction, scores
from maskgil_jax.pretrained import model_directory
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.batches import even_batch, fixed_batches
from maskgil_jax.runtime.errors import InputError, Unreadable

INCEPTION = "Inception 2015-12-05"
PIXELS = "pixels, averaged to 8x8 RGB (no network: not comparable with FID)"
RESIZE_NAMES = {
    "tf1_bilinear": "TensorFlow 1's bilinear resize",
    "clean_bicubic": "PIL's bicubic resize of floats (clean-fid)",
}
# Batches at once: most of Inception's convolutions are no faster on several cores than on one.
AT_ONCE = 2
OF_INCEPTION = ("pool", "spatial", "logits")
OF_PAIRS = ("psnr", "ssim", "ssim_llamagen", "lpips_vgg")
OF_CAPTIONS = ("clip_score",)


class FeatureNetwork(NamedTuple):
    """A network, or what stands for one.

    Attributes:
      about: what results say of it.
      names: of the features that it gives.
      identity: JSON-able: what its numbers depend on.
      compute: a block of images to floats [n, D] by name.
      of_pairs: it takes a block of pairs instead.
    """

    about: str
    names: tuple[str, ...]
    identity: dict[str, Any]
    compute: Callable[[Block], Mapping[str, np.ndarray]]
    of_pairs: bool = False


def pixels() -> FeatureNetwork:
    """Small images as features, under the name `pixels`."""

    def compute(block: Block) -> dict[str, np.ndarray]:
        try:
            return {"pixels": features.pixel_features(block.images)}
        except ValueError as error:
            raise InputError(str(error)) from None

    return FeatureNetwork(PIXELS, ("pixels",), {"name": "pixels"}, compute)


def of_function(name: str) -> FeatureNetwork:
    """A network of the user's, under the name `features`.

    Args:
      name: MODULE:FUNCTION, which turns uint8 [n, H, W, 3] into floats [n, D].

    Raises:
      InputError: there is no such function; or, when it is called, it gives something else.
    """
    module, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"features={name}: {error}; expected MODULE:FUNCTION, which turns uint8 [N, H, W, 3] "
            "into floats [N, D]"
        ) from None

    def compute(block: Block) -> dict[str, np.ndarray]:
        values = np.asarray(function(block.images))
        if values.ndim != 2 or len(values) != len(block.images):
            raise InputError(
                f"features={name} gives {values.shape} for {len(block.images)} images, expected "
                "[N, D]"
            )
        return {"features": values}

    return FeatureNetwork(name, ("features",), {"name": name}, compute)


def inception(
    directory: str, batch_size: int, resize: str = "tf1_bilinear", stretch: bool = False
) -> FeatureNetwork:
    """Inception v3, over all devices of this process: `pool`, `spatial` and `logits`.

    Args:
      directory: of the network.
      batch_size: images at once.
      resize: key of models.inception.RESIZES.
      stretch: every image to the whole range of 0 .. 255 first, as `stretched`.

    Raises:
      InputError: the directory holds something else.
    """
    from maskgil_jax.pretrained import loading

    network = loading.load_auxiliary(directory, "inception")
    fingerprint = model_directory.fingerprint(network)

    @jax.jit
    def compute(network: Any, images: jax.Array) -> Any:
        return network(images, resize)._asdict()

    identity = {"fingerprint": fingerprint, "resize": resize, "stretch": stretch}
    run = _batched(compute, network, batch_size)
    return FeatureNetwork(
        inception_description(resize, stretch),
        OF_INCEPTION,
        identity,
        lambda block: run(stretched(block.images) if stretch else block.images),
    )


def inception_description(resize: str, stretch: bool) -> str:
    """What results say of Inception's features."""
    before = ", each image stretched to 0 .. 255" if stretch else ""
    return f"{INCEPTION}{before}, {RESIZE_NAMES[resize]} to 299"


def stretched(images: np.ndarray) -> np.ndarray:
    """Each image's range of values, over all its channels, stretched to 0 .. 255 and truncated.

    Args:
      images: uint8 [n, H, W, 3].

    Returns:
      uint8 [n, H, W, 3]; an image of one value is black.

    Source: Besnier's MaskGIT-pytorch (v1.0), Metrics/sample_and_eval.py, remap_image_torch, in
    float32. Not under jit: XLA divides by multiplying, which changes the truncated values.
    """
    x = images.astype(np.float32)
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    return ((x - low) / np.maximum(high - low, np.float32(1)) * np.float32(255)).astype(np.uint8)


def of_pairs(names: Iterable[str], lpips: str, batch_size: int) -> FeatureNetwork:
    """What compares each reconstruction with its original, as features [n, 1].

    Args:
      names: of OF_PAIRS, to be computed.
      lpips: directory of that network, for "lpips_vgg".
      batch_size: pairs at once.

    Raises:
      InputError: the directory holds something else; or, when it is called, images are too small.
    """
    functions: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "psnr": reconstruction.psnr_of_each,
        "ssim": reconstruction.ssim_of_each,
        "ssim_llamagen": functools.partial(reconstruction.ssim_of_each, data_range=510),
    }
    fingerprint = ""
    if "lpips_vgg" in names:
        functions["lpips_vgg"], fingerprint = _lpips(lpips, batch_size)
    computed = tuple(sorted({*names} & {*functions}))

    def compute(block: Block) -> dict[str, np.ndarray]:
        reconstructions, originals = block.images[:, 0], block.images[:, 1]
        try:
            return {name: functions[name](originals, reconstructions)[:, None] for name in computed}
        except ValueError as error:
            raise InputError(str(error)) from None

    identity = {"name": "pairs", "features": computed, "lpips": fingerprint}
    return FeatureNetwork("pairs", computed, identity, compute, of_pairs=True)


def _lpips(
    directory: str, batch_size: int
) -> tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]:
    """LPIPS of each image, [n], and the network's fingerprint."""
    from maskgil_jax.pretrained import loading

    network = loading.load_auxiliary(directory, "lpips")

    @jax.jit
    def distance(network: Any, pairs: jax.Array) -> dict[str, jax.Array]:
        x, y = (pairs[:, i] / 127.5 - 1 for i in range(2))
        return {"distance": network(x, y)}

    run = _batched(distance, network, batch_size)

    def of_each(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
        if min(originals.shape[1:3]) < 16:
            raise ValueError(
                f"images of {originals.shape[1]} x {originals.shape[2]} pixels, expected sides of "
                "16 or more for LPIPS"
            )
        return run(np.stack([originals, reconstructions], axis=1))["distance"]

    return of_each, model_directory.fingerprint(network)


def of_captions(directory: str, batch_size: int, prefix: str = "") -> FeatureNetwork:
    """CLIP, which says how near each image is to its caption: `clip_score`, [n, 1].

    Args:
      directory: of the network.
      batch_size: images, or captions, at once.
      prefix: what all captions begin with.

    Raises:
      InputError: the directory holds something else; or, when it is called, no captions.
    """
    from maskgil_jax.pretrained import clip_encoder, loading

    encoder = loading.load_clip(directory)

    def embeddings(embed: Callable[[Any, jax.Array], jax.Array]) -> Any:
        return _batched(lambda net, x: {"e": embed(net, x)}, encoder.network, batch_size)

    of_images, of_texts = map(embeddings, (clip_encoder.of_images, clip_encoder.of_texts))

    def compute(block: Block) -> dict[str, np.ndarray]:
        try:
            captions = block.read_captions() if block.read_captions else ()
        except Unreadable as error:
            raise InputError(f"{error}: expected a caption of every image, for its score") from None
        ids_BT = encoder.tokenize([prefix + caption for caption in captions])
        images, texts = of_images(encoder.cropped(block.images)), of_texts(ids_BT)
        return {"clip_score": scores.clip_score_of_each(images["e"], texts["e"])[:, None]}

    return FeatureNetwork(
        encoder.about, OF_CAPTIONS, {"fingerprint": encoder.fingerprint, "prefix": prefix}, compute
    )


def _batched(
    compute: Callable[[Any, jax.Array], Any], network: Any, batch_size: int
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """`compute` in batches of one shape, each spread over the devices of this process."""
    mesh = sharding.local_mesh()
    size = even_batch(batch_size, image_sets.BLOCK, mesh.size)
    network = jax.device_put(network, sharding.replicated(mesh))

    def one(numbered: tuple[int, int, np.ndarray]) -> dict[str, np.ndarray]:
        _, count, batch = numbered
        features = compute(network, jax.device_put(batch, sharding.batch(mesh)))
        return {name: np.asarray(values)[:count] for name, values in features.items()}

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            batches = list(pool.map(one, fixed_batches(images, size)))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    return run
