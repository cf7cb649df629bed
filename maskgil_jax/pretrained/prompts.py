"""Prompts of models that read text themselves: the ids of texts, and batches of ids.

Letters: B prompts, T tokens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maskgil_jax.models.token_models import lumina_sequence
from maskgil_jax.runtime.errors import InputError

VOCABULARY = "tokenizer.json"  # the file of Hugging Face's tokenizers
ADVICE = (
    f"Add the {VOCABULARY} of Alpha-VLLM/Lumina-mGPT-7B-768, which all its sizes share, to the "
    "source and import again"
)
SHORTEST = 256  # tokens that prompts are padded to, or four times as many, and so on
LONGEST = 1024  # tokens that a prompt may have wherever the context ends


class PromptVocabulary:
    """The pieces of text that ids stand for, of a tokenizer.json.

    Args:
      data: content of the file.

    Raises:
      InputError: something else, or of another model; or tokenizers is not installed.
    """

    def __init__(self, data: bytes):
        self._tokenizer = _checked(read_tokenizer(data))

    @property
    def size(self) -> int:
        """Ids that a model needs to have: one more than the largest."""
        return 1 + max(self._tokenizer.get_vocab().values())

    def ids(self, prompt: str, grid: tuple[int, int]) -> list[int]:
        """Ids of a prompt for an image of (height, width) tokens, to the end of the turn.

        Raises:
          InputError: a prompt that holds the name of an id that is no text.
        """
        text = lumina_sequence.turn(prompt, grid)
        *ids, end = self._tokenizer.encode(text, add_special_tokens=False).ids
        signs = [token for token in ids if lumina_sequence.has_meaning(token)]
        if signs or end != lumina_sequence.END_OF_TURN:
            name = self._tokenizer.id_to_token(signs[0] if signs else end)
            raise InputError(
                f"prompt {prompt[:40]!r} becomes the sign {name!r}, which is no text, expected text"
            )
        return [lumina_sequence.START, *ids, end]


def batch(
    rows: Sequence[Sequence[int]], opening: Sequence[int], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of any lengths, and what begins their images, padded on the left to T = `length`.

    Returns:
      The arrays of conditions.Text, ids_BT and mask_BT.
    """
    ids_BT = np.zeros((len(rows), length), np.int32)
    mask_BT = np.zeros(ids_BT.shape, bool)
    for b, row in enumerate(rows):
        whole = [*row, *opening]
        ids_BT[b, -len(whole) :] = whole
        mask_BT[b, -len(whole) :] = True
    return ids_BT, mask_BT


def padded_length(tokens: int) -> int:
    """The length that so many tokens, up to the first code, are padded to: one of a few."""
    length = SHORTEST
    while length < tokens:
        length *= 4
    return length


def check_length(
    name: str, tokens: int, grid: tuple[int, int], of_image: int, context: int
) -> None:
    """Raise InputError where a prompt leaves no room for an image of (height, width) tokens.

    Args:
      name: of the prompt in messages.
      tokens: of the prompt.
      grid: of the image.
      of_image: tokens of the sequence that are of it.
      context: tokens that a sequence may have; there are images that are longer than that.
    """
    most = max(context - of_image, LONGEST)
    if tokens > most:
        raise InputError(
            f"{name} has {tokens} tokens, expected at most {most}: an image of {grid[0]} x "
            f"{grid[1]} codes takes {of_image} and the model's context has {context}"
        )


def checked_ids(name: str, prompt: Any, vocabulary: int) -> list[int]:
    """Ids of one prompt; InputError unless integers [T] of a vocabulary of this size."""
    ids = np.asarray(prompt)
    if ids.ndim != 1 or not len(ids) or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"{name} is {ids.dtype} {ids.shape}, expected a text or integer ids [T]")
    if not 0 <= ids.min() <= ids.max() < vocabulary:
        raise InputError(
            f"{name} has ids from {ids.min()} to {ids.max()}, expected 0 to {vocabulary - 1}"
        )
    return [int(i) for i in ids]


def read_tokenizer(data: bytes) -> Any:
    """The tokenizer of a tokenizer.json; InputError unless it is one."""
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            "prompts of models that read text themselves need tokenizers: pip install "
            "'maskgil_jax[text]'"
        ) from None
    try:
        return tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # a bare Exception
        raise InputError(f"{VOCABULARY} is of no tokenizer: {error}") from None


def _checked(tokenizer: Any) -> Any:
    """The same; InputError unless it is Lumina-mGPT's."""
    first, last = (lumina_sequence.name_of_code(k) for k in (0, lumina_sequence.CODES - 1))
    needed = ("<s>", "<racm3:break>", lumina_sequence.END_OF_TURN_NAME, first, last)
    try:
        lumina_sequence.check_names(tokenizer.get_vocab(), needed)
    except ValueError as error:
        raise InputError(f"{VOCABULARY} is of another model: {error}. {ADVICE}") from None
    return tokenizer
