"""Lumina-mGPT as a user holds it: a Generator that reads prompts itself.

Letters: B images, h w grid, S tokens of a sequence, T tokens of a prompt, V ids of the vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from maskgil_jax.decoding import token_sampling
from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.models.token_models.conditions import Condition, Text
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.pretrained import networks, prompts
from maskgil_jax.pretrained.generators import CausalGenerator
from maskgil_jax.pretrained.prompts import PromptVocabulary
from maskgil_jax.runtime import sharding
from maskgil_jax.runtime.errors import InputError

DEFAULTS = dict(guidance=4.0, top_k=2000)  # the official ones, of decoding.autoregressive.Options

Prompts = Sequence[str] | Sequence[npt.ArrayLike]


class PromptedGenerator(CausalGenerator):
    """Codes from prompts, by a model of text and image tokens in one sequence.

    Prompts are texts, or integer arrays [T] of ids from the start to the end of the turn; what
    begins an image, its height and its width among it, is added to them.
    """

    network: Llama

    def __init__(self, network: Llama, *, vocabulary: bytes = b"", **known: Any):
        """Take a network, the content of its tokenizer.json, and what Generator takes by name."""
        super().__init__(network, **known)
        self.beside = {prompts.VOCABULARY: vocabulary} if vocabulary else {}
        self._vocabulary: PromptVocabulary | None = None
        self._can_draw: bool | None = None

    def _named_condition(self) -> str:
        return "prompts"

    def token_logits(self, ids: npt.ArrayLike) -> jax.Array:
        """Logits of the whole vocabulary after each token, in eval mode.

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
        checked = networks.checked_codes(codes, self.codebook_size)
        grid = self._checked_grid(checked.shape[1:])
        rows = self.ids(condition, grid)
        longest = prompts.padded_length(max(map(len, rows)))
        return super().logits(checked, self._text(rows, grid, longest))

    def null_condition(self, batch: int) -> Text:
        """What begins images of the model's own grid, and nothing before it."""
        return self._text([[]] * batch, self.grid, lumina_sequence.OPENING)

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
            prompts.check_length(name, len(row), grid, config.context)
            rows.append(row)
        return rows

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
        rng = self._key(rng, seed)
        grid = self._checked_grid(grid)
        rows = self.ids(condition, grid)
        against = None if negative is None else self.ids(negative, grid)
        if against is not None and len(against) != len(rows):
            raise InputError(f"{len(against)} negative prompts for {len(rows)} prompts")
        chosen = {**DEFAULTS, **self.decoding, **options}
        sampled_Bhw = self._in_groups(rows, against, rng, start, grid, tokens, memory, chosen)
        token_sampling.check_drawn(sampled_Bhw, start, self.path or "this model", options)
        return sampled_Bhw

    def _in_groups(
        self,
        rows: Sequence[Sequence[int]],
        against: Sequence[Sequence[int]] | None,
        rng: jax.Array,
        start: int | npt.NDArray[np.int32],
        grid: tuple[int, int],
        tokens: int | None,
        memory: float | None,
        options: Mapping[str, Any],
    ) -> jax.Array:
        """`sample` of ids, those together that are padded to one length."""
        pairs = zip(rows, against or rows, strict=True)
        lengths_B = np.array([prompts.padded_length(max(map(len, pair))) for pair in pairs])
        lengths = np.unique(lengths_B)
        groups = [np.flatnonzero(lengths_B == length) for length in lengths]
        drawn = []
        for length, places in zip(lengths, groups, strict=True):
            text = self._text([rows[i] for i in places.tolist()], grid, length)
            negative = None
            if against is not None:
                negative = self._text([against[i] for i in places.tolist()], grid, length)
            index_B = start[places] if isinstance(start, np.ndarray) else start + places
            keys = rng[places] if rng.ndim else rng
            drawn.append(
                self._drawn(
                    text, negative, keys, index_B.astype(np.int32), grid, tokens, memory, options
                )
            )
        if len(groups) == 1:
            return drawn[0]
        return jnp.concatenate(drawn)[np.argsort(np.concatenate(groups))]

    def _text(self, rows: Sequence[Sequence[int]], grid: tuple[int, int], length: int) -> Text:
        """Prompts as the network takes them, on its devices."""
        return self._placed(Text(*map(jnp.asarray, prompts.batch(rows, grid, length))))

    def check_options(
        self,
        options: Mapping[str, Any],
        grid: tuple[int, int] | None = None,
        known: int = 0,
        negative: bool = False,
    ) -> None:
        """As Generator.check_options."""
        self._check_draws()
        chosen = {**DEFAULTS, **self.decoding, **options}
        super().check_options(chosen, grid, known, negative)

    def _checked_condition(self, condition: Any, batch: int | None) -> Condition:
        if batch is not None and len(condition.ids_BT) != batch:
            raise InputError(f"{len(condition.ids_BT)} prompts for {batch} images")
        return condition

    def _checked_grid(self, grid: tuple[int, ...] | None) -> tuple[int, int]:
        checked = super()._checked_grid(grid)
        try:
            lumina_sequence.opening(checked)
        except ValueError as error:
            raise InputError(str(error)) from None
        return checked

    def _check_draws(self) -> None:
        """Raise InputError where the head has no image codes, as Meta's."""
        if self._can_draw is None:
            first = lumina_sequence.FIRST_CODE
            of_codes = self.network.head[:, first : first + self.codebook_size]
            self._can_draw = bool(jnp.any(of_codes))
        if not self._can_draw:
            raise InputError(
                f"{self.path or 'this model'} cannot draw: the rows of image codes in its head are "
                "zero, as in Chameleon as Meta released it; expected weights tuned to draw, such "
                "as Alpha-VLLM/Lumina-mGPT-7B-768"
            )

    def _read_vocabulary(self) -> PromptVocabulary:
        if not self.beside:
            raise InputError(
                f"{self.path or 'this model'} has no {prompts.VOCABULARY}: prompts have to be "
                f"arrays of ids. {prompts.ADVICE}"
            )
        if self._vocabulary is None:
            self._vocabulary = PromptVocabulary(self.beside[prompts.VOCABULARY])
        return self._vocabulary


@jax.jit
def _token_logits(network: Llama, ids_BS: jax.Array) -> jax.Array:
    return network.token_logits(ids_BS)
