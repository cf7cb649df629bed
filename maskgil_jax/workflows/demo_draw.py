"""The part of the demo page where images are drawn: its fields, its button, what it shows."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from maskgil_jax.data.sound import audio
from maskgil_jax.generation import pictures, requests
from maskgil_jax.pretrained.prompted import PromptedGenerator
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.workflows.demo_artist import Artist, Drawing, DrawingRequest, frames

SMALLEST = 192  # pixels of a side that pictures are shown at, by whole factors
LONGEST_PROMPT = 2000  # characters


def add(gradio: ModuleType, artist: Artist, folder: str, in_turn: Mapping[str, Any]) -> None:
    """Put it on the page that is being built.

    Args:
      gradio: the module.
      artist: draws.
      folder: for files that the page shows.
      in_turn: arguments of an event that uses the device.
    """
    with gradio.Row():
        with gradio.Column(scale=1):
            inputs = _inputs(gradio, artist)
            button = gradio.Button("Draw", variant="primary", elem_id="draw")
        with gradio.Column(scale=2):
            outputs = _outputs(gradio)
    button.click(
        function_of(artist, list(inputs), folder),
        inputs=list(inputs.values()),
        outputs=outputs,
        batch=True,
        max_batch_size=artist.most,
        api_name="draw",
        **in_turn,
    )


def condition(gradio: ModuleType, artist: Artist) -> dict[str, Any]:
    """The field of what is drawn, by the name "condition"; none for an unconditional model."""
    if artist.reads == "classes":
        names = artist.generator.names_of_classes
        choices = [(pictures.label(name), i) for i, name in enumerate(names)]
        return {"condition": gradio.Dropdown(choices, value=0, label="Class")}
    if artist.reads == "prompts":
        return {"condition": gradio.Textbox(label="Prompt", lines=2, max_length=LONGEST_PROMPT)}
    if artist.reads == "speech":
        sources = ["microphone", "upload"]
        return {"condition": gradio.Audio(sources=sources, type="filepath", label="Speech")}
    return {}


def decoding(gradio: ModuleType, artist: Artist) -> dict[str, Any]:
    """The fields of how it is drawn; what a bundle begins with is always within their range."""
    fields: dict[str, Any] = {}
    masked = artist.methods[0] == "masked"
    prompted = isinstance(artist.generator, PromptedGenerator)
    of_model = artist.generator.decoding  # what a bundle begins with
    if masked:
        steps = of_model.get("steps", 64 if prompted else 8)
        fields["steps"] = gradio.Slider(
            1, max(64, steps), steps, step=1, label="Steps, of masked decoding"
        )
    if not artist.generator.is_unconditional:
        guidance = of_model.get("guidance", 4.0 if prompted else 3.0 if masked else 2.0)
        fields["guidance"] = gradio.Slider(
            min(1, guidance), max(12, guidance), guidance, step=0.5, label="Guidance"
        )
    temperature = of_model.get("temperature", 1.0)
    fields["temperature"] = gradio.Slider(
        min(0.1, temperature), max(2, temperature), temperature, step=0.05, label="Temperature"
    )
    return fields


def _inputs(gradio: ModuleType, artist: Artist) -> dict[str, Any]:
    """Components by the name of what is asked for."""
    generator = artist.generator
    height, width = (side * artist.downsample for side in generator.grid)
    inputs = condition(gradio, artist)
    inputs["num"] = gradio.Slider(
        1, min(8, artist.most), min(4, artist.most), step=1, label="Number of pictures"
    )
    inputs["seed"] = gradio.Number(0, precision=0, label="Seed")
    if isinstance(generator, PromptedGenerator) or generator.network.config.fits_any_grid:
        inputs["width"] = gradio.Number(width, precision=0, label="Width, pixels")
        inputs["height"] = gradio.Number(height, precision=0, label="Height, pixels")
    if len(artist.methods) > 1:
        inputs["method"] = gradio.Radio(artist.methods, value=artist.methods[0], label="Method")
        tokens = generator.grid[0] * generator.grid[1]
        inputs["prefix"] = gradio.Slider(
            0, tokens, tokens // 2, step=1, label="Prefix, of the method hybrid"
        )
    return inputs | decoding(gradio, artist)


def _outputs(gradio: ModuleType) -> list[Any]:
    return [
        gradio.Markdown(elem_id="status"),
        gradio.Gallery(
            label="Pictures", columns=4, height="auto", object_fit="contain", elem_id="pictures"
        ),
        gradio.Image(
            label="Step by step: masked tokens are gray",
            type="filepath",
            format="webp",
            elem_id="steps",
        ),
        gradio.Image(
            label="All in one grid",
            type="filepath",
            format="png",
            buttons=["download", "fullscreen"],
            elem_id="grid",
        ),
    ]


Shown = tuple[str, list[Image.Image] | None, str | None, str | None]


def function_of(
    artist: Artist, names: Sequence[str], folder: str
) -> Callable[..., tuple[list[Any], ...]]:
    """A function of lists, one for each input of the page, with an item for each waiting request.

    It gives a list for each output. What is wrong with a request is its own status.
    """

    def draw(*columns: Sequence[Any]) -> tuple[list[Any], ...]:
        asked = [
            request_of(artist, dict(zip(names, row, strict=True)))
            for row in zip(*columns, strict=True)
        ]
        drawings = iter(artist.draw([one for one in asked if isinstance(one, DrawingRequest)]))
        answers = [next(drawings) if isinstance(one, DrawingRequest) else one for one in asked]
        shown = [_shown(answer, folder) for answer in answers]
        return tuple(list(column) for column in zip(*shown, strict=True))

    return draw


def request_of(artist: Artist, fields: dict[str, Any]) -> DrawingRequest | InputError:
    """What the fields of the page ask for, or what is wrong with them."""
    try:
        return _request_of(artist, fields)
    except (InputError, Unreadable) as error:
        return InputError(str(error))


def _request_of(artist: Artist, fields: dict[str, Any]) -> DrawingRequest:
    generator = artist.generator
    given = checked_condition(artist, fields.get("condition"))
    if artist.reads == "speech":
        given = audio.decode(audio.read_file(given))
    check_whole(fields, ("num", "seed", "width", "height"))
    if not 1 <= fields["num"] <= artist.most:
        raise InputError(f"num = {fields['num']}, expected 1 to {artist.most}")
    grid = generator.grid
    if "width" in fields:
        grid = requests.grid_of(f"{fields['width']}x{fields['height']}", artist.downsample)
        _check_grid(artist, grid)
    method = fields.get("method", artist.methods[0])
    if method not in artist.methods:
        raise InputError(f"method = {method}, expected one of {', '.join(artist.methods)}")
    taken = ["guidance", "temperature", *(["steps"] if method != "autoregressive" else [])]
    options = {name: fields[name] for name in taken if name in fields}
    if method != "autoregressive":
        options["steps"] = min(int(options["steps"]), grid[0] * grid[1])
    prefix = int(fields["prefix"]) if method == "hybrid" else 0
    known = tuple(sorted(options.items()))
    return DrawingRequest(given, fields["num"], fields["seed"], grid, method, known, prefix)


def checked_condition(artist: Artist, given: Any) -> Any:
    """A class id, a prompt or the path of a recording; InputError where none is given."""
    if artist.reads == "prompts" and not (given or "").strip():
        raise InputError("no prompt is given")
    if artist.reads == "speech" and not given:
        raise InputError("no speech is given: record some, or upload a file")
    return given


def check_whole(fields: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise InputError where one of these fields is there and not a whole number."""
    for name in names:
        if name in fields and not isinstance(fields[name], int):
            raise InputError(f"{name} = {fields[name]!r}, expected a whole number")


def _check_grid(artist: Artist, grid: tuple[int, int]) -> None:
    """Bound what a visitor may ask of the memory: four times the tokens of training."""
    own = artist.generator.grid
    if grid[0] * grid[1] > 4 * own[0] * own[1]:
        sides = " x ".join(str(side * artist.downsample) for side in reversed(own))
        raise InputError(f"expected at most four times the area of {sides} pixels")


def _shown(answer: Drawing | InputError, folder: str) -> Shown:
    if isinstance(answer, InputError):
        return f"**error:** {answer}", None, None, None
    num, height, width, _ = answer.pictures.shape
    factor = max(1, -(-SMALLEST // min(height, width)))
    steps, _, *grid = answer.masked.shape
    tokens = answer.together * grid[0] * grid[1]
    status = (
        f"{answer.together} images in {answer.seconds:.2f} s, {tokens / answer.seconds:,.0f} "
        f"tokens a second, {steps} steps"
    )
    if answer.together > num:
        status += f"; {answer.together - num} of them for others who were waiting"
    large = answer.pictures.repeat(factor, 1).repeat(factor, 2)
    return (
        status,
        [Image.fromarray(picture) for picture in large],
        _animation(frames(answer), factor, folder),
        _write_grid(large, folder),
    )


def _animation(frames_SBHWC: np.ndarray, factor: int, folder: str, seconds: float = 3.0) -> str:
    """The first four pictures as they fill in, a WebP; the last frame stays longer."""
    strips = np.concatenate(list(frames_SBHWC[:, :4].transpose(1, 0, 2, 3, 4)), axis=2)
    strips = strips.repeat(factor, 1).repeat(factor, 2)
    moving = [Image.fromarray(strip) for strip in strips]
    each = round(1000 * seconds / len(moving))
    path = _fresh_file(folder, ".webp")
    durations = [each] * (len(moving) - 1) + [2000]
    moving[0].save(
        path, save_all=True, append_images=moving[1:], duration=durations, loop=0, quality=85
    )
    return path


def _write_grid(large: np.ndarray, folder: str) -> str:
    columns = min(4, len(large))
    rows = -(-len(large) // columns)
    missing = rows * columns - len(large)
    filled = np.concatenate([large, np.full((missing, *large.shape[1:]), 255, np.uint8)])
    height, width = large.shape[1:3]
    tiled = filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    path = _fresh_file(folder, ".png")
    pictures.save(path, tiled.reshape(rows * height, columns * width, 3))
    return path


def _fresh_file(folder: str, suffix: str) -> str:
    handle, path = tempfile.mkstemp(suffix, dir=folder)
    os.close(handle)
    return path
