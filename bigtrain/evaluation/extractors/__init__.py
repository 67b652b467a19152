"""Extractors: from uint8 images to the features and logits that every metric is computed from, in one pass."""

from bigtrain.evaluation.extractors.base import Extractor, Measures, exact_arithmetic, hash_weights

__all__ = ["Extractor", "Measures", "exact_arithmetic", "hash_weights"]
