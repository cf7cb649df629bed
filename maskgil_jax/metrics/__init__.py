"""Metrics as plain functions on arrays, computed in float64."""

from maskgil_jax.metrics.features import class_accuracy
from maskgil_jax.metrics.frechet import Gaussian, Moments, frechet_distance, frechet_distance_of
from maskgil_jax.metrics.kernel import kernel_distance
from maskgil_jax.metrics.manifolds import density_coverage, precision_recall
from maskgil_jax.metrics.reconstruction import codebook_usage, psnr, ssim
from maskgil_jax.metrics.scores import clip_score, inception_score

__all__ = [
    "Gaussian",
    "Moments",
    "class_accuracy",
    "clip_score",
    "codebook_usage",
    "density_coverage",
    "frechet_distance",
    "frechet_distance_of",
    "inception_score",
    "kernel_distance",
    "precision_recall",
    "psnr",
    "ssim",
]
