"""The Inception-v3 network of 2015-12-05, whose features FID and whose logits the Inception Score are defined by."""

from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path

import torch
from torch import Tensor

from bigtrain.evaluation.extractors import Extractor
from bigtrain.randomness import seeded
from bigtrain.storage import Storage

#: The weights that torch-fidelity converted from TensorFlow's; the name ends with the start of their SHA-256.
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


class InceptionExtractor(Extractor):
    """torch-fidelity's Inception-v3: pooled features [n, 2048] and logits without the bias [n, 1008].

    Args:
        weights: path or URL of the state dict; by default torch-fidelity's, which is downloaded once.

    Raises:
        OSError: if the weights are not there and cannot be downloaded; the message says which file to put where.
        ValueError: if the file is not what its name promises, or not the weights of this network.
    """

    channels = 3
    feature_dim = 2048
    num_classes = 1008

    def __init__(self, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: PLC0415 (slow)

        source = os.fspath(weights or INCEPTION_URL)
        content = _read_weights(source)
        state = _load_state(content, source)
        # torch-fidelity unpickles whatever file it is given, so it gets one that we wrote ourselves.
        own_file = io.BytesIO()
        torch.save(state, own_file)
        own_file.seek(0)
        layers = ["2048", "logits_unbiased"]
        try:
            with seeded(0, "inception"):  # the constructor draws initial weights
                self.network = FeatureExtractorInceptionV3("inception", layers, feature_extractor_weights_path=own_file)
        except RuntimeError as error:
            raise ValueError(f"weights {source!r} are not those of torch-fidelity's Inception-v3: {error}") from error
        self.name = "inception-v3-2015-12-05"
        self.weight_hash = hashlib.sha256(content).hexdigest()[:12]
        self.resize, self.quantisation = "bilinear 299 as in TensorFlow 1, without antialias", "uint8"
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images)


def inception_available(weights: str | os.PathLike[str] | None = None) -> bool:
    """Whether nothing has to be downloaded: the user names weights of his own, or the default ones are here.

    That a name is wrong is for the extractor to say: to measure with something else would hide it.
    """
    return weights is not None or _cached().is_file()


def _cached() -> Path:
    """Where torch.hub, and so torch-fidelity too, keeps the default weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rpartition("/")[2]


def _read_weights(source: str) -> bytes:
    """The bytes of a weights file, checked against the hash in its name if it has one."""
    if source == INCEPTION_URL:
        _download(_cached())
        content = _cached().read_bytes()
    else:
        folder, _, name = source.rpartition("/")
        content = Storage(folder or ".").read(name)
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", source)
    found = hashlib.sha256(content).hexdigest()
    if promised and not found.startswith(promised[1]):
        where = _cached() if source == INCEPTION_URL else source
        raise ValueError(
            f"{where}: its SHA-256 starts with {found[:8]}, not with the {promised[1]} of its name; delete it"
        )
    return content


def _download(path: Path) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), progress=False)
    except OSError as error:
        raise OSError(
            f"{INCEPTION_URL} cannot be downloaded ({error}); fetch it elsewhere and put it at {path}"
        ) from error


def _load_state(content: bytes, source: str) -> dict[str, Tensor]:
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler refuses in many ways, and each means the same to the user
        raise ValueError(f"weights {source!r}: not a file of tensors only ({type(error).__name__})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights {source!r}: not a state dict (tensors by name)")
    return dict(state)
