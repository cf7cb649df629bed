"""The part of the demo page where a picture is edited: what is painted over is drawn anew."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from maskgil_jax.generation import editing
from maskgil_jax.generation.pipelines import Pipeline
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.workflows import demo_draw
from maskgil_jax.workflows.demo_artist import Artist

WIDEST_MARGIN = 1024  # pixels


def is_possible(pipeline: Pipeline) -> bool:
    """Whether its model can redraw a part of an image."""
    try:
        editing.check(pipeline.generator, {})
    except InputError:
        return False
    return True


def add(
    gradio: ModuleType,
    artist: Artist,
    pipeline: Pipeline,
    folder: str,
    in_turn: Mapping[str, Any],
) -> None:
    """Put it on the page that is being built; arguments as demo_draw.add, and the pipeline."""
    with gradio.Row():
        with gradio.Column(scale=1):
            inputs = {
                "editor": gradio.ImageEditor(
                    label="Picture: paint over what is to be drawn anew",
                    type="pil",
                    sources=["upload", "clipboard"],
                    brush=gradio.Brush(colors=["#ff0060"], color_mode="fixed"),
                    elem_id="editor",
                ),
                **demo_draw.condition(gradio, artist),
                "margin": gradio.Number(
                    0, precision=0, label="Margin to draw around the picture, pixels"
                ),
                "num": gradio.Slider(1, min(4, artist.most), 1, step=1, label="Number of pictures"),
                "seed": gradio.Number(0, precision=0, label="Seed"),
                **demo_draw.decoding(gradio, artist),
            }
            button = gradio.Button("Redraw", variant="primary", elem_id="redraw")
        with gradio.Column(scale=2):
            outputs = [
                gradio.Markdown(elem_id="edit_status"),
                gradio.Gallery(
                    label="Pictures",
                    columns=2,
                    height="auto",
                    object_fit="contain",
                    format="png",
                    elem_id="edited",
                ),
            ]
    button.click(
        function_of(artist, pipeline, list(inputs)),
        inputs=list(inputs.values()),
        outputs=outputs,
        api_name="edit",
        **in_turn,
    )


def function_of(
    artist: Artist, pipeline: Pipeline, names: Sequence[str]
) -> Callable[..., tuple[str, list[Image.Image] | None]]:
    """A function of one value for each input; what is wrong with them is the status."""

    def edit(*values: Any) -> tuple[str, list[Image.Image] | None]:
        began = time.perf_counter()
        try:
            edited = _edited(artist, pipeline, dict(zip(names, values, strict=True)))
        except (InputError, Unreadable) as error:
            return f"**error:** {error}", None
        return f"{len(edited)} images in {time.perf_counter() - began:.2f} s", edited

    return edit


def _edited(artist: Artist, pipeline: Pipeline, fields: dict[str, Any]) -> list[Image.Image]:
    picture, mask = picture_and_mask(fields["editor"])
    demo_draw.check_whole(fields, ("num", "seed", "margin"))
    margin = fields["margin"]
    if not 0 <= margin <= WIDEST_MARGIN:
        raise InputError(f"margin = {margin}, expected 0 to {WIDEST_MARGIN}")
    canvas = None
    if margin:
        canvas = (picture.width + 2 * margin, picture.height + 2 * margin)
    elif not mask.any():
        raise InputError("nothing is painted over, and there is no margin: nothing to draw")
    given = demo_draw.checked_condition(artist, fields.get("condition"))
    names = {"classes": "classes", "prompts": "condition", "speech": "speech"}
    condition = {names[artist.reads]: given} if artist.reads in names else {}
    taken = {name: fields[name] for name in ("steps", "guidance", "temperature") if name in fields}
    edited: list[Image.Image] = pipeline.edit(
        picture,
        mask,
        canvas=canvas,
        num=fields["num"],
        seed=fields["seed"],
        **condition,
        **taken,
    )
    return edited


def picture_and_mask(value: Mapping[str, Any] | None) -> tuple[Image.Image, np.ndarray]:
    """An RGB picture, and bool [H, W] where something was painted on any layer above it.

    Args:
      value: of gradio.ImageEditor, with PIL images.

    Raises:
      InputError: there is no picture.
    """
    if not value or value.get("background") is None:
        raise InputError("no picture is given: upload one")
    background = value["background"]
    if not background.convert("RGBA").getchannel("A").getbbox():
        raise InputError("no picture is given: upload one")
    mask = np.zeros((background.height, background.width), bool)
    for layer in value["layers"]:
        mask |= np.asarray(layer.convert("RGBA").getchannel("A")) > 0
    return background.convert("RGB"), mask
