import numpy as np

from maskgil_jax.data.images import pixel_levels


def test_uint8_round_trip():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        pixel_levels.to_uint8(values.astype(np.float32) / 127.5 - 1), values
    )
    assert pixel_levels.to_uint8(np.array([-2.0, 2.0])).tolist() == [0, 255]
