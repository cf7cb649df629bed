"""Checks of features, features that need no network, and the accuracy of their classes."""

import numpy as np

BLOCK = 1024  # rows looked at together, so that no array of the size of all features is made


def class_accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    samples: np.ndarray,
    labels: np.ndarray,
    k: int = 5,
) -> float:
    """Share of samples whose label a k-nearest-neighbour classifier on the reference gives too."""
    from sklearn.neighbors import KNeighborsClassifier  # slow to import, and rarely needed

    sets = checked(reference=reference, samples=samples)
    reference, samples = (np.asarray(x, np.float64) for x in sets)
    classifier = KNeighborsClassifier(k).fit(reference, reference_labels)
    return float((classifier.predict(samples) == labels).mean())


def pixel_features(images: np.ndarray) -> np.ndarray:
    """Images shrunk to 8x8 by averaging, as features that need no network.

    Args:
      images: uint8 [N, H, W, 3], sides multiples of 8.

    Returns:
      float64 [N, 192] in [0, 1].
    """
    N, H, W, _ = images.shape
    if H % 8 or W % 8:
        raise ValueError(f"images are {H} x {W} pixels, expected sides that are multiples of 8")
    blocks = images.reshape(N, 8, H // 8, 8, W // 8, 3).astype(np.float64)
    return blocks.mean(axis=(2, 4)).reshape(N, -1) / 255


def checked(**sets: np.ndarray) -> list[np.ndarray]:
    """Check that sets of features can be compared; returns them as arrays, each in its dtype.

    Args:
      sets: [count, D] each, under the names that errors give them.

    Raises:
      ValueError: fewer than 2 rows, widths that differ, or features that are not finite.
    """
    arrays = [np.asarray(x) for x in sets.values()]
    if any(x.ndim != 2 or len(x) < 2 for x in arrays) or len({x.shape[1] for x in arrays}) > 1:
        raise ValueError(
            f"features of shapes {[x.shape for x in arrays]}, expected [count, D] with one D and "
            "at least 2 rows"
        )
    for name, x in zip(sets, arrays, strict=True):
        check_finite(f"{name} features", x)
    return arrays


def check_finite(name: str, x: np.ndarray) -> None:
    """Raise ValueError, which tells how many, where rows of x [N, D] are not finite."""
    finite = [np.isfinite(x[i : i + BLOCK]).all(axis=1) for i in range(0, len(x), BLOCK)]
    bad = np.flatnonzero(~np.concatenate(finite)) if finite else np.array([], int)
    if len(bad):
        raise ValueError(
            f"{name} of {len(bad)} of {len(x)} rows are not finite (the first is row {bad[0]})"
        )
