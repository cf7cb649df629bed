"""Image tokenizers as a user holds them: images to codes and back.

Letters: B batch, H W image, h w grid, C codebook dimension.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy.typing as npt

from maskgil_jax.models.tokenizers.vq import VQTokenizer
from maskgil_jax.pretrained import networks
from maskgil_jax.runtime import device_memory, each_device
from maskgil_jax.runtime.errors import InputError


class Tokenizer(networks.PretrainedNetwork):
    """Images to codes and back.

    The methods may be called under jit. Values cannot be read there: images beyond [-1, 1] are then
    encoded as they are, and codes that do not exist give NaN pixels.
    """

    kind = "tokenizer"

    def __init__(self, network: VQTokenizer, path: str = "", fingerprint: str | None = None):
        super().__init__(network, path, fingerprint)

    def __repr__(self) -> str:
        codes = f"{self.codebook_size} codes"
        pixels = f"a token for {self.downsample} x {self.downsample} pixels"
        return networks.representation(self, codes, pixels, path=self._path)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.network.config.codebook_size

    @property
    def downsample(self) -> int:
        """Pixels per token and side."""
        return self.network.config.downsample

    @property
    def provenance(self) -> dict[str, Any]:
        """What code shards and generators record of the tokenizer that they depend on."""
        sizes = {"codebook_size": self.codebook_size, "downsample": self.downsample}
        return super().provenance | sizes

    def encode(self, images: npt.ArrayLike, memory: float | None = None) -> jax.Array:
        """Codes of images.

        Args:
          images: float32 [B, H, W, 3] in [-1, 1], sides multiples of `downsample`.
          memory: bytes of each device that may be taken beside the weights; None: what is free.

        Returns:
          int32 [B, h, w].

        Raises:
          InputError: wrong shape, dtype or range; or latents that are not finite.
          TooLarge: an InputError, more images than the memory allows.
        """
        checked = self._checked_images(images)
        B, height, width, _ = checked.shape
        what = f"encoding {B} image{'s' if B > 1 else ''} of {height} x {width} pixels"
        codes, finite = self._run(memory, what, _encode, checked)
        self._check_finite(finite, "latents")
        return codes

    def latents(self, images: npt.ArrayLike) -> jax.Array:
        """What the quantiser sees, before normalisation: float32 [B, h, w, C]; as `encode`."""
        return _latents(self.network, self._checked_images(images))

    def decode(self, codes: npt.ArrayLike, memory: float | None = None) -> jax.Array:
        """Images of codes.

        Args:
          codes: integers [B, h, w] in 0 .. codebook_size - 1.
          memory: bytes of each device that may be taken beside the weights; None: what is free.

        Returns:
          float32 [B, H, W, 3], nominally in [-1, 1], not clipped.

        Raises:
          InputError: wrong shape, dtype or range; or pixels that are not finite.
          TooLarge: an InputError, more images than the memory allows.
        """
        codes = networks.checked_codes(codes, self.codebook_size)
        what = f"decoding {networks.images_of(codes.shape)}"
        images, finite = self._run(memory, what, _decode, codes)
        self._check_finite(finite, "pixels")
        return images

    def _run(self, memory: float | None, what: str, function: Any, rows: jax.Array) -> Any:
        """What a function of the network and a batch gives, each of which is of rows."""
        layout = (each_device.WHOLE, each_device.ROWS)
        program, _ = each_device.of(self.network, len(rows), function, layout, each_device.ROWS)
        return device_memory.run_within(memory, what, program, self.network, rows)

    def _check_finite(self, finite: jax.Array, what: str) -> None:
        if not isinstance(finite, jax.core.Tracer) and not finite.all():
            raise InputError(
                f"{self._path or 'this tokenizer'} gives {what} that are not finite: its weights "
                "are damaged, or overflow"
            )

    def _checked_images(self, images: npt.ArrayLike) -> jax.Array:
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(f"images have shape {images.shape}, expected [B, H, W, 3]")
        if images.shape[1] % self.downsample or images.shape[2] % self.downsample:
            raise InputError(
                f"images are {images.shape[1]} x {images.shape[2]} pixels, expected sides that "
                f"are multiples of {self.downsample}"
            )
        if images.dtype != jnp.float32:
            raise InputError(f"images are {images.dtype}, expected float32 in [-1, 1]")
        if isinstance(images, jax.core.Tracer):
            return images
        low, high = float(images.min()), float(images.max())
        if not -1.001 <= low <= high <= 1.001:
            raise InputError(f"images range from {low:g} to {high:g}, expected [-1, 1]")
        return images


@jax.jit
def _encode(network: VQTokenizer, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    latents = network.latents(images)
    return network.codes(latents), _finite_rows(latents)


@jax.jit
def _latents(network: VQTokenizer, images: jax.Array) -> jax.Array:
    return network.latents(images)


@jax.jit
def _decode(network: VQTokenizer, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
    images = network.decode(codes)
    return images, _finite_rows(images)


def _finite_rows(x: jax.Array) -> jax.Array:
    """Whether all of a row is finite: bool [B]."""
    return jnp.isfinite(x).all(axis=tuple(range(1, x.ndim)))
