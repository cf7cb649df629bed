"""CLIP as a user holds it: images and captions to vectors of one space.

Letters: B images or captions, H W image, S side of an image that the network takes, T tokens, E
width of the embeddings.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from PIL import Image

from maskgil_jax.data.images import cropping
from maskgil_jax.models.encoders.clip import Clip, ClipConfig
from maskgil_jax.pretrained import networks
from maskgil_jax.pretrained.prompts import read_tokenizer
from maskgil_jax.pretrained.text_encoder import check_texts
from maskgil_jax.runtime.errors import InputError

log = logging.getLogger("maskgil_jax")

VOCABULARY = "tokenizer.json"  # the file of Hugging Face's tokenizers
START, END = "<|startoftext|>", "<|endoftext|>"


class ClipEncoder(networks.PretrainedNetwork):
    """Images and captions to embeddings, whose cosines say how well they go together.

    Attributes:
      network: the module.
    """

    kind = "clip"

    def __init__(
        self, network: Clip, vocabulary: bytes, path: str = "", fingerprint: str | None = None
    ):
        """Take a network, and the content of its tokenizer.json."""
        super().__init__(network, path, fingerprint, {VOCABULARY: vocabulary})
        self._tokenizer = read_tokenizer(vocabulary)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._start = _checked_start(self._tokenizer, network.config)
        self._said_cut = False

    @property
    def width(self) -> int:
        """E."""
        return self.network.config.width

    @property
    def about(self) -> str:
        """What results say of it."""
        c = self.network.config
        return (
            f"CLIP, ViT of {c.image_layers} layers and width {c.image_dim} with patches of "
            f"{c.patch_size} at {c.image_size} pixels, {self.width} numbers, weights "
            f"{self.fingerprint}"
        )

    def tokenize(self, captions: Sequence[str]) -> np.ndarray:
        """Token ids, int32 [B, T], of as many tokens as the network has positions.

        The first begins a text, and `text_end` of the config ends it and fills it up; a longer text
        loses its end, which the log says once.

        Raises:
          InputError: one string instead of several, or one with half a character.
        """
        check_texts(captions)
        config = self.network.config
        most = config.text_positions - 2  # beside the beginning and the end
        ids_BT = np.full((len(captions), config.text_positions), config.text_end, np.int32)
        for row, caption in enumerate(captions):
            ids = self._tokenizer.encode(caption, add_special_tokens=False).ids
            if len(ids) > most and not self._said_cut:
                self._said_cut = True
                log.info("captions of more than %d tokens lose their end, as %r", most, caption)
            ids = [self._start, *ids[:most]]
            ids_BT[row, : len(ids)] = ids
        return ids_BT

    def cropped(self, images: np.ndarray) -> np.ndarray:
        """Images as the network takes them, uint8 [B, S, S, 3], of uint8 [B, H, W, 3]."""
        side = self.network.config.image_size

        def crop(image: np.ndarray) -> np.ndarray:
            return cropping.bicubic_crop(Image.fromarray(image), side)

        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(crop, images)))

    def image_embeddings(self, images: np.ndarray) -> jax.Array:
        """Embeddings of images, float32 [B, E], not normalised, computed as one batch.

        Args:
          images: uint8 [B, H, W, 3] of any size; the short side is scaled and the middle cut out.

        Raises:
          InputError: something else.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise InputError(f"images are {images.dtype} {images.shape}, expected uint8 [B,H,W,3]")
        return of_images(self.network, self.cropped(images))

    def text_embeddings(self, captions: Sequence[str]) -> jax.Array:
        """Embeddings of captions, float32 [B, E], not normalised, computed as one batch.

        Raises:
          InputError: as `tokenize`.
        """
        return of_texts(self.network, self.tokenize(captions))


@jax.jit
def of_images(network: Clip, images_BSS3: jax.Array) -> jax.Array:
    """The network's embeddings of images of its size, with exact products on any device."""
    with jax.default_matmul_precision("highest"):
        return network.image_embeddings(images_BSS3)


@jax.jit
def of_texts(network: Clip, ids_BT: jax.Array) -> jax.Array:
    """The network's embeddings of token ids; as `of_images`."""
    with jax.default_matmul_precision("highest"):
        return network.text_embeddings(ids_BT)


def _checked_start(tokenizer: Any, config: ClipConfig) -> int:
    """The id that begins a text; InputError where the tokenizer is of another network."""
    start, end = (tokenizer.token_to_id(name) for name in (START, END))
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if start is None or end != config.text_end or largest >= config.vocabulary:
        raise InputError(
            f"{VOCABULARY} has {START} = {start}, {END} = {end} and ids up to {largest}, expected "
            f"a beginning, the end {config.text_end} and ids up to {config.vocabulary - 1}: those "
            "of the network"
        )
    return int(start)
