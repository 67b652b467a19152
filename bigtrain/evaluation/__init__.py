"""Scores of generated images: extractors make features, statistics sum them up, metrics compare the sums."""
