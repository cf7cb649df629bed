import pytest

from maskgil_jax.data.records import limits


@pytest.mark.parametrize(
    "total, limit, most",
    [
        *((1, 0.0, 0), (10**6, 0.0, 0)),  # nothing is forgiven
        *((1, 0.01, 1), (97, 0.01, 1), (199, 0.01, 1), (200, 0.01, 2), (100, 0.29, 29)),
        *((3, 1.0, 3), (5, 1e-9, 1)),
    ],
)
def test_a_share_of_images_may_be_bad_and_one_of_few(total, limit, most):
    assert limits.allowed(total, limit) == most
    assert limits.complaint(most, total, limit, "limit") == ""
    assert limits.complaint(most + 1, total, limit, "limit") == (
        f"{most + 1} of {total} images cannot be read, limit = {limit:g} allows {most}"
    )
