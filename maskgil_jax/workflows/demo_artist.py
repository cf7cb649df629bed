"""What people ask a demo page to draw, drawn together: images of several seeds in one batch.

Letters: B images, h w grid, S steps.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.conditioning import choice, speech
from maskgil_jax.generation import images
from maskgil_jax.generation.pipelines import Pipeline
from maskgil_jax.models.token_models.conditions import Features
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.pretrained import checked_decoding
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.pretrained.text_encoder import TextEncoder
from maskgil_jax.runtime.errors import InputError

Grid = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class DrawingRequest:
    """Some images of one condition.

    Attributes:
      condition: a class id, a prompt, or float32 [samples] of speech at audio.RATE; None for an
        unconditional model.
      num: images.
      seed: of them; image i is image i of maskgil_jax.sample with the same seed and options.
      grid: (height, width) in tokens.
      method: a key of `Artist.methods`.
      options: of decoding, sorted by name; those of the masked steps.
      prefix: tokens that the method "hybrid" draws one by one.
    """

    condition: Any
    num: int
    seed: int
    grid: Grid
    method: str
    options: tuple[tuple[str, Any], ...] = ()
    prefix: int = 0

    @property
    def how(self) -> tuple[Any, ...]:
        """What requests have to have in common to be drawn together."""
        return self.grid, self.method, self.options, self.prefix


class Drawing(NamedTuple):
    """What was drawn for a request.

    Attributes:
      pictures: uint8 [num, H, W, 3].
      masked: bool [S, num, h, w], tokens that were still masked after each step.
      seconds: that its batches took.
      together: images that were drawn in them, of other requests too.
    """

    pictures: np.ndarray
    masked: np.ndarray
    seconds: float
    together: int


class Artist:
    """A generator with its tokenizer and encoder, which draws requests together.

    Attributes:
      generator: the model.
      reads: "classes", "prompts", "speech" or "nothing".
      methods: that the model has.
    """

    def __init__(self, pipeline: Pipeline, most: int = 16):
        """Take the models, and read the encoder if the generator has one.

        Args:
          pipeline: of them.
          most: images at once.

        Raises:
          InputError: the encoder is not there; or the generator takes features of files.
        """
        generator = pipeline.generator
        self.generator, self.most = generator, most
        self.downsample = pipeline.tokenizer.downsample
        self._decode = images.decoder(pipeline.tokenizer)
        self._encoder: choice.Encoder = None
        if generator.is_unconditional:
            self.reads = "nothing"
        elif generator.num_classes:
            self.reads = "classes"
        elif isinstance(generator, PromptedGenerator):
            self.reads = "prompts"
        else:
            self._encoder = pipeline.encoder
            self.reads = "prompts" if isinstance(self._encoder, TextEncoder) else "speech"
        both = generator.has_causal_prefix
        self._causal = generator.as_causal() if both else generator
        self.methods = ["autoregressive"] if generator.kind == "causal" else ["masked"]
        self.methods += ["autoregressive", "hybrid"] if both else []

    def draw(self, requests: Sequence[DrawingRequest]) -> list[Drawing | InputError]:
        """What each request asks for, or why it cannot be drawn; those that fit are drawn together.

        An image depends on its own request alone.
        """
        results: dict[int, Drawing | InputError] = {}
        for how in dict.fromkeys(request.how for request in requests):
            places = [i for i, request in enumerate(requests) if request.how == how]
            results |= zip(places, self._drawn([requests[i] for i in places]), strict=True)
        return [results[i] for i in range(len(requests))]

    def _drawn(self, requests: Sequence[DrawingRequest]) -> list[Drawing | InputError]:
        """The same of requests that may be drawn together."""
        try:
            return self._drawn_together(requests)
        except InputError as error:
            if len(requests) == 1:
                return [error]
        # One of them is wrong, or all: each answers for itself.
        return [result for request in requests for result in self._drawn([request])]

    def _drawn_together(self, requests: Sequence[DrawingRequest]) -> list[Drawing | InputError]:
        began = time.perf_counter()
        of_rows = np.repeat(np.arange(len(requests)), [request.num for request in requests])
        indices = np.concatenate([np.arange(r.num, dtype=np.int32) for r in requests])
        keys = [checked_decoding.key(request.seed, None) for request in requests]
        conditions = self._conditions([request.condition for request in requests])
        pictures, masked = [], []
        for first in range(0, len(of_rows), self.most):
            rows = of_rows[first : first + self.most]
            # One program for each power of two, not for each number of images.
            size = min(self.most, 1 << (len(rows) - 1).bit_length())
            filled = np.pad(np.arange(first, first + len(rows)), (0, size - len(rows)), "edge")
            codes_SBhw = self._codes(
                _rows(conditions, of_rows[filled]),
                jnp.stack([keys[row] for row in of_rows[filled]]),
                indices[filled],
                requests[0],
            )[:, : len(rows)]
            pictures.append(self._decode(np.asarray(codes_SBhw[-1])))
            masked.append(np.asarray(codes_SBhw == self.generator.mask_id))
        ends = np.cumsum([request.num for request in requests])[:-1]
        seconds = time.perf_counter() - began
        return [
            Drawing(of_pictures, of_masked, seconds, len(of_rows))
            for of_pictures, of_masked in zip(
                np.split(np.concatenate(pictures), ends),
                np.split(np.concatenate(masked, axis=1), ends, axis=1),
                strict=True,
            )
        ]

    def _conditions(self, given: Sequence[Any]) -> Any:
        """A row of conditions for each that is given; texts for a model that reads them itself."""
        config = self.generator.network.config
        if self.reads == "nothing":
            return np.zeros(len(given), np.int32)
        if self.reads == "classes":
            return np.array(given, np.int32)
        if isinstance(self.generator, PromptedGenerator):
            return list(given)
        if isinstance(self._encoder, TextEncoder):
            return self._encoder.features(list(given), config.condition_tokens)
        return speech.features(
            self._encoder, list(given), config.condition_tokens, config.feature_dim
        )

    def _codes(
        self, conditions: Any, keys_B: jax.Array, start_B: np.ndarray, how: DrawingRequest
    ) -> np.ndarray:
        """Codes after each step, int32 [S, B, h, w], `mask_id` where masked."""
        options = dict(how.options)
        draw: dict[str, Any] = dict(start=start_B, grid=how.grid)
        if how.method == "autoregressive":
            codes = self._causal.sample(conditions, keys_B, **draw, **options)
            return self._in_order(np.asarray(codes))
        if how.method == "masked":
            steps = self.generator.sample(conditions, keys_B, history=True, **draw, **options)
            return np.asarray(steps)
        guidance = {"guidance": options["guidance"]} if "guidance" in options else {}
        prefix = self._causal.sample(conditions, keys_B, tokens=how.prefix, **draw, **guidance)
        steps = self.generator.sample(
            conditions,
            keys_B,
            codes=prefix,
            prefix=how.prefix,
            history=True,
            **draw,
            **options,
        )
        return np.concatenate([np.asarray(prefix)[None], np.asarray(steps)])

    def _in_order(self, codes_Bhw: np.ndarray, moments: int = 8) -> np.ndarray:
        """What was drawn token by token, at some moments: int32 [moments, B, h, w]."""
        B, *grid = codes_Bhw.shape
        order = cast(Llama, self._causal.network).order(*grid)
        order = order[order >= 0]  # without the ends of lines
        steps = np.repeat(codes_Bhw.reshape(1, B, -1), moments, axis=0)
        for moment, codes in enumerate(steps, 1):
            codes[:, order[len(order) * moment // moments :]] = self.generator.mask_id
        return steps.reshape(moments, B, *grid)


def _rows(conditions: Any, places: np.ndarray) -> Any:
    if isinstance(conditions, list):
        return [conditions[place] for place in places]
    if isinstance(conditions, Features):
        return Features(*(x[places] for x in conditions))
    return conditions[places]


def frames(drawing: Drawing, gray: int = 128) -> np.ndarray:
    """The pictures after each step, gray where tokens are masked: uint8 [S + 1, num, H, W, 3].

    The first are all masked. A token that is known is shown as in the last picture.
    """
    num, height, width, _ = drawing.pictures.shape
    start = np.ones_like(drawing.masked[:1])
    masked = np.concatenate([start, drawing.masked])
    rows, columns = height // masked.shape[2], width // masked.shape[3]
    covered = masked.repeat(rows, axis=2).repeat(columns, axis=3)[..., None]
    return np.where(covered, np.uint8(gray), drawing.pictures[None])
