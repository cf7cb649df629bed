"""Distances between sets of features, of whatever network computed them.

Letters: N samples, M reference images, D features.
"""

import numpy as np
import scipy.special
from sklearn.neighbors import KNeighborsClassifier


def frechet_distance(reference: np.ndarray, samples: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features.

    Args:
      reference: [M, D].
      samples: [N, D].

    Returns:
      |mu_r - mu_s|^2 + tr(S_r + S_s - 2 (S_r S_s)^(1/2)) with covariances over N - 1.

    Raises:
      ValueError: fewer than 2 rows, other widths, or features that are not finite.

    Source: Heusel et al. 2017; openai/guided-diffusion, evaluations/evaluator.py.
    """
    reference, samples = _checked(reference, samples)
    factors = [_covariance_factor(x) for x in (reference, samples)]
    # The eigenvalues of S_r S_s are the squared singular values of the product of the factors. The
    # matrix square root of the official code is slower, and not exact where S_r S_s is singular.
    root = np.linalg.svd(factors[0].T @ factors[1], compute_uv=False).sum()
    difference = reference.mean(axis=0) - samples.mean(axis=0)
    traces = sum((factor**2).sum() for factor in factors) - 2 * root
    return float(difference @ difference + traces)


def _covariance_factor(x: np.ndarray) -> np.ndarray:
    """F with F F^T = covariance of the rows, [D, min(N, D)]."""
    centred = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred.T
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors * np.sqrt(np.maximum(values, 0))


def inception_score(logits: np.ndarray, split_size: int = 5000) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp(mean KL(p(y|x) || p(y))).

    Args:
      logits: [N, classes], in the order that is split: shuffle what is sorted by class.
      split_size: images a split; the last may be smaller.

    Source: Salimans et al. 2016; openai/guided-diffusion, evaluations/evaluator.py.
    """
    logits = np.asarray(logits, np.float64)
    scores = []
    for start in range(0, len(logits), split_size):
        log_p = scipy.special.log_softmax(logits[start : start + split_size], axis=1)
        p = np.exp(log_p)
        divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores)), float(np.std(scores))


def precision_recall(reference: np.ndarray, samples: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall.

    Args:
      reference: [M, D].
      samples: [N, D].
      k: neighbour whose distance is the radius around each point.

    Returns:
      Share of samples within the manifold of the reference, and the other way round.

    Source: Kynkaanniemi et al. 2019; openai/guided-diffusion, evaluations/evaluator.py.
    """
    reference, samples = _checked(reference, samples)
    if min(len(reference), len(samples)) <= k:
        raise ValueError(
            f"{len(reference)} reference and {len(samples)} sample features: expected more than {k}"
        )
    return (
        float(_inside(samples, reference, _radii(reference, k)).mean()),
        float(_inside(reference, samples, _radii(samples, k)).mean()),
    )


def class_accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    samples: np.ndarray,
    labels: np.ndarray,
    k: int = 5,
) -> float:
    """Share of samples whose label a k-nearest-neighbour classifier on the reference gives too."""
    reference, samples = _checked(reference, samples)
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


def _checked(*sets: np.ndarray) -> list[np.ndarray]:
    arrays = [np.asarray(x, np.float64) for x in sets]
    if any(x.ndim != 2 or len(x) < 2 for x in arrays) or len({x.shape[1] for x in arrays}) > 1:
        raise ValueError(
            f"features of shapes {[x.shape for x in arrays]}, expected [count, D] with one D and "
            "at least 2 rows"
        )
    if not all(np.isfinite(x).all() for x in arrays):
        raise ValueError("features that are not finite")
    return arrays


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)
    return np.maximum(squares - 2 * x @ y.T, 0)


def _radii(points: np.ndarray, k: int, block: int = 4096) -> np.ndarray:
    starts = range(0, len(points), block)
    # Index k of the sorted distances, since the nearest point is the point itself.
    return np.concatenate(
        [
            np.partition(_squared_distances(points[i : i + block], points), k, 1)[:, k]
            for i in starts
        ]
    )


def _inside(
    points: np.ndarray, manifold: np.ndarray, radii: np.ndarray, block: int = 4096
) -> np.ndarray:
    starts = range(0, len(points), block)
    return np.concatenate(
        [(_squared_distances(points[i : i + block], manifold) <= radii).any(axis=1) for i in starts]
    )
