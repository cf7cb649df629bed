"""A page to draw on, with Gradio: it listens on this machine alone, and sends nothing elsewhere."""

import logging
import os
import pathlib
import tempfile
from types import ModuleType
from typing import Any

from maskgil_jax.generation.pipelines import Pipeline
from maskgil_jax.pretrained import loading
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import demo_draw, demo_edit
from maskgil_jax.workflows.demo_artist import Artist
from maskgil_jax.workflows.options import DemoOptions

log = logging.getLogger("maskgil_jax")

LARGEST_UPLOAD = "10mb"
MOST_WAITING = 100  # requests; further ones are refused with a message
NO_FONTS = ["system-ui", "sans-serif"]  # of the reader's machine; Gradio's are fetched from a host


def serve(options: DemoOptions) -> None:
    """Read the models and show the page until Ctrl-C.

    Raises:
      InputError: Gradio is not installed, the port is taken, or the models do not fit together.
    """
    companions = options.companions
    loading.generator_without_weights(options.model)
    with tempfile.TemporaryDirectory(prefix="maskgil_jax_demo_") as folder:
        gradio = _gradio(folder)
        pair = loading.load_pair(options.model, companions.tokenizer, companions.verify)
        pipeline = Pipeline(*pair, encoder=companions.encoder, verify=companions.verify)
        artist = Artist(pipeline, options.batch_size)
        blocks = page(gradio, artist, pipeline, folder)
        launch(gradio, blocks, options.host, options.port)
        log.info("the page is at http://%s:%d", options.host, blocks.server_port)
        try:
            blocks.block_thread()
        finally:
            blocks.close()


def _gradio(folder: str) -> ModuleType:
    """The library, whose files stay in `folder`.

    Raises:
      InputError: it is not installed.
    """
    os.environ["GRADIO_TEMP_DIR"] = folder  # it reads both when it is imported
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise InputError(
            "the page needs Gradio, which is not installed: pip install '.[demo]'"
        ) from None
    return gradio


def launch(gradio: ModuleType, blocks: Any, host: str, port: int) -> None:
    """Begin to serve; InputError where the port is taken."""
    try:
        blocks.queue(max_size=MOST_WAITING).launch(
            server_name=host,
            server_port=port or None,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            max_file_size=LARGEST_UPLOAD,
            enable_monitoring=False,
            footer_links=[],
            ssr_mode=False,
            theme=gradio.themes.Default(font=NO_FONTS, font_mono=["monospace"]),
        )
    except OSError as error:
        raise InputError(f"port={port} of host={host}: {error}") from None


def page(gradio: ModuleType, artist: Artist, pipeline: Pipeline, folder: str) -> Any:
    """The page, as gradio.Blocks.

    Args:
      gradio: the module.
      artist: draws for all who wait.
      pipeline: of the same models, edits.
      folder: for files that the page shows.
    """
    # One after another: the device is drawn on by one of them at a time.
    in_turn = dict(concurrency_id="device", concurrency_limit=1)
    with gradio.Blocks(
        title="maskgil_jax", analytics_enabled=False, delete_cache=(600, 3600)
    ) as blocks:
        gradio.Markdown(f"# {_title(artist.generator.path)}")
        with gradio.Tab("Draw"):
            demo_draw.add(gradio, artist, folder, in_turn)
        if demo_edit.is_possible(pipeline):
            with gradio.Tab("Edit", elem_id="edit_tab"):
                demo_edit.add(gradio, artist, pipeline, folder, in_turn)
    return blocks


def _title(path: str) -> str:
    """The directory's name; that of the run, for the model of a run."""
    directory = pathlib.PurePath(path)
    return directory.parent.name if directory.name == "model" else directory.name
