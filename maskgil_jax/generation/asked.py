"""What the options of a command that draws ask for, as a request."""

from collections.abc import Sequence
from typing import Any

from maskgil_jax.generation import requests
from maskgil_jax.generation.options import Drawing
from maskgil_jax.generation.requests import Request
from maskgil_jax.pretrained import model_directory
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError

CONDITIONS = ("classes", "prompts", "speech", "features")  # options of which one is given


def check(
    options: Drawing, described: Generator, prompts: list[str] | None = None
) -> tuple[str, list[str]]:
    """What is given, before weights are read: the condition's name, and the lines of prompts.

    Args:
      options: of a command that draws.
      described: the generator, with or without weights.
      prompts: what options.prompts holds, where it was read already.

    Returns:
      The name is "" for a generator without a condition.

    Raises:
      InputError: no condition or several, an option that goes with another one, no such class, or
        prompts that cannot be read.
    """
    condition = _condition(options, described.is_unconditional)
    if condition == "classes":
        requests.of_classes(described, options.classes)
    if prompts is None:
        prompts = requests.read_prompts(options.prompts) if options.prompts else []
    return condition, prompts


def _condition(options: Drawing, unconditional: bool) -> str:
    given = [name for name in CONDITIONS if getattr(options, name)]
    if unconditional and given:
        raise InputError(f"{given[0]}: the generator is unconditional, expected no condition")
    if len(given) != 1 and not unconditional:
        raise InputError(
            "one of classes=207,360 (class ids), prompts=FILE, speech=A.wav,B.mp3 and "
            f"features=A.npy is expected, {' and '.join(given) or 'none'} given"
        )
    for name, goes_with in (("negative_prompt", "prompts"), ("recognizer", "speech")):
        value = getattr(options, name, None)
        if value is not None and given != [goes_with]:
            other = given[0] if given else "an unconditional generator"
            raise InputError(f"{name}={value} goes with {goes_with}, not with {other}")
    return given[0] if given else ""


def read(
    options: Drawing, condition: str, generator: Generator, lines: Sequence[str]
) -> tuple[Request, dict[str, Any]]:
    """The request that options make, and what of it the images depend on, besides the labels."""
    companions, negative = options.companions, options.negative_prompt
    if not condition:
        return requests.of_nothing(generator), {}
    if condition == "prompts":
        request = requests.of_prompts(
            generator, lines, companions.encoder, companions.verify, negative
        )
        return request, {"prompts": list(lines), "negative_prompt": negative}
    if condition == "features":
        table = requests.read_features(generator, options.features)
        about = {"features": model_directory.fingerprint(table._asdict())}
        return requests.of_features(table, options.features), about
    if condition == "speech":
        digests = requests.check_recordings(options.speech)
        request = requests.of_recordings(
            generator, options.speech, companions.encoder, companions.verify, options.speech
        )
        return request, {"speech": digests}
    return requests.of_classes(generator, options.classes), {}
