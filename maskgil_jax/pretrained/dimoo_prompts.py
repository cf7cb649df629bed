"""Prompts of Lumina-DiMOO: the ids of texts, and of none."""

from maskgil_jax.models.token_models import dimoo_sequence
from maskgil_jax.pretrained import prompts
from maskgil_jax.runtime.errors import InputError

ADVICE = f"Add the {prompts.VOCABULARY} of Alpha-VLLM/Lumina-DiMOO to the source and import again"


class DimooVocabulary:
    """The pieces of text that ids stand for, of a tokenizer.json.

    Args:
      data: content of the file.

    Raises:
      InputError: something else, or of another model; or tokenizers is not installed.
    """

    def __init__(self, data: bytes):
        self._tokenizer = prompts.read_tokenizer(data)
        found = self._tokenizer.encode(dimoo_sequence.NO_PROMPT, add_special_tokens=False).ids
        if found != [dimoo_sequence.UNCONDITION]:
            raise InputError(
                f"{prompts.VOCABULARY} is of another model: {dimoo_sequence.NO_PROMPT} has the ids "
                f"{found}, expected [{dimoo_sequence.UNCONDITION}], as in Lumina-DiMOO. {ADVICE}"
            )

    def ids(self, prompt: str, grid: tuple[int, int]) -> list[int]:
        """Ids of a prompt, to what begins the answer.

        Raises:
          InputError: a prompt that holds the name of an id that is no text.
        """
        ids = self._encoded(prompt, grid)
        if signs := [token for token in ids if dimoo_sequence.has_meaning(token)]:
            name = self._tokenizer.id_to_token(signs[0])
            raise InputError(
                f"prompt {prompt[:40]!r} becomes the sign {name!r}, which is no text, expected text"
            )
        return ids

    def none(self, grid: tuple[int, int]) -> list[int]:
        """Ids of no prompt, which guidance leads away from."""
        return self._encoded(dimoo_sequence.NO_PROMPT, grid)

    def _encoded(self, prompt: str, grid: tuple[int, int]) -> list[int]:
        # With what the file itself puts around a text, as the official code.
        ids: list[int] = self._tokenizer.encode(dimoo_sequence.turn(prompt, grid)).ids
        return ids
