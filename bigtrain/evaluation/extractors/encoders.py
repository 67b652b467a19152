"""Networks that only encode, without logits: VGG16, CLIP and DINOv2, each with its published weights and input."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigtrain.evaluation.extractors.base import Extractor
from bigtrain.evaluation.extractors.dinov2 import DinoV2
from bigtrain.evaluation.extractors.resize import Resize
from bigtrain.evaluation.extractors.weights import Published, load_weights
from bigtrain.randomness import seeded

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Encoder:
    """A published encoder.

    Args:
        published: its weights.
        build: makes the network and the size of its input of them.
        statistics: mean and deviation of each channel, of pixels in [0, 1], that its input is normalised by.
    """

    published: Published
    build: Callable[[dict[str, Tensor]], tuple[nn.Module, int]]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]


class EncoderExtractor(Extractor):
    """A published encoder as an extractor; it has no logits.

    Args:
        name: of ENCODERS.
        weights: path or URL of the weights; by default the published ones, which are downloaded once.
        resize: to the size of its input.

    Raises:
        OSError: if the weights are not there and cannot be downloaded; the message says which file to put where.
        ValueError: if the file is not what its name promises, or not the weights of this network.
    """

    channels = 3
    num_classes = 0
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, weights: str | os.PathLike[str] | None, resize: Resize) -> None:
        super().__init__()
        encoder = ENCODERS[name]
        loaded = load_weights(weights, encoder.published)
        try:
            self.network, self.size = encoder.build(loaded.tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"weights {loaded.source!r} are not those of {name!r}: {error}") from error
        for kind, values in zip(("mean", "deviation"), encoder.statistics, strict=True):
            self.register_buffer(kind, torch.tensor([255 * value for value in values])[:, None, None])
        self.name, self.weight_hash = name, loaded.hash
        self._resize = resize
        self.resize, self.quantisation = resize.of(self.size), "uint8"
        self.requires_grad_(False).eval()
        blank = torch.zeros(1, self.channels, self.size, self.size, dtype=torch.uint8)
        self.feature_dim = self.measure(blank).features.shape[1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network((self._resize(images, self.size) - self.mean) / self.deviation)
        return features, features.new_empty(len(features), 0)


def _vgg16(state: dict[str, Tensor]) -> tuple[nn.Module, int]:
    """Up to the ReLU behind the second dense layer, [n, 4096]: what StyleGAN's precision and recall are measured on."""
    from torchvision.models import vgg16  # noqa: PLC0415 (slow)

    with torch.device("meta"):
        network = vgg16()
    network.load_state_dict(state, assign=True)
    network.classifier = network.classifier[:5]
    return network, 224


def _clip(state: dict[str, Tensor]) -> tuple[nn.Module, int]:
    """The image's embedding; of a text there need be no weights."""
    from torch_fidelity.feature_extractor_clip import build_model  # noqa: PLC0415 (slow)

    embedding = state["visual.proj"] if "visual.proj" in state else state["visual.attnpool.c_proj.weight"].T
    seen = {name: value for name, value in state.items() if name.startswith("visual.")}
    with seeded(0, "clip"):  # the constructor draws initial weights
        network = build_model({**seen, "text_projection": embedding}, torch.float32).visual
    return network, network.input_resolution


def _dinov2(state: dict[str, Tensor]) -> tuple[nn.Module, int]:
    network = DinoV2.of(state)
    return network, 16 * network.patch  # 224


def _of_clip(name: str, sha256: str) -> Encoder:
    """The file is a TorchScript archive, which is opened only if it is the very one of this hash."""
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{name}.pt"
    return Encoder(Published(url, f"clip-{name.lower()}-{sha256}.pt"), _clip, CLIP)


def _of_dinov2(letter: str) -> Encoder:
    name = f"dinov2_vit{letter}14"
    return Encoder(Published(f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"), _dinov2, IMAGENET)


ENCODERS = {
    "vgg16": Encoder(Published("https://download.pytorch.org/models/vgg16-397923af.pth"), _vgg16, IMAGENET),
    "clip-vit-b-32": _of_clip("ViT-B-32", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    "clip-vit-b-16": _of_clip("ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    "clip-vit-l-14": _of_clip("ViT-L-14", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    "clip-vit-l-14-336px": _of_clip(
        "ViT-L-14-336px", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
    ),
    **{f"dinov2-vit-{letter}-14": _of_dinov2(letter) for letter in "sblg"},
}
