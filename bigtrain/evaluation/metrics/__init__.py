"""Metrics as pure functions of what was gathered of the samples, in float64: one file a family.

The Fréchet distance's and the Inception Score's are sums; pairs of images are compared block by block.
"""

from bigtrain.evaluation.metrics.bins import different_bins, k_means
from bigtrain.evaluation.metrics.diversity import support_size, vendi_score
from bigtrain.evaluation.metrics.frechet import (
    frechet_distance,
    frechet_distance_of,
    frechet_distances_of_classes,
    frechet_infinity,
    square_root,
)
from bigtrain.evaluation.metrics.kernels import cmmd, kernel_distance, kernel_distance_of_all
from bigtrain.evaluation.metrics.neighbours import (
    Pairs,
    density_coverage,
    memorization_distance,
    nearest_neighbour_accuracy,
    precision_recall,
    retrieval_distance,
)
from bigtrain.evaluation.metrics.pixels import ms_ssim_diversity, sliced_wasserstein
from bigtrain.evaluation.metrics.posteriors import (
    am_score,
    inception_score,
    mode_divergence,
    mode_score,
    modified_inception_scores,
)

__all__ = [
    "Pairs",
    "am_score",
    "cmmd",
    "density_coverage",
    "different_bins",
    "frechet_distance",
    "frechet_distance_of",
    "frechet_distances_of_classes",
    "frechet_infinity",
    "inception_score",
    "k_means",
    "kernel_distance",
    "kernel_distance_of_all",
    "memorization_distance",
    "mode_divergence",
    "mode_score",
    "modified_inception_scores",
    "ms_ssim_diversity",
    "nearest_neighbour_accuracy",
    "precision_recall",
    "retrieval_distance",
    "sliced_wasserstein",
    "square_root",
    "support_size",
    "vendi_score",
]
