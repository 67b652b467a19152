"""Statistics of the real images, measured once and kept beside the shards under a key of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.kept import KEPT, Choice, kept_images
from bigtrain.evaluation.metrics import square_root
from bigtrain.evaluation.places import Places
from bigtrain.evaluation.statistics import FeatureStatistics
from bigtrain.evaluation.tensor_file import pack, unpack
from bigtrain.storage import Storage

#: To be raised when the same images would give other statistics.
VERSION = 3


#: What can be kept of some of the real images, chosen at random, for the metrics that sums do not serve.
PARTS = REAL_FEATURES, REAL_IMAGES = "real_features", "real_images"


class Labelled(NamedTuple):
    """Rows of some of the real images, features float32 [m, d] or pixels uint8 [m, c, h, w].

    Their labels are int64 [m], -1 without labels.
    """

    rows: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real images.

    Attributes:
        features: count, sum and second moment of their features.
        class_counts: images of each class, int64 [num_classes]; empty without labels.
        manifest: hash of the manifest of the images.
        full: whether they are the whole training set,
        left_out: but for so many damaged images.
        spatial: as `features`, of the extractor's spatial features; None if it has none.
        posterior: mean p(y|x) of its logits, float64 [k]; None if that is not known.
        load: for each of PARTS that was kept, what reads it.
    """

    features: FeatureStatistics
    class_counts: Tensor
    manifest: str
    full: bool
    left_out: int = 0
    spatial: FeatureStatistics | None = None
    posterior: Tensor | None = None
    load: Mapping[str, Callable[[], Labelled]] = field(default_factory=dict)

    @cached_property
    def kept(self) -> Labelled:
        """Some of the features."""
        return self.load[REAL_FEATURES]()

    @cached_property
    def images(self) -> Labelled:
        """Some of the images."""
        return self.load[REAL_IMAGES]()

    @cached_property
    def spatial_root(self) -> Tensor:
        """The same as `root`, of the spatial features."""
        assert self.spatial is not None
        return square_root(self.spatial.covariance)

    @property
    def num_real(self) -> int | None:
        """None if it is not known, as of statistics that others have measured."""
        return int(self.features.count)

    @cached_property
    def root(self) -> Tensor:
        """L with L·Lᵀ = covariance: the part of a Fréchet distance that does not depend on the fakes."""
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
    parts: Collection[str] = (),
) -> Reference:
    """Measures real images.

    Args:
        batches: uint8 images [n, c, h, w] and int64 labels [n] or None, each image once. All batches but the last
            should be of one size; a smaller one is padded on the way.
        extractor: that measures them.
        manifest: hash of the manifest of the images.
        num_classes: of the labels; 0 if there are none.
        full: whether the batches are the whole training set.
        parts: of PARTS, what to keep.

    Raises:
        ValueError: if there are fewer than two images.
    """
    gathering: _Gathering | None = None
    for images, labels in batches:
        gathering = gathering or _Gathering(extractor, len(images), images.shape[1:], num_classes, parts)
        gathering.update(images, labels)
    if gathering is None or gathering.features.count < 2:
        raise ValueError("a reference needs at least 2 real images")
    return gathering.reference(manifest, full)


class _Gathering:
    """What `measure_reference` has seen so far; the arguments are its first batch's size and shape of an image."""

    def __init__(
        self, extractor: Extractor, batch_size: int, shape: torch.Size, num_classes: int, parts: Collection[str]
    ) -> None:
        self.extractor, self.batch_size = extractor, batch_size
        self.features = FeatureStatistics(extractor.feature_dim)
        self.spatial = FeatureStatistics(extractor.spatial_dim) if extractor.spatial_dim else None
        self.posterior = torch.zeros(extractor.num_classes, dtype=torch.float64, device=extractor.device)
        self.class_counts = torch.zeros(num_classes, dtype=torch.int64)
        limits = {REAL_FEATURES: KEPT, REAL_IMAGES: kept_images(shape)}
        self.choices = {part: Choice(limits[part]) for part in parts}

    def update(self, images: Tensor, labels: Tensor | None) -> None:
        self.batch_size = max(self.batch_size, len(images))
        features, logits, spatial = self.extractor.measure(images, self.batch_size)
        first = int(self.features.count)
        indices = first + np.arange(len(images))
        for statistics, measured in ((self.features, features), (self.spatial, spatial)):
            if statistics is not None and measured is not None:
                if first == 0:  # this batch's mean is close enough to the mean for the precision of the sums
                    statistics.shift = measured.double().mean(dim=0)
                    statistics.to(self.extractor.device)
                statistics.update(measured)
        self.posterior += logits.double().softmax(dim=1).sum(dim=0)
        if labels is not None and len(self.class_counts):
            self.class_counts += torch.bincount(labels.cpu(), minlength=len(self.class_counts))
        known = torch.full((len(images),), -1) if labels is None else labels
        for part, choice in self.choices.items():
            choice.update(indices, features if part == REAL_FEATURES else images, known)

    def reference(self, manifest: str, full: bool) -> Reference:
        kept = {part: Labelled(*choice.rows_and_labels()) for part, choice in self.choices.items()}
        posterior = self.posterior.cpu() / self.features.count.cpu()
        spatial = None if self.spatial is None else self.spatial.cpu()
        features, counts = self.features.cpu(), self.class_counts
        load = {part: partial(_itself, labelled) for part, labelled in kept.items()}
        return Reference(features, counts, manifest, full, 0, spatial, posterior, load)


def _itself(labelled: Labelled) -> Labelled:
    return labelled


def reference_statistics(
    places: Places,
    key: str,
    make: Callable[[], Reference],
    damaged_key: str | None = None,
    may_lack: int = 0,
    parts: Collection[str] = (),
) -> Reference:
    """The statistics that are stored under the key, or else those of `make`, which are then stored.

    Args:
        places: where.
        key: of the statistics of all images.
        make: measures them.
        damaged_key: of those that are without damaged images.
        may_lack: so many of them; what was stored with more left out is measured again.
        parts: of PARTS, what must be there too.
    """
    for one, most in ((key, 0), (damaged_key, may_lack)):
        for storage in () if one is None else places.holding(_name(one)):
            reference = _from_storage(storage, str(one))
            if reference.left_out <= most and reference.load.keys() >= set(parts):
                return reference
    reference = make()
    made = (reference.left_out and damaged_key) or key

    def write(storage: Storage) -> None:
        for part, load in reference.load.items():
            storage.write(_name(made, part), pack(load()._asdict(), {}))
        storage.write(_name(made), _to_bytes(reference))

    kept = places.keep("what was measured of the real images", write)
    return reference if kept is None else _from_storage(kept, made)  # what is stored is not held in memory


def _name(key: str, part: str = "") -> str:
    return f"evaluation/{key}{part and '-'}{part}.safetensors"


def _kept(storage: Storage, name: str) -> Labelled:
    return Labelled(**unpack(storage.read(name), storage.locate(name))[0])


def _to_bytes(reference: Reference) -> bytes:
    tensors = {"class_counts": reference.class_counts}
    for prefix, statistics in (("", reference.features), ("spatial.", reference.spatial)):
        if statistics is not None:
            stored = {**statistics.sums(), "shift": statistics.shift}
            tensors |= {prefix + name: tensor for name, tensor in stored.items()}
    if reference.posterior is not None:
        tensors["posterior"] = reference.posterior
    card = {"manifest": reference.manifest, "full": reference.full, "left_out": reference.left_out}
    return pack(tensors, card)


def _from_storage(storage: Storage, key: str) -> Reference:
    tensors, card = unpack(storage.read(_name(key)), storage.locate(_name(key)))
    class_counts, posterior = tensors.pop("class_counts"), tensors.pop("posterior", None)
    spatial = {name: tensors.pop(name) for name in list(tensors) if name.startswith("spatial.")}
    there = (part for part in PARTS if storage.exists(_name(key, part)))
    return Reference(
        _statistics(tensors),
        class_counts,
        **card,
        spatial=_statistics({name.removeprefix("spatial."): one for name, one in spatial.items()}) if spatial else None,
        posterior=posterior,
        load={part: partial(_kept, storage, _name(key, part)) for part in there},
    )


def _statistics(tensors: dict[str, Tensor]) -> FeatureStatistics:
    shift = tensors.pop("shift")
    statistics = FeatureStatistics(len(shift), shift)
    statistics.merge_state(tensors)
    return statistics
