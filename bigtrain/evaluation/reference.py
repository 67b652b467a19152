"""Statistics of the real images, measured once and kept beside the shards under a key of all that decides them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.metrics import square_root
from bigtrain.evaluation.statistics import FeatureStatistics
from bigtrain.evaluation.tensor_file import pack, unpack
from bigtrain.storage import Storage

#: To be raised when the same images would give other statistics.
VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real images.

    Attributes:
        features: count, sum and second moment of their features.
        class_counts: images of each class, int64 [num_classes]; empty without labels.
        manifest: hash of the manifest of the images.
        full: whether they are the whole training set,
        left_out: but for so many damaged images.
    """

    features: FeatureStatistics
    class_counts: Tensor
    manifest: str
    full: bool
    left_out: int = 0

    @property
    def num_real(self) -> int:
        return int(self.features.count)

    @cached_property
    def root(self) -> Tensor:
        """L with L·Lᵀ = covariance: the costly part of a Fréchet distance that does not depend on the fakes."""
        return square_root(self.features.covariance)


def content_key(
    manifest: str, resolution: int, extractor: Extractor, num_real: int | None = None, damaged: bool = False
) -> str:
    """A hash of everything that the statistics depend on, for the name of their file.

    Args:
        manifest: hash of the manifest of the shards.
        resolution: at which the images are measured.
        extractor: that measures them.
        num_real: how many of them, if not all.
        damaged: whether damaged ones are left out; how many is in the file.
    """
    parts = {
        "manifest": manifest,
        "resolution": resolution,
        "extractor": [extractor.name, extractor.weight_hash, extractor.protocol],
        "num_real": num_real,
        "dtype": "float64",
        "version": VERSION,
        **({"damaged": True} if damaged else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def measure_reference(
    batches: Iterable[tuple[Tensor, Tensor | None]],
    extractor: Extractor,
    manifest: str,
    num_classes: int = 0,
    full: bool = True,
) -> Reference:
    """Measures real images.

    Args:
        batches: uint8 images [n, c, h, w] and int64 labels [n] or None, each image once. All batches but the last
            should be of one size; a smaller one is padded on the way.
        extractor: that measures them.
        manifest: hash of the manifest of the images.
        num_classes: of the labels; 0 if there are none.
        full: whether the batches are the whole training set.

    Raises:
        ValueError: if there are fewer than two images.
    """
    batch_size = 0
    statistics = None
    class_counts = torch.zeros(num_classes, dtype=torch.int64)
    for images, labels in batches:
        batch_size = max(batch_size, len(images))
        features, _ = extractor.padded_features(images, batch_size)
        if statistics is None:
            # The first batch's mean is close enough to the mean for the precision of the sums.
            statistics = FeatureStatistics(extractor.feature_dim, features.double().mean(dim=0)).to(extractor.device)
        statistics.update(features)
        if labels is not None and num_classes:
            class_counts += torch.bincount(labels.cpu(), minlength=num_classes)
    if statistics is None or statistics.count < 2:
        raise ValueError("a reference needs at least 2 real images")
    return Reference(statistics.cpu(), class_counts, manifest, full)


def reference_statistics(
    storage: Storage, key: str, make: Callable[[], Reference], damaged_key: str | None = None, may_lack: int = 0
) -> Reference:
    """The statistics that are stored under the key below the shards, or else those of `make`, which are then stored.

    A store that cannot be written costs the next run the same work, and this one a warning.

    Args:
        storage: of the shards.
        key: of the statistics of all images.
        make: measures them.
        damaged_key: of those that are without damaged images.
        may_lack: so many of them; what was stored with more left out is measured again.
    """
    for one, most in ((key, 0), (damaged_key, may_lack)):
        if one is not None and storage.exists(_name(one)):
            reference = _from_bytes(storage.read(_name(one)))
            if reference.left_out <= most:
                return reference
    reference = make()
    try:
        storage.write(_name((reference.left_out and damaged_key) or key), _to_bytes(reference))
    except OSError as error:
        _log.warning("the statistics of the real images cannot be stored, the next run computes them again: %s", error)
    return reference


def _name(key: str) -> str:
    return f"evaluation/{key}.safetensors"


def _to_bytes(reference: Reference) -> bytes:
    features = reference.features
    tensors = {**features.sums(), "shift": features.shift, "class_counts": reference.class_counts}
    card = {"manifest": reference.manifest, "full": reference.full, "left_out": reference.left_out}
    return pack(tensors, card)


def _from_bytes(content: bytes) -> Reference:
    tensors, card = unpack(content)
    shift, class_counts = tensors.pop("shift"), tensors.pop("class_counts")
    features = FeatureStatistics(len(shift), shift)
    features.merge_state(tensors)
    return Reference(features, class_counts, **card)
