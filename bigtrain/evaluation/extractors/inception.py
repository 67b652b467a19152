"""The Inception-v3 network of 2015-12-05, whose features FID and whose logits the Inception Score are defined by."""

from __future__ import annotations

import io
import os

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bigtrain.evaluation.extractors.base import Extractor
from bigtrain.evaluation.extractors.resize import RESIZES, Resize
from bigtrain.evaluation.extractors.weights import Published, load_weights
from bigtrain.randomness import seeded

#: The weights that torch-fidelity converted from TensorFlow's; the name ends with the start of their SHA-256.
INCEPTION = Published(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
SIZE = 299


class InceptionExtractor(Extractor):
    """torch-fidelity's Inception-v3: pooled features [n, 2048] and logits without the bias [n, 1008].

    Its spatial features are the first seven channels of TensorFlow's `mixed_6/conv`, [n, 7·17·17]: of sFID
    (arXiv 2103.03841, appendix).

    Args:
        weights: path or URL of the state dict; by default torch-fidelity's, which is downloaded once.
        resize: to 299 pixels.

    Raises:
        OSError: if the weights are not there and cannot be downloaded; the message says which file to put where.
        ValueError: if the file is not what its name promises, or not the weights of this network.
    """

    channels = 3
    feature_dim = 2048
    num_classes = 1008
    spatial_dim = 7 * 17 * 17

    def __init__(self, weights: str | os.PathLike[str] | None = None, resize: Resize = RESIZES["tensorflow"]) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: PLC0415 (slow)

        loaded = load_weights(weights, INCEPTION)
        # torch-fidelity unpickles whatever file it is given, so it gets one that we wrote ourselves.
        own_file = io.BytesIO()
        torch.save(loaded.tensors, own_file)
        own_file.seek(0)
        try:
            with seeded(0, "inception"):  # the constructor draws initial weights
                self.network = FeatureExtractorInceptionV3(
                    "inception", ["2048"], feature_extractor_weights_path=own_file
                )
        except RuntimeError as error:
            raise ValueError(
                f"weights {loaded.source!r} are not those of torch-fidelity's Inception-v3: {error}"
            ) from error
        self.name, self.weight_hash = "inception-v3-2015-12-05", loaded.hash
        self._resize = resize
        self.resize, self.quantisation = resize.of(SIZE), "uint8"
        self.requires_grad_(False).eval()
        _fold_batch_norms(self.network)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = (self._resize(images, SIZE) - 128) / 128
        if x.device.type == "cpu":  # whose convolutions take a third less with the channels innermost
            x = x.contiguous(memory_format=torch.channels_last)
        *blocks, head = self.network.named_children()
        for name, block in blocks:  # in the order of the forward pass, up to the global average
            x = block(x)
            if name == "Mixed_6d":
                spatial = x[:, :7].flatten(1)  # [n, 7·17·17]
        features = x.flatten(1)
        return features, features.mm(head[1].weight.T), spatial


def _fold_batch_norms(network: nn.Module) -> None:
    """Of each convolution and the running averages behind it one convolution, which differs in the last digits."""
    for block in list(network.modules()):
        convolution, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(convolution, norm), nn.Identity()
