"""Token models as a user holds them: logits and samples.

Letters: B batch, h w grid, V codes, T tokens of a condition, C width of features.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from etils import epath

from maskgil_jax.decoding import autoregressive, masked_loop, masked_plan, token_sampling
from maskgil_jax.models.token_models import factors
from maskgil_jax.models.token_models.conditions import Condition, Features, TokenModel
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.pretrained import (
    checked_conditions,
    checked_decoding,
    class_names,
    model_directory,
    networks,
)
from maskgil_jax.runtime import device_memory, each_device, sharding
from maskgil_jax.runtime.errors import InputError


class Generator:
    """Codes from conditions, by a model of masked tokens.

    A condition is class ids, integers [B], or a list with names of classes among them; or, for a
    model of text or speech, features: float [B, T, C], or a pair of them and a mask, bool [B, T],
    that is false at padding. An unconditional model takes what `null_condition` gives.
    """

    kind = "masked"
    beside: Mapping[str, bytes] = {}  # contents of the other files of its directory, by name
    # Options of `sample` where none are given, as its directory names them: those of its run.
    decoding: Mapping[str, Any] = {}

    def __init__(
        self,
        network: TokenModel,
        tokenizer: dict[str, Any] | None = None,
        class_names: tuple[str, ...] = (),
        encoder: dict[str, Any] | None = None,
        path: str = "",
        fingerprint: str | None = None,
    ):
        """Take a network, and what `generator` says of it."""
        self.network = network
        self.tokenizer = tokenizer or {}
        self.class_names = class_names
        self.encoder = encoder or {}
        self.path = path
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        height, width = self.grid
        sizes = f"{height} x {width} tokens of {self.codebook_size} codes"
        condition = "unconditional"
        if self.num_classes:
            condition = f"{self.num_classes} classes"
        elif not self.is_unconditional:
            condition = self._named_condition()
        return networks.representation(self, self.kind, condition, sizes, path=self.path)

    def _named_condition(self) -> str:
        config = self.network.config
        return f"features [{config.condition_tokens}, {config.feature_dim}]"

    @property
    def has_causal_prefix(self) -> bool:
        """Whether it was trained to draw token by token too: `as_causal` does."""
        return isinstance(self.network, Llama) and self.network.config.causal_prefix

    def as_causal(self) -> "CausalGenerator":
        """The same weights, drawing token by token.

        Raises:
          InputError: they were not trained to.
        """
        network = self._trained_on_both().as_causal()
        known = self.tokenizer, self.class_names, self.encoder
        return CausalGenerator(network, *known, self.path, self._fingerprint)

    def _trained_on_both(self) -> Llama:
        """The network; InputError unless it was trained to draw token by token too."""
        network = self.network
        if isinstance(network, Llama) and network.config.causal_prefix:
            return network
        raise InputError(
            f"{self.path or 'this model'} is masked and was not trained token by token too: "
            "expected a causal model, or one of config.loss.autoregressive_share above 0"
        )

    @property
    def fingerprint(self) -> str:
        """Names the weights, and the files beside them."""
        if self._fingerprint is None:
            self._fingerprint = model_directory.fingerprint(self.network, self.beside)
        return self._fingerprint

    @property
    def mask_id(self) -> int:
        """The code that stands for a masked token."""
        return self.network.config.mask_id

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.network.config.codebook_size

    @property
    def num_classes(self) -> int:
        """Number of condition classes; 0 where the condition is features, or where is none."""
        return self.network.config.num_classes

    @property
    def is_unconditional(self) -> bool:
        """Whether it draws images without a condition."""
        config = self.network.config
        return not config.num_classes and not config.has_null_condition

    @property
    def names_of_classes(self) -> tuple[str, ...]:
        """The class names; where none are known, the class ids."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) in tokens."""
        return self.network.config.grid

    def null_condition(self, batch: int) -> Condition:
        """The null condition: int32 [batch], or features without padding."""
        config = self.network.config
        if self.num_classes or self.is_unconditional:
            return jnp.full((batch,), self.num_classes, jnp.int32)
        shape = (batch, config.condition_tokens)
        empty = Features(jnp.zeros((*shape, config.feature_dim)), jnp.ones(shape, bool))
        return self.network.drop_condition(empty, jnp.ones(batch, bool))

    def logits(self, codes: npt.ArrayLike, condition: Any) -> jax.Array:
        """Logits in eval mode.

        Args:
          codes: integers [B, h, w]; `mask_id` where masked.
          condition: as in the class's documentation; class id `num_classes` for none.

        Returns:
          float32 [B, h * w, V]; one column more, the last, for a model with a mask class
          (preset maskgil_released).

        Raises:
          InputError: wrong shape, dtype or range.
        """
        codes = networks.checked_codes(codes, self.mask_id + (self.kind == "masked"))
        checked = self._checked_condition(condition, codes.shape[0])
        with sharding.where_shared(self.network):
            return _logits(self.network, codes, checked)

    def sample(
        self,
        condition: Any,
        rng: jax.Array | int | None = None,
        *,
        seed: int | None = None,
        negative: Any = None,
        codes: npt.ArrayLike | None = None,
        prefix: int = 0,
        grid: tuple[int, int] | None = None,
        start: int | npt.NDArray[np.int32] = 0,
        memory: float | None = None,
        history: bool = False,
        room: int = 0,
        **options: Any,
    ) -> jax.Array:
        """Draw images' codes; all steps run in one jitted function.

        Args:
          condition: as in the class's documentation. A jax.Array that is spread over devices, as
            the network then has to be, is sampled there.
          rng: a JAX key, a seed, or a key for each image, [B]; or else `seed`, by name.
          seed: as `rng`.
          negative: the negative prompt of guidance, a condition of each image; None: the null
            condition.
          codes: integers [B, h, w] to begin with, `mask_id` where something is to be drawn; the
            others stay as they are. None: nothing is known.
          prefix: tokens of `codes`, the first in the model's order, that are read as in training:
            as a causal prefix, which is computed once; of a model that has one. 0: none.
          grid: (height, width) in tokens; None: that of `codes`, or else the model's own.
          start: index of the first image, or of each, int [B]. Image i depends on rng, i and its
            condition only, so the batch that it is drawn in makes no difference.
          memory: bytes of each device that drawing may take beside the weights; None: what is free.
          history: give the codes after each step, with `mask_id` where they are still masked.
          room: masked tokens that the compiled program has room for at least. Calls with other
            numbers of them then share one program; no image changes.
          **options: fields of decoding.masked_options.Options: steps=8 (as many as there are masked
            tokens, where these are fewer), guidance=3.0 (none, for a model without a null
            condition) ...

        Returns:
          int32 [B, h, w] in 0 .. codebook_size - 1; with `history` int32 [steps, B, h, w].

        Raises:
          InputError: an option out of range, a condition of wrong shape, dtype or range, a grid
            that the model has no positions for, or a prefix that it does not read or that is not
            known.
          TooLarge: an InputError, more images than the memory allows; nothing has been drawn.
        """
        options = {**self.decoding, **options}
        condition, negative = self._checked_pair(condition, negative)
        rng = self._key(rng, seed)
        codes_Bhw = self._checked_start(codes, grid, jax.tree.leaves(condition)[0].shape[0])
        self._check_prefix(np.asarray(codes_Bhw == self.mask_id), prefix)
        sampled = self._filled(
            *(condition, negative, codes_Bhw, rng, start, memory, options),
            prefix=prefix,
            history=history,
            room=room,
        )
        last_Bhw = sampled[-1] if history else sampled
        token_sampling.check_drawn(last_Bhw, start, self.path or "this model", options)
        return sampled

    def _filled(
        self,
        condition: Condition,
        negative: Condition | None,
        codes_Bhw: jax.Array,
        rng: jax.Array,
        start: int | npt.NDArray[np.int32],
        memory: float | None,
        options: Mapping[str, Any],
        *,
        prefix: int = 0,
        history: bool = False,
        room: int = 0,
    ) -> jax.Array:
        """`sample` of what was checked."""
        masked_B = np.asarray(codes_Bhw == self.mask_id).sum(axis=(1, 2))
        if not masked_B.any():
            return codes_Bhw[None] if history else codes_Bhw
        plan, numbers = self._planned(masked_B, options, negative is None, room)
        whole, rows, columns = each_device.WHOLE, each_device.ROWS, each_device.COLUMNS
        layout = masked_plan.Numbers(columns, whole, whole, whole)
        program, static = each_device.of(
            self.network,
            len(codes_Bhw),
            masked_loop.sample_codes,
            (whole, rows, rows, layout, _layout_of_key(rng), rows, rows),
            columns if history else rows,
            plan=plan,
            prefix=prefix,
            history=history,
        )
        start_B = _indices(start, len(codes_Bhw))
        with sharding.where_shared(self.network):
            return device_memory.run_within(
                memory,
                f"drawing {networks.images_of(codes_Bhw.shape)}",
                program,
                *(self.network, condition, codes_Bhw, numbers, rng, start_B, negative),
                **static,
            )

    @staticmethod
    def _key(rng: jax.Array | int | None, seed: int | None) -> jax.Array:
        return checked_decoding.key(rng, seed)

    def _checked_start(
        self, codes: npt.ArrayLike | None, grid: tuple[int, int] | None, batch: int
    ) -> jax.Array:
        """The codes that `sample` begins with, all masked where none are given: int32 [B, h, w]."""
        if codes is None:
            return jnp.full((batch, *self._checked_grid(grid)), self.mask_id, jnp.int32)
        codes_Bhw = networks.checked_codes(codes, self.mask_id + 1)
        codes_grid = self._checked_grid(codes_Bhw.shape[1:])
        if codes_Bhw.shape[0] != batch or grid not in (None, codes_grid):
            raise InputError(
                f"codes of {len(codes_Bhw)} images of {codes_grid} tokens for {batch} conditions"
                + (f" and grid = {grid}" if grid else "")
            )
        return codes_Bhw

    def _check_prefix(self, masked_Bhw: np.ndarray, prefix: int) -> None:
        """Raise InputError unless the prefix is known and the model reads one."""
        B, height, width = masked_Bhw.shape
        if not 0 <= prefix <= height * width:
            raise InputError(f"prefix = {prefix}, expected 0 to {height * width}")
        if not prefix:
            return
        places = self._trained_on_both().order(height, width)[:prefix]
        if masked_Bhw.reshape(B, -1)[:, places].any():
            raise InputError(f"prefix = {prefix}, but some of these tokens are masked in codes")

    def check_options(
        self,
        options: Mapping[str, Any],
        grid: tuple[int, int] | None = None,
        known: int = 0,
        negative: bool = False,
    ) -> None:
        """Refuse, before any work, what `sample` would refuse.

        Args:
          options: of `sample`.
          grid: as `sample` takes it.
          known: tokens of it that will be given.
          negative: whether a negative condition will be.

        Raises:
          InputError: as `sample`.
        """
        height, width = self._checked_grid(grid)
        if (masked := height * width - known) > 0:
            self._planned(masked, {**self.decoding, **options}, not negative)

    def _planned(
        self,
        masked: int | np.ndarray,
        options: Mapping[str, Any],
        needs_null: bool,
        room: int = 0,
    ) -> tuple[masked_plan.Plan, masked_plan.Numbers]:
        counts = np.append(masked, room)
        options = checked_decoding.with_steps_for(np.max(masked), options)
        plan, numbers = checked_decoding.plan_of(self.network.config, counts, options, needs_null)
        return plan, numbers._replace(counts_SB=numbers.counts_SB[:, :-1])

    @property
    def description(self) -> dict[str, Any]:
        """What model.json says of it besides the fingerprint of its weights."""
        return networks.description(self.kind, self.network, self._known)

    def save(self, directory: epath.PathLike) -> None:
        """Write a model directory."""
        networks.save(directory, self.kind, self.network, self._known, self.beside)

    @property
    def _known(self) -> dict[str, Any]:
        known = {
            "tokenizer": self.tokenizer,
            "class_names": self.class_names,
            "encoder": self.encoder,
        }
        return known | ({"decoding": dict(self.decoding)} if self.decoding else {})

    def _checked_pair(self, condition: Any, negative: Any) -> tuple[Condition, Condition | None]:
        checked = self._checked_condition(condition, None)
        if negative is None:
            return checked, None
        return checked, self._checked_condition(negative, jax.tree.leaves(checked)[0].shape[0])

    def _checked_grid(self, grid: tuple[int, ...] | None) -> tuple[int, int]:
        """A grid to draw, the model's own where none is given."""
        height, width = grid or self.grid
        if min(height, width) < 1:
            raise InputError(f"grid = {grid}, expected (height, width) of 1 or more")
        if (height, width) != self.grid and not self.network.config.fits_any_grid:
            raise InputError(
                f"grid = {(height, width)}, but this model has positions for {self.grid} only: "
                "expected that, or a model with 2D rotary positions"
            )
        return int(height), int(width)

    def _checked_condition(self, condition: Any, batch: int | None) -> Condition:
        config = self.network.config
        by_class = self.num_classes or self.is_unconditional
        checked: Condition
        if by_class:
            checked = checked_conditions.classes(self._ids(condition), config)
        else:
            checked = checked_conditions.features(condition, config)
        count = jax.tree.leaves(checked)[0].shape[0]
        if batch is not None and count != batch:
            raise InputError(f"{count} conditions for {batch} images")
        return self._placed(checked)

    def _ids(self, condition: Any) -> Any:
        """Class ids, where some of them may be given by name."""
        texts = isinstance(condition, str) or (
            isinstance(condition, list | tuple) and any(isinstance(one, str) for one in condition)
        )
        return self.ids_of_classes(condition) if texts else condition

    def ids_of_classes(self, given: Any) -> list[int]:
        """Class ids of what a user writes: ids, names, "all", "0-99"; see class_names.ids_of."""
        return class_names.ids_of(given, self.class_names, self.num_classes)

    @property
    def _shards(self) -> int:
        """Devices that a batch is split over."""
        mesh = sharding.mesh_of(self.network)
        return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]

    def _placed(self, batch: Any) -> Any:
        """Arrays [B, ...] on the devices that the network is spread over."""
        mesh = sharding.mesh_of(self.network)
        if mesh is None:
            return batch
        divides = len(jax.tree.leaves(batch)[0]) % self._shards == 0
        spread = sharding.batch if divides else sharding.replicated
        return jax.device_put(batch, spread(mesh))


class CausalGenerator(Generator):
    """Codes from conditions, by a model that predicts each token from those before it."""

    kind = "causal"

    def sample(  # type: ignore[override]
        self,
        condition: Any,
        rng: jax.Array | int | None = None,
        *,
        seed: int | None = None,
        negative: Any = None,
        tokens: int | None = None,
        grid: tuple[int, int] | None = None,
        start: int | npt.NDArray[np.int32] = 0,
        memory: float | None = None,
        **options: Any,
    ) -> jax.Array:
        """Draw images' codes token by token; all steps run in one jitted function.

        Args:
          condition: as in Generator.
          rng, seed: as in Generator.sample.
          negative: as in Generator.sample.
          tokens: to draw, the first in the model's order; the rest is `mask_id`. None: all.
          grid: (height, width) in tokens; None: the model's own.
          start, memory: as in Generator.sample.
          **options: fields of decoding.autoregressive.Options: guidance=2.0 (none, for a model
            without a null condition), temperature=1.0, top_k=0 ...

        Returns:
          int32 [B, h, w].

        Raises:
          InputError: as Generator.sample.
        """
        options = {**self.decoding, **options}
        condition, negative = self._checked_pair(condition, negative)
        rng = self._key(rng, seed)
        grid = self._checked_grid(grid)
        sampled_Bhw = self._drawn(condition, negative, rng, start, grid, tokens, memory, options)
        token_sampling.check_drawn(sampled_Bhw, start, self.path or "this model", options)
        return sampled_Bhw

    def _drawn(
        self,
        condition: Condition,
        negative: Condition | None,
        rng: jax.Array,
        start: jax.Array | npt.NDArray[np.int32] | int,
        grid: tuple[int, int],
        tokens: int | None,
        memory: float | None,
        options: Mapping[str, Any],
    ) -> jax.Array:
        """`sample` of what was checked."""
        height, width = grid
        most = height * width
        tokens = most if tokens is None else tokens
        if not 0 <= tokens <= most:
            raise InputError(f"tokens = {tokens}, expected 0 to {most}")
        chosen = checked_decoding.options_of_causal(self.network.config, options, negative is None)
        batch = jax.tree.leaves(condition)[0].shape[0]
        if not tokens:
            return jnp.full((batch, height, width), self.mask_id, jnp.int32)
        plan, numbers = autoregressive.plan(chosen)
        whole, rows = each_device.WHOLE, each_device.ROWS
        program, static = each_device.of(
            self.network,
            batch,
            autoregressive.sample_codes,
            (whole, rows, whole, _layout_of_key(rng), rows, rows),
            rows,
            plan=plan,
            grid=grid,
            tokens=tokens,
        )
        with sharding.where_shared(self.network):
            return device_memory.run_within(
                memory,
                f"drawing {networks.images_of((batch, height, width))}",
                program,
                *(self.network, condition, numbers, rng, _indices(start, batch), negative),
                **static,
            )

    def check_options(
        self,
        options: Mapping[str, Any],
        grid: tuple[int, int] | None = None,
        known: int = 0,
        negative: bool = False,
    ) -> None:
        """As Generator.check_options."""
        self._checked_grid(grid)
        chosen = {**self.decoding, **options}
        checked_decoding.options_of_causal(self.network.config, chosen, not negative)


def make_generator(
    network: TokenModel,
    tokenizer: dict[str, Any] | None = None,
    class_names: tuple[str, ...] = (),
    encoder: dict[str, Any] | None = None,
    path: str = "",
    fingerprint: str | None = None,
) -> "Generator":
    """A Generator of the kind of this network.

    Args:
      network: the token model.
      tokenizer: provenance of the image tokenizer that made the codes it was trained on.
      class_names: one for each class.
      encoder: provenance of the text or speech encoder that made its features.
      path: where it was read, or "".
      fingerprint: of its directory; None: it is computed when it is asked for.
    """
    kind = CausalGenerator if network.config.causal else Generator
    return kind(network, tokenizer, class_names, encoder, path, fingerprint)


@jax.jit
def _logits(network: TokenModel, codes: jax.Array, condition: Condition) -> jax.Array:
    logits = network.classify(network.normed(network.backbone(codes, condition)))
    return factors.joint(logits, network.config.vocabularies)


def _layout_of_key(key: jax.Array) -> jax.sharding.PartitionSpec:
    """Of a key of all images, or of keys of each."""
    return each_device.ROWS if key.ndim else each_device.WHOLE


def _indices(start: Any, batch: int) -> Any:
    """The index of each image, int32 [B], by that of the first or of each."""
    return start if jnp.ndim(start) else start + np.arange(batch, dtype=np.int32)
