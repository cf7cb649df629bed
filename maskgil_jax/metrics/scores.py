"""Scores of images without a reference.

The inception score: how sure a classifier is of each image, and how varied its classes are. The
CLIP score: how near images are to their captions.
"""

import numpy as np
import numpy.typing as npt
import scipy.special

from maskgil_jax.metrics import features

SPLIT_SIZE = 5000  # of the ADM evaluator


def inception_score(
    logits: np.ndarray, split_size: int | None = None, splits: int | None = None
) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp(mean KL(p(y|x) || p(y))).

    Args:
      logits: [N, classes], in the order that is split: shuffle what is sorted by class.
      split_size: images a split; the last may be smaller. 5,000 unless `splits` is given.
      splits: number of splits, of equal size up to one image: split i is rows i N // splits to
        (i + 1) N // splits.

    Returns:
      The mean, and the deviation over the number of splits (not one less).

    Raises:
      ValueError: both split_size and splits, fewer rows than splits, none at all, or logits that
        are not finite.

    Source: Salimans et al. 2016. With split_size it is openai/guided-diffusion's
    evaluations/evaluator.py, which computes p in float32 and gives no deviation. With splits=10 it
    is torch-fidelity 0.4.0, which first takes the rows in the order
    np.random.RandomState(2020).permutation(N) unless its shuffling is off.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise ValueError(f"logits of shape {logits.shape}, expected [N, classes]")
    features.check_finite("logits", logits)
    edges = _edges(len(logits), split_size, splits)
    scores = [_score(logits[i:j]) for i, j in zip(edges[:-1], edges[1:], strict=True)]
    return float(np.mean(scores)), float(np.std(scores))


def _edges(count: int, split_size: int | None, splits: int | None) -> list[int]:
    if split_size is not None and splits is not None:
        raise ValueError(f"split_size = {split_size} and splits = {splits}, expected one of them")
    least = max(splits or 1, 1)
    if count < least:
        raise ValueError(f"{count} rows of logits, expected at least {least}")
    if splits is not None:
        if splits < 1:
            raise ValueError(f"splits = {splits}, expected 1 or more")
        return [i * count // splits for i in range(splits + 1)]
    size = SPLIT_SIZE if split_size is None else split_size
    if size < 1:
        raise ValueError(f"split_size = {size}, expected 1 or more")
    return [*range(0, count, size), count]


def _score(logits: np.ndarray) -> float:
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    # The mean divergence as a difference of entropies, which knows that 0 log 0 is 0.
    own = scipy.special.entr(p).sum(axis=1).mean()
    return float(np.exp(scipy.special.entr(p.mean(axis=0)).sum() - own))


def clip_score(images: npt.ArrayLike, captions: npt.ArrayLike) -> float:
    """Mean of `clip_score_of_each`, whose arguments it takes."""
    return float(clip_score_of_each(images, captions).mean())


def clip_score_of_each(images: npt.ArrayLike, captions: npt.ArrayLike) -> np.ndarray:
    """100 times the cosine of an image and its caption, or 0 where that is negative: float64 [N].

    Args:
      images, captions: CLIP's embeddings, [N, E], of which none is zero.

    Source: Hessel et al. 2021 (arXiv 2104.08718), with 100 in the place of their w = 2.5.
    torchmetrics' CLIPScore cuts off at 0 after the mean.
    """
    images, captions = np.asarray(images, np.float64), np.asarray(captions, np.float64)
    if images.shape != captions.shape or images.ndim != 2:
        raise ValueError(
            f"images {images.shape} and captions {captions.shape}, expected two arrays [N, E]"
        )
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(captions, axis=1)
    return 100 * np.maximum((images * captions).sum(axis=1) / lengths, 0)
