"""Lumina-mGPT and Lumina-DiMOO as a user holds them: Generators that read prompts themselves.

Letters: B images, h w grid, S tokens of a sequence, T tokens of a prompt, V ids of the vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from maskgil_jax.decoding import masked_options, token_sampling
from maskgil_jax.models.token_models.conditions import Condition, Text
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.pretrained import dimoo_prompts, networks, prompts
from maskgil_jax.pretrained.dimoo_prompts import DimooVocabulary
from maskgil_jax.pretrained.generators import CausalGenerator, Generator
from maskgil_jax.pretrained.prompts import PromptVocabulary
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

# Of sample, the official ones.
CAUSAL_DEFAULTS: dict[str, Any] = dict(guidance=4.0, top_k=2000)
MASKED_DEFAULTS = dataclasses.asdict(masked_options.PRESETS["lumina_dimoo"])

Prompts = Sequence[str] | Sequence[npt.ArrayLike]
# (places among the prompts, these, negative ones) -> codes.
Draw = Callable[[np.ndarray, Text, Text | None], jax.Array]


class PromptedGenerator(Generator):
    """Codes from prompts, by a model of text and image tokens in one sequence.

    Prompts are texts, or integer arrays [T] of ids up to where the image begins, which is added to
    them: to the end of the turn in Lumina-mGPT, to the begin of the answer in Lumina-DiMOO.
    """

    network: Llama

    def __init__(self, network: Llama, *, vocabulary: bytes = b"", **known: Any):
        """Take a network, the content of its tokenizer.json, and what Generator takes by name."""
        super().__init__(network, **known)
        self.beside = {prompts.VOCABULARY: vocabulary} if vocabulary else {}
        self._vocabulary: PromptVocabulary | DimooVocabulary | None = None

    def _named_condition(self) -> str:
        return "prompts"

    def token_logits(self, ids: npt.ArrayLike) -> jax.Array:
        """Logits of the whole vocabulary, in eval mode.

        Those of a causal model are predictions of the next id; of a masked one, of the id there.

        Args:
          ids: integers [B, S], from position 0 on.

        Returns:
          float32 [B, S, V].

        Raises:
          InputError: wrong shape, dtype or range.
        """
        array, size = np.asarray(ids), self.network.config.vocabulary
        if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"ids are {array.dtype} {array.shape}, expected integers [B, S]")
        if not 0 <= array.min() <= array.max() < size:
            raise InputError(f"ids from {array.min()} to {array.max()}, expected 0 to {size - 1}")
        placed = self._placed(jnp.asarray(array, jnp.int32))
        with sharding.where_shared(self.network):
            return _token_logits(self.network, placed)

    def logits(self, codes: npt.ArrayLike, condition: Prompts) -> jax.Array:
        """As Generator.logits, from prompts."""
        checked = networks.checked_codes(codes, self.mask_id + (self.kind == "masked"))
        grid = self._checked_grid(checked.shape[1:])
        rows = self.ids(condition, grid)
        return super().logits(checked, self._text(rows, grid, max(map(self._padded, rows))))

    def ids(self, given: Prompts, grid: tuple[int, int]) -> list[list[int]]:
        """Ids of prompts for images of (height, width) tokens, to the end of the turn.

        Raises:
          InputError: no prompts, one that is too long or is no text, or texts for a model without
            its vocabulary.
        """
        if isinstance(given, str):
            raise InputError(f"prompts are one text {given[:40]!r}, expected a list of them")
        if not len(given):
            raise InputError("there are no prompts, expected one or more")
        config, rows = self.network.config, []
        for i, prompt in enumerate(given):
            name = f"prompt {i}"
            if isinstance(prompt, str):
                row = self._read_vocabulary().ids(prompt, grid)
            else:
                row = prompts.checked_ids(name, prompt, config.vocabulary)
            of_image = config.sequence.answer_length(grid)
            prompts.check_length(name, len(row), grid, of_image, config.context)
            rows.append(row)
        return rows

    def _rows(
        self, given: Prompts, negative: Prompts | None, grid: tuple[int, int]
    ) -> tuple[list[list[int]], list[list[int]] | None]:
        """Ids of prompts and of negative ones, None where there are none of these."""
        rows = self.ids(given, grid)
        against = None if negative is None else self.ids(negative, grid)
        if against is not None and len(against) != len(rows):
            raise InputError(f"{len(against)} negative prompts for {len(rows)} prompts")
        return rows, against

    def _in_groups(
        self,
        rows: Sequence[Sequence[int]],
        against: Sequence[Sequence[int]] | None,
        grid: tuple[int, int],
        draw: Draw,
        axis: int = 0,
    ) -> jax.Array:
        """Codes of ids, those drawn together that are padded to one length; `axis` is images'."""
        pairs = zip(rows, against or rows, strict=True)
        lengths_B = np.array([max(map(self._padded, pair)) for pair in pairs])
        lengths = np.unique(lengths_B)
        groups = [np.flatnonzero(lengths_B == length) for length in lengths]
        drawn = []
        for length, places in zip(lengths, groups, strict=True):
            filled = self._filled_up(places)
            text = self._text([rows[i] for i in filled.tolist()], grid, length)
            negative = None
            if against is not None:
                negative = self._text([against[i] for i in filled.tolist()], grid, length)
            codes = draw(filled, text, negative)
            drawn.append(jax.lax.slice_in_dim(codes, 0, len(places), axis=axis))
        if len(groups) == 1:
            return drawn[0]
        order = np.argsort(np.concatenate(groups))
        return jnp.take(jnp.concatenate(drawn, axis), order, axis)

    def _filled_up(self, places: np.ndarray) -> np.ndarray:
        """Places with the first again, so that they divide over the devices that draw."""
        return np.append(places, np.repeat(places[:1], -len(places) % self._shards))

    def _padded(self, row: Sequence[int]) -> int:
        """Tokens that a prompt is padded to, with what begins the image."""
        return prompts.padded_length(len(row) + self.network.config.sequence.OPENING)

    def _text(self, rows: Sequence[Sequence[int]], grid: tuple[int, int], length: int) -> Text:
        """Prompts as the network takes them, on its devices."""
        opening = self.network.config.sequence.opening(grid)
        return self._placed(Text(*map(jnp.asarray, prompts.batch(rows, opening, length))))

    def _checked_condition(self, condition: Any, batch: int | None) -> Condition:
        if batch is not None and len(condition.ids_BT) != batch:
            raise InputError(f"{len(condition.ids_BT)} prompts for {batch} images")
        return condition

    def _checked_grid(self, grid: tuple[int, ...] | None) -> tuple[int, int]:
        checked = super()._checked_grid(grid)
        try:
            self.network.config.sequence.opening(checked)
        except ValueError as error:
            raise InputError(str(error)) from None
        return checked

    def _read_vocabulary(self) -> PromptVocabulary | DimooVocabulary:
        causal = self.network.config.causal
        if not self.beside:
            advice = prompts.ADVICE if causal else dimoo_prompts.ADVICE
            raise InputError(
                f"{self.path or 'this model'} has no {prompts.VOCABULARY}: prompts have to be "
                f"arrays of ids. {advice}"
            )
        if self._vocabulary is None:
            read = PromptVocabulary if causal else DimooVocabulary
            self._vocabulary = read(self.beside[prompts.VOCABULARY])
        return self._vocabulary


class PromptedCausalGenerator(PromptedGenerator, CausalGenerator):
    """Lumina-mGPT, which draws token by token."""

    _can_draw: bool | None = None

    def null_condition(self, batch: int) -> Text:
        """What begins images of the model's own grid, and nothing before it."""
        return self._text([[]] * batch, self.grid, self.network.config.sequence.OPENING)

    def sample(  # type: ignore[override]
        self,
        condition: Prompts,
        rng: jax.Array | int | None = None,
        *,
        seed: int | None = None,
        negative: Prompts | None = None,
        tokens: int | None = None,
        grid: tuple[int, int] | None = None,
        start: int | npt.NDArray[np.int32] = 0,
        memory: float | None = None,
        **options: Any,
    ) -> jax.Array:
        """Draw images' codes token by token; all steps run in one jitted function.

        Prompts are padded to one of a few lengths, each to its own, so that an image does not
        depend on those that it is drawn with. A network that is spread over devices draws there.

        Args:
          condition: prompts, as in the class's documentation.
          rng, seed: as in Generator.sample.
          negative: prompts that guidance leads away from; None: from images without a prompt.
          tokens: to draw, the first in raster order; the rest is `mask_id`. None: all.
          grid: (height, width) in tokens; None: the model's own.
          start, memory: as in Generator.sample.
          **options: as in CausalGenerator.sample, by default guidance=4.0 and top_k=2000.

        Returns:
          int32 [B, h, w].

        Raises:
          InputError: as CausalGenerator.sample and `ids`; or a model that draws no images.
        """
        self._check_draws()
        size, key = self._checked_grid(grid), self._key(rng, seed)
        rows, against = self._rows(condition, negative, size)
        chosen = {**CAUSAL_DEFAULTS, **self.decoding, **options}

        def draw(places: np.ndarray, text: Text, negative: Text | None) -> jax.Array:
            of_places = _at(places, key, start)
            return self._drawn(text, negative, *of_places, size, tokens, memory, chosen)

        sampled_Bhw = self._in_groups(rows, against, size, draw)
        token_sampling.check_drawn(sampled_Bhw, start, self.path or "this model", options)
        return sampled_Bhw

    def check_options(
        self,
        options: Mapping[str, Any],
        grid: tuple[int, int] | None = None,
        known: int = 0,
        negative: bool = False,
    ) -> None:
        """As Generator.check_options."""
        self._check_draws()
        chosen = {**CAUSAL_DEFAULTS, **self.decoding, **options}
        super().check_options(chosen, grid, known, negative)

    def _check_draws(self) -> None:
        """Raise InputError where the head has no image codes, as Meta's."""
        if self._can_draw is None:
            first = self.network.config.sequence.FIRST_CODE
            of_codes = self.network.head[:, first : first + self.codebook_size]
            self._can_draw = bool(jnp.any(of_codes))
        if not self._can_draw:
            raise InputError(
                f"{self.path or 'this model'} cannot draw: the rows of image codes in its head are "
                "zero, as in Chameleon as Meta released it; expected weights tuned to draw, such "
                "as Alpha-VLLM/Lumina-mGPT-7B-768"
            )


class PromptedMaskedGenerator(PromptedGenerator):
    """Lumina-DiMOO, which fills masked tokens."""

    def null_condition(self, batch: int) -> Text:
        """No prompt, before images of the model's own grid; of a model with its vocabulary."""
        rows = self._none(batch, self.grid)
        return self._text(rows, self.grid, self._padded(rows[0]))

    def sample(  # type: ignore[override]
        self,
        condition: Prompts,
        rng: jax.Array | int | None = None,
        *,
        seed: int | None = None,
        negative: Prompts | None = None,
        codes: npt.ArrayLike | None = None,
        grid: tuple[int, int] | None = None,
        start: int | npt.NDArray[np.int32] = 0,
        memory: float | None = None,
        history: bool = False,
        room: int = 0,
        **options: Any,
    ) -> jax.Array:
        """Draw images' codes; all steps run in one jitted function.

        Prompts are padded as those of PromptedCausalGenerator are; nothing sees padding.

        Args:
          condition: prompts, as in the class's documentation.
          rng, seed: as in Generator.sample.
          negative: prompts that guidance leads away from; None: from no prompt, whose ids the
            vocabulary has.
          codes, grid, start, memory, history, room: as in Generator.sample.
          **options: as in Generator.sample, by default those of masked_options.PRESETS:
            "lumina_dimoo", where guidance=4.0 is the w of (1 + w) c - w u; choice_temperature
            is by default the temperature, as in the official code.

        Returns:
          int32 [B, h, w]; with `history` int32 [steps, B, h, w].

        Raises:
          InputError: as Generator.sample and `ids`; or guidance without a negative prompt, by a
            model without its vocabulary.
        """
        chosen, codes_Bhw = self._chosen(options), self._checked_start(codes, grid, len(condition))
        size, key = (codes_Bhw.shape[1], codes_Bhw.shape[2]), self._key(rng, seed)
        masked_B = np.asarray(codes_Bhw == self.mask_id).sum(axis=(1, 2))
        rows, against = self._rows(condition, negative, size)
        if (
            against is None
            and masked_B.any()
            and any(self._planned(masked_B, chosen, True)[0].guided)
        ):
            against = self._none(len(rows), size)

        def draw(places: np.ndarray, text: Text, negative: Text | None) -> jax.Array:
            return self._filled(
                *(text, negative, codes_Bhw[places], *_at(places, key, start), memory, chosen),
                history=history,
                room=room,
            )

        sampled = self._in_groups(rows, against, size, draw, axis=int(history))
        last_Bhw = sampled[-1] if history else sampled
        token_sampling.check_drawn(last_Bhw, start, self.path or "this model", options)
        return sampled

    def check_options(
        self,
        options: Mapping[str, Any],
        grid: tuple[int, int] | None = None,
        known: int = 0,
        negative: bool = False,
    ) -> None:
        """As Generator.check_options."""
        super().check_options(self._chosen(options), grid, known, negative)

    def _chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {**self.decoding, **options}
        noise = given.get("temperature", MASKED_DEFAULTS["temperature"])
        return MASKED_DEFAULTS | dict(choice_temperature=noise) | given

    def _none(self, batch: int, grid: tuple[int, int]) -> list[list[int]]:
        """Ids of no prompt, for each image."""
        if not self.beside:
            raise InputError(
                f"{self.path or 'this model'} has no {prompts.VOCABULARY}, which has the ids of no "
                "prompt: expected negative, arrays of ids, or no guidance. "
                f"{dimoo_prompts.ADVICE}"
            )
        vocabulary = self._read_vocabulary()
        assert isinstance(vocabulary, DimooVocabulary)
        return [vocabulary.none(grid)] * batch


def make_prompted(network: Llama, **known: Any) -> PromptedGenerator:
    """A PromptedGenerator of the kind of this network; `known` as it takes it."""
    kind = PromptedCausalGenerator if network.config.causal else PromptedMaskedGenerator
    return kind(network, **known)


def _at(
    places: np.ndarray, key: jax.Array, start: int | npt.NDArray[np.int32]
) -> tuple[jax.Array, npt.NDArray[np.int32]]:
    """Key or keys, and indices, of images at these places of a batch."""
    index_B = start[places] if isinstance(start, np.ndarray) else start + places
    return key[places] if key.ndim else key, index_B.astype(np.int32)


@jax.jit
def _token_logits(network: Llama, ids_BS: jax.Array) -> jax.Array:
    return network.token_logits(ids_BS)
