"""Pictures of the page: shrunk, or only named."""

import os

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.reporting import inline
from maskgil_jax.runtime.errors import InputError


def test_large_pictures_are_shrunk(tmp_path):
    picture = np.zeros((6000, 2000, 3), np.uint8)
    picture[:400] = np.random.default_rng(0).integers(0, 256, (400, 2000, 3))
    Image.fromarray(picture).save(tmp_path / "grid.png")
    inlined = inline.picture(tmp_path / "grid.png")
    assert inlined.width == 1600 and inlined.uri.startswith("data:image/jpeg;base64,")
    assert inlined.note == "shrunk from 2,000 x 6,000 pixels, the upper 83% of it, as JPEG"
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "small.png")
    inlined = inline.picture(tmp_path / "small.png")
    assert inlined == (inline.data_uri((tmp_path / "small.png").read_bytes(), "image/png"), 9, "")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_very_large_pictures_are_shrunk_or_only_named(mode, tmp_path):
    Image.new("1", (13_000, 13_000)).save(tmp_path / "grid.png")
    inlined = inline.picture(tmp_path / "grid.png")
    assert inlined.uri == "" and "too large to be shown: " in inlined.note
    assert "13000 x 13000 pixels" in inlined.note
    Image.new("RGB", (8000, 80), "red").convert(mode).save(tmp_path / "wide.png")
    inlined = inline.picture(tmp_path / "wide.png")
    assert inlined.width == 1600 and inlined.note == "shrunk from 8,000 x 80 pixels"


def test_what_is_no_file_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "grid.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("grid.png", "zero.png"):
        with pytest.raises(InputError, match=f"{name} is broken"):
            inline.picture(tmp_path / name)
