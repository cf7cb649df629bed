import numpy as np
import pytest

from maskgil_jax.data.images import buckets
from maskgil_jax.runtime.errors import InputError

# (width, height), as the specification lists those that are not higher than wide.
LUMINA_256 = """
512x128 480x128 448x128 416x128 384x128 384x160 352x160 320x160 320x192 288x192 288x224 256x224
256x256
"""


def test_pixart_has_its_forty_sizes_halved_and_doubled():
    at_512 = buckets.named("pixart", 512, 16).sizes
    assert len(at_512) == len(set(at_512)) == 40
    assert at_512[:4] == ((256, 1024), (256, 992), (256, 960), (256, 928))
    assert at_512[20] == (512, 512) and at_512[28] == (672, 384) and at_512[-1] == (1024, 256)
    for size, factor in ((256, 0.5), (1024, 2)):
        expected = tuple((int(h * factor), int(w * factor)) for h, w in at_512)
        assert buckets.named("pixart", size, 16).sizes == expected


@pytest.mark.parametrize("size, count", [(256, 25), (512, 49), (768, 73), (1024, 97)])
def test_lumina_has_as_many_sizes_as_specified_within_the_area_of_the_square(size, count):
    chosen = buckets.named("lumina", size, 16)
    assert len(set(chosen.sizes)) == len(chosen.sizes) == count
    tokens = [h * w for h, w in chosen.grids(16)]
    assert 0.75 * max(tokens) <= min(tokens) and max(tokens) == (size // 16) ** 2
    assert all(side % 32 == 0 for sides in chosen.sizes for side in sides)


def test_lumina_at_256_is_the_published_list():
    wide = [tuple(map(int, size.split("x")[::-1])) for size in LUMINA_256.split()]
    assert buckets.named("lumina", 256, 16).sizes[: len(wide)] == tuple(wide)
    assert set(buckets.named("lumina", 256, 16).sizes) == {*wide, *((w, h) for h, w in wide)}


@pytest.mark.parametrize("name", ["pixart", "lumina"])
def test_an_image_of_a_size_of_the_list_gets_that_size(name):
    chosen = buckets.named(name, 256, 16)
    heights, widths = np.array(chosen.sizes).T
    numbers = chosen.nearest(3 * heights, 3 * widths)
    same_ratio = [chosen.sizes[i][0] / chosen.sizes[i][1] for i in numbers]
    np.testing.assert_allclose(same_ratio, heights / widths)


def test_the_lists_choose_as_published():
    # 100 x 219: ratios 0.4566; PixArt compares ratios, Lumina what is kept of the image.
    pixart, lumina = (buckets.named(name, 256, 16) for name in ("pixart", "lumina"))
    image = np.array([100]), np.array([219])
    assert pixart.sizes[pixart.nearest(*image)[0]] == (176, 368)  # 0.478, nearer than 0.417
    keeps = [min(h / 100, w / 219) / max(h / 100, w / 219) for h, w in lumina.sizes]
    assert lumina.nearest(*image)[0] == np.argmax(keeps)
    extreme = np.array([10, 3000]), np.array([3000, 10])
    assert lumina.nearest(*extreme).tolist() == [0, len(lumina.sizes) - 1]


def test_without_a_list_every_image_gets_the_square():
    chosen = buckets.named("", 256, 16)
    assert chosen.sizes == ((256, 256),) and chosen.grids(16) == ((16, 16),)
    assert chosen.nearest(np.array([9, 1]), np.array([1, 9])).tolist() == [0, 0]


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("sdxl", 256, "buckets = 'sdxl', expected one of pixart, lumina"),
        ("pixart", 128, "image_size = 128 with buckets = 'pixart': expected a multiple of 256"),
        ("lumina", 272, "image_size = 272 with buckets = 'lumina': expected a multiple of 32"),
    ],
)
def test_what_there_is_no_list_for_is_refused(name, size, message):
    with pytest.raises(InputError, match=message):
        buckets.named(name, size, 16)
