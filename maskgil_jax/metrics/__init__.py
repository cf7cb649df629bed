"""Metrics as plain functions on arrays, computed in float64."""

from maskgil_jax.metrics.features import (
    class_accuracy,
    frechet_distance,
    inception_score,
    precision_recall,
)
from maskgil_jax.metrics.reconstruction import codebook_usage, psnr, ssim

__all__ = [
    "class_accuracy",
    "codebook_usage",
    "frechet_distance",
    "inception_score",
    "precision_recall",
    "psnr",
    "ssim",
]
