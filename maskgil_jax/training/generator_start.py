"""The weights that the training of a generator starts from: those of another, if one is named."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from maskgil_jax.conditioning import base
from maskgil_jax.pretrained import loading, networks
from maskgil_jax.runtime import trees
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.config_changes import differences

# What a generator may differ in from the one that it starts from.
MAY_DIFFER = (
    *("grid", "dropout", "embedding_dropout", "attention_dropout", "remat", "unroll", "dtype"),
    "causal_prefix",  # which has the parameters of a masked model
    *("rope_positions", "rope_grid"),
    *("context", "param_dtype"),  # weights may be bfloat16 as they were released
)


def load_start(
    directory: str, network: Any, tokenizer: dict[str, Any], encoder: Mapping[str, Any]
) -> Any:
    """The weights of a generator directory as the network to train, None if `directory` is "".

    Args:
      directory: config.start_from.generator.
      network: config of the network to train.
      tokenizer: of the codes to train on.
      encoder: of the text or speech to train on.

    Raises:
      InputError: not a generator, or of another network, other codes or another encoder.
    """
    if not directory:
        return None
    generator = loading.load_generator(directory)
    trained, where = generator.network, f"config.start_from.generator = {directory}"
    lines = differences(_arguments(trained.config), _arguments(network))
    if lines:
        raise InputError(f"{where} is another network than config.model:\n  " + "\n  ".join(lines))
    _check_positions(trained.config, network, where)
    like = jax.eval_shape(lambda: networks.init_network(network, jax.random.key(0)))
    if not trees.same_shapes(trained, like):
        raise InputError(
            f"{where} has learned positions for a grid of {trained.config.grid} tokens, and the "
            f"data's is {network.grid}: expected the same, or a model with rotary positions"
        )
    known = generator.tokenizer.get("fingerprint")
    if known != tokenizer["fingerprint"]:
        raise InputError(
            f"{where} was trained on codes of tokenizer {known}, and the data's are of "
            f"{tokenizer['fingerprint']}: expected the same"
        )
    if base.identity(generator.encoder) != base.identity(encoder):
        raise InputError(
            f"{where} was trained on features of encoder {base.identity(generator.encoder)}, and "
            f"the data's are of {base.identity(encoder)}: expected the same"
        )
    # Weights only: the structure holds the grid and the computation's dtype.
    leaves = [
        given.astype(own.dtype)
        for own, given in zip(jax.tree.leaves(like), jax.tree.leaves(trained), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _check_positions(trained: Any, network: Any, where: str) -> None:
    """Raise InputError where positions are interpolated from another grid than the start's."""
    expected = getattr(network, "rope_grid", ())
    known = getattr(trained, "rope_grid", ()) or trained.grid
    if expected and expected != known:
        raise InputError(
            f"{where} was trained on a grid of {known[0]} x {known[1]} tokens, but positions are "
            f"interpolated from config.model.rope_grid = {expected}: expected {known} there, or a "
            "model of that grid"
        )


def _arguments(network: Any) -> dict[str, Any]:
    """What two networks must agree in, by name."""
    arguments = {"network": type(network).__name__, **dataclasses.asdict(network)}
    return {name: value for name, value in arguments.items() if name not in MAY_DIFFER}
