"""Any module of the user's as an extractor, by the path of its class."""

from __future__ import annotations

import hashlib
import inspect
import os
from pydoc import ErrorDuringImport, locate

import torch
from torch import Tensor, nn

from bigtrain.evaluation.extractors.base import Extractor, hash_weights, probe
from bigtrain.evaluation.extractors.weights import load_weights
from bigtrain.randomness import seeded


class ModuleExtractor(Extractor):
    """A module that takes uint8 images [n, c, h, w] and returns features [n, d], or features and logits [n, k].

    It resizes and scales them itself. Its class is called without arguments; its attribute `channels` says how many
    channels it takes, 3 if it has none. The name in scores carries a hash of the file that its class is in, as the
    same weights in other code give other features.

    Args:
        path: of the class, such as `my_package.MyNet`.
        resolution: of the images that it will be given.
        weights: path or URL of its state dict; None for those that its constructor makes (with a fixed seed).

    Raises:
        ValueError: if there is no such class, or it does not do the above.
    """

    def __init__(self, path: str, resolution: int, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        kind = _module_class(path)
        with seeded(0, "extractor"):
            self.network = _made(kind, path)
        if weights is not None:
            loaded = load_weights(weights)
            try:
                self.network.load_state_dict(loaded.tensors)
            except RuntimeError as error:
                raise ValueError(f"weights {loaded.source!r} are not those of {path!r}: {error}") from error
        self.name = path + _code_hash(kind)
        self.weight_hash = hash_weights(self.network.state_dict())
        self.channels = getattr(self.network, "channels", 3)
        self.resize, self.quantisation = "the module's own", "uint8"
        self.register_buffer("_place", torch.zeros(0), persistent=False)  # so that there is a device without weights
        self.requires_grad_(False).eval()
        self.feature_dim, self.num_classes = self._dimensions(resolution)

    @property
    def device(self) -> torch.device:
        return self.get_buffer("_place").device

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.network(images)
        features, *logits = found if isinstance(found, tuple | list) else (found,)
        return (features, *logits) if logits else (features, features.new_empty(len(features), 0))

    def _dimensions(self, resolution: int) -> tuple[int, int]:
        """Of features and logits, as two images show them, which are not blank: some networks divide by a deviation."""
        images = probe(self.channels, resolution)
        expected = "features [n, d], or features and logits [n, k]"
        try:
            features, logits, _ = self.measure(images)
        except Exception as error:  # of the user's code, whatever it is
            raise ValueError(
                f"extractor {self.name!r} must make {expected} of uint8 images {list(images.shape)}: {error}"
            ) from error
        if any(output.dim() != 2 or len(output) != 2 for output in (features, logits)):
            shapes = f"{list(features.shape)} and {list(logits.shape)}"
            raise ValueError(f"extractor {self.name!r} makes {shapes} of 2 images; it must make {expected}")
        return features.shape[1], logits.shape[1]


def _module_class(path: str) -> type[nn.Module]:
    try:
        found = locate(path)
    except ErrorDuringImport as error:
        raise ValueError(f"extractor (={path!r}) cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        problem = "there is no such class (is its folder on PYTHONPATH?)" if found is None else "it is no torch module"
        raise ValueError(f"extractor (={path!r}): {problem}; give the path of a class, such as my_package.MyNet")
    return found


def _made(kind: type[nn.Module], path: str) -> nn.Module:
    try:
        return kind()
    except TypeError as error:
        raise ValueError(f"extractor (={path!r}): its class must work without arguments: {error}") from error


def _code_hash(kind: type) -> str:
    """`@` and the first 8 hex digits of the SHA-256 of the file that a class is in; nothing if it is in none."""
    try:
        code = inspect.getsource(inspect.getmodule(kind) or kind)
    except (OSError, TypeError):
        return ""
    return f"@{hashlib.sha256(code.encode()).hexdigest()[:8]}"
