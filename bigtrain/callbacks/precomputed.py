"""Scores a sampler against statistics that another library has measured."""

from __future__ import annotations

from collections.abc import Sequence

from bigtrain.callbacks.scoring_base import Measurement, Scoring
from bigtrain.evaluation.precomputed import load_precomputed
from bigtrain.evaluation.reference import Reference


class PrecomputedScorer(Scoring):
    """Measures generators against the statistics in an .npz file.

    That they were measured by the same extractor and protocol is for the user to know: the file does not tell.

    Args:
        url: of the file.
        resolution: of the samples.
        channels: of the samples; None for as many as the extractor takes.
        by: extractor and protocol.

    Raises:
        ValueError: if the file is not what it should be, or would need a classifier.
    """

    def __init__(self, url: str, resolution: int, channels: int | None, by: Measurement) -> None:
        self.url, self._reference = url, load_precomputed(url)
        super().__init__(resolution, channels or 0, [], by)
        if self.kind == "classifier":
            raise ValueError(f"extractor (=classifier) is trained on shards; --reference (={url!r}) is none")
        self.channels = channels or self.extractor.channels

    def _kind(self) -> str:
        return self.conventions.extractor if self.by.extractor == "auto" else self.by.extractor

    @property
    def standard(self) -> str:
        return f"{self._reference.manifest} at {self.resolution}²"

    def reference(self, metrics: Sequence[str]) -> Reference:
        found = self._reference
        if found.features.dim != self.extractor.feature_dim:
            raise ValueError(
                f"--reference (={self.url!r}) holds statistics of {found.features.dim} features, but "
                f"{self.extractor.name!r} makes {self.extractor.feature_dim}: name the --extractor they are of"
            )
        return found
