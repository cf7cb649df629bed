"""A generator together with the tokenizer that it was trained with."""

from etils import epath

from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.pretrained.loading import Tokenizer, load_generator, load_tokenizer
from maskgil_jax.runtime.errors import InputError


def load_pair(
    model: epath.PathLike, tokenizer: epath.PathLike, verify: bool = True
) -> tuple[Generator, Tokenizer]:
    """A Generator and the Tokenizer that it was trained with.

    Args:
      model: directory of the generator.
      tokenizer: of the tokenizer; "": the one that the generator names.
      verify: compare fingerprints with what is read, as loading.load.

    Raises:
      InputError: another kind of model, or a tokenizer with other weights.
    """
    generator = load_generator(model, verify)
    known = generator.tokenizer
    tokenizer = tokenizer or known.get("path", "")
    if not tokenizer:
        raise InputError(f"{model} does not name its tokenizer; give tokenizer=DIR")
    if tokenizer == known.get("path") and not epath.Path(tokenizer).exists():
        raise InputError(
            f"the tokenizer that {model} was trained with is no longer at {tokenizer}; give "
            "tokenizer=DIR"
        )
    decoder = load_tokenizer(tokenizer, verify)
    if known and decoder.fingerprint != known["fingerprint"]:
        raise InputError(
            f"tokenizer={tokenizer} has weights {decoder.fingerprint}, but {model} was trained "
            f"on codes of {known['fingerprint']} (then at {known['path']})"
        )
    if decoder.codebook_size != generator.codebook_size:
        raise InputError(
            f"tokenizer={tokenizer} has {decoder.codebook_size} codes, but {model} has "
            f"{generator.codebook_size}"
        )
    return generator, decoder
