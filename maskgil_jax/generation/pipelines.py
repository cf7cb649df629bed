"""A generator and its tokenizer as one callable: prompts or classes in, PIL images out."""

import functools
import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from etils import epath
from PIL import Image

from maskgil_jax.conditioning import choice
from maskgil_jax.generation import editing, images, picture_files, requests, samplers
from maskgil_jax.generation.decoding_arguments import DecodingArguments, with_decoding
from maskgil_jax.generation.options import Decoding
from maskgil_jax.generation.picture_files import MaskLike, Picture
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained import loading
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.runtime.errors import InputError

Class = int | str  # an id, a name, "all" or a range such as "0-99"
PathLike = str | os.PathLike[str]


def pipeline(
    directory: epath.PathLike,
    *,
    tokenizer: epath.PathLike = "",
    encoder: str = "",
    verify: bool = True,
    tensor: int = 1,
) -> "Pipeline":
    """Read a generator and what it needs to draw.

    Args:
      directory: of the generator.
      tokenizer, encoder: directories of these; "": those that the generator names. The encoder is
        read when it is needed.
      verify, tensor: as `load`.

    Raises:
      InputError: as `load`; or a tokenizer that is not there, or is not the generator's.
    """
    pair = loading.load_pair(directory, tokenizer, verify, tensor)
    return Pipeline(*pair, encoder=encoder, verify=verify)


class Pipeline:
    """Draws images of conditions, and redraws parts of images.

    Attributes:
      generator: conditions to codes.
      tokenizer: codes to images and back.
    """

    def __init__(
        self, generator: Generator, tokenizer: Tokenizer, *, encoder: str = "", verify: bool = True
    ):
        """Take both; `encoder` and `verify` as in `pipeline`. InputError if they do not fit."""
        if tokenizer.codebook_size != generator.codebook_size:
            raise InputError(
                f"the tokenizer has {tokenizer.codebook_size} codes, but the generator has "
                f"{generator.codebook_size}: expected the tokenizer that it was trained with"
            )
        self.generator = generator
        self.tokenizer = tokenizer
        self._encoder_directory = encoder
        self._verify = verify

    def __repr__(self) -> str:
        return f"Pipeline({self.generator!r}, {self.tokenizer!r})"

    @with_decoding
    def __call__(
        self,
        condition: Class | Sequence[Class] | None = None,
        *,
        classes: Class | Sequence[Class] | None = None,
        speech: PathLike | Sequence[PathLike] | None = None,
        features: PathLike | Sequence[PathLike] | None = None,
        negative_prompt: str | None = None,
        num: int = 1,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **decoding: Unpack[DecodingArguments],
    ) -> list[Image.Image]:
        """Draw images; the same arguments give the same ones.

        Args:
          condition: one or several: prompts for a model of text, class ids or names for one of
            classes. None: another one of these is given, or the model is unconditional.
          classes: class ids, names of classes, "all" or ranges such as "0-99".
          speech: recordings (wav, flac, mp3, ogg).
          features: .npy files, float [T, C].
          negative_prompt: what images should not show, for all prompts.
          num: images of each.
          size: (width, height) in pixels; None: as the model was trained.
          seed: of all images.
          batch_size: images at once, at most; it changes none.
          **decoding: steps=8, guidance=3.0, ...: the fields of options.Decoding.

        Returns:
          Images of the first condition, of the second, ...

        Raises:
          InputError: a condition that the model does not take, none or several; a size that is not
            in whole tokens; or options that do not fit the model or one another.
        """
        request = self._request(condition, classes, speech, features, negative_prompt)
        grid = None
        if size is not None:
            grid = requests.grid_of(f"{size[0]}x{size[1]}", self.tokenizer.downsample)
        sampler = samplers.from_options(
            self.generator,
            Decoding(**decoding).given(),
            seed,
            request.conditions,
            request.negative,
            grid,
            texts=request.texts,
            verify=self._verify,
        )
        labels = np.repeat(request.labels, _positive("num", num))
        at_once = min(_positive("batch_size", batch_size), len(labels))
        drawn = images.generate_images(sampler, self.tokenizer, labels, at_once)
        return [Image.fromarray(pixels) for pixels in drawn]

    @with_decoding
    def edit(
        self,
        image: Picture,
        mask: MaskLike | None = None,
        condition: Class | Sequence[Class] | None = None,
        *,
        classes: Class | Sequence[Class] | None = None,
        speech: PathLike | Sequence[PathLike] | None = None,
        features: PathLike | Sequence[PathLike] | None = None,
        negative_prompt: str | None = None,
        canvas: tuple[int, int] | None = None,
        place: tuple[int, int] | None = None,
        keep: str = "mask",
        num: int = 1,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        **decoding: Unpack[DecodingArguments],
    ) -> list[Image.Image]:
        """Redraw a part of an image, or what is around it; every result has the image's size.

        A picture of about the area that the model was trained on (half to twice as much) is drawn
        at its own size. Another is scaled; of a larger one the model sees a window around the mask.

        Args:
          image: a PIL image, uint8 [H, W, 3], or the path of a file.
          mask: white where the image is redrawn: a PIL image, bool or uint8 [H, W], the path of a
            file; or a box (left, top, right, bottom) in pixels. None: `canvas` is larger.
          condition, classes, speech, features, negative_prompt: as in `__call__`.
          canvas: (width, height) of a larger picture, which is drawn around the image.
          place: (left, top) of the image on the canvas; None: in its middle.
          keep: pixels that stay exactly as they are: "mask": all outside the mask; "tokens": those
            of tokens without a pixel of the mask; new ones are then in the colours of what is
            around them. "none": the picture is as the tokenizer decodes it.
          num: pictures of each condition.
          size: (width, height) that the whole picture is scaled to for the model; None: as above.
          seed, batch_size: as in `__call__`.
          **decoding: steps=8, guidance=3.0, ...: those fields of options.Decoding that are of
            masked decoding.

        Raises:
          InputError: as `__call__`; a mask of another size than the image; a model that is not
            masked; or neither a mask nor a canvas.
        """
        given = Decoding(**decoding).given()
        editing.check(self.generator, given, negative_prompt is not None)
        if keep not in editing.frames.KEPT:
            raise InputError(f"keep={keep!r}, expected one of {', '.join(editing.frames.KEPT)}")
        picture, masked = picture_files.prepared(image, mask, canvas, place)
        request = self._request(condition, classes, speech, features, negative_prompt)
        how = editing.Editing(
            self.generator,
            self.tokenizer,
            request,
            _positive("num", num),
            given,
            seed,
            keep,
            _positive("batch_size", batch_size),
        )
        seen_at = picture_files.seen_at(size, self.generator, self.tokenizer.downsample)
        frame = how.frame(picture, masked, seen_at)
        [(_, _, pictures)] = editing.edit([(0, frame)], how)
        return [Image.fromarray(pixels) for pixels in pictures]

    def _request(
        self,
        condition: Class | Sequence[Class] | None,
        classes: Class | Sequence[Class] | None,
        speech: PathLike | Sequence[PathLike] | None,
        features: PathLike | Sequence[PathLike] | None,
        negative_prompt: str | None,
    ) -> Request:
        """The request that these arguments make, of which one is given."""
        model = self.generator
        kinds = dict(condition=condition, classes=classes, speech=speech, features=features)
        given = [name for name, value in kinds.items() if value is not None]
        if model.is_unconditional and not given:
            return requests.of_nothing(model)
        if len(given) != 1:
            raise InputError(
                "one of condition (prompts or classes), classes, speech and features is expected, "
                f"{' and '.join(given) or 'none'} given"
            )
        values = _several(kinds[given[0]])
        if given[0] == "condition" and not model.num_classes and not model.is_unconditional:
            return self._of_prompts(values, negative_prompt)
        if negative_prompt is not None:
            raise InputError(f"negative_prompt={negative_prompt} goes with prompts")
        if speech is not None:
            paths = [os.fspath(path) for path in values]
            requests.check_recordings(paths)
            return requests.of_recordings(model, paths, self.encoder, names=paths)
        if features is not None:
            paths = [os.fspath(path) for path in values]
            return requests.of_features(requests.read_features(model, paths), paths)
        return requests.of_classes(model, values)

    def _of_prompts(self, prompts: list[Any], negative_prompt: str | None) -> Request:
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise InputError(f"prompt {prompt!r}, expected a text: {self.generator!r}")
        encoder = "" if isinstance(self.generator, PromptedGenerator) else self.encoder
        return requests.of_prompts(self.generator, prompts, encoder, self._verify, negative_prompt)

    @functools.cached_property
    def encoder(self) -> choice.Encoder:
        """Of text or speech, read when it is first needed; InputError where it is not there."""
        return choice.encoder_of(self.generator, self._encoder_directory, self._verify)


def _several(given: Any) -> list[Any]:
    single = isinstance(given, str | int | np.integer | os.PathLike)
    values = [given] if single else list(given)
    if not values:
        raise InputError("an empty list is given, expected one condition or more")
    return values


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name}={value}, expected 1 or more")
    return value
