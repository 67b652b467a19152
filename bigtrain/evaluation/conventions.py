"""Named protocols: what the common libraries of scores fix, each as itself. Scores by different ones do not compare."""

from __future__ import annotations

from dataclasses import dataclass

from bigtrain.evaluation.extractors.resize import RESIZES, Resize


@dataclass(frozen=True)
class Conventions:
    """What is fixed before anything is measured.

    Attributes:
        name: of the protocol.
        extractor: what it measures with, where nothing else is named.
        inception_resize: what it does to images for Inception-v3,
        encoder_resize: and for VGG16, CLIP and DINOv2.
        ddof: delta degrees of freedom of the covariances.
        splits: parts of the samples for the Inception Score.
        neighbours: k of precision and recall.
        strict: whether a sample must be nearer than a k-th neighbour is, or may be as far.
    """

    name: str
    extractor: str = "inception"
    inception_resize: Resize = RESIZES["tensorflow"]
    encoder_resize: Resize = RESIZES["tensorflow"]
    ddof: int = 1
    splits: int = 10
    neighbours: int = 3
    strict: bool = False

    def resize(self, extractor: str) -> Resize:
        """How images are resized for an extractor of this name."""
        return self.inception_resize if extractor == "inception" else self.encoder_resize


#: TensorFlow's, as the papers have it, in torch-fidelity's numerics.
TF1 = Conventions("tf1")
#: clean-fid (Parmar et al., arXiv 2104.11222).
_CLEAN = Conventions("clean", inception_resize=RESIZES["bicubic-float"], encoder_resize=RESIZES["bicubic-float"])
#: torchmetrics from 1.8 on, by default.
_ANTIALIAS = Conventions(
    "antialias", inception_resize=RESIZES["bilinear-antialias"], encoder_resize=RESIZES["bilinear-antialias"]
)
#: Stein et al., arXiv 2306.04675.
_DGM_EVAL = Conventions(
    "dgm-eval",
    extractor="dinov2-vit-l-14",
    inception_resize=RESIZES["bilinear"],
    encoder_resize=RESIZES["bicubic-uint8"],
    neighbours=5,
    strict=True,
)
#: NVIDIA's Inception resizes inside, to the same pixels as TensorFlow.
_STYLEGAN = Conventions("stylegan", ddof=0)

PROTOCOLS = {found.name: found for found in (TF1, _CLEAN, _ANTIALIAS, _DGM_EVAL, _STYLEGAN)}


def conventions(protocol: str | None) -> Conventions:
    """The conventions of that name, those of TF1 without one.

    Raises:
        ValueError: if there are none.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise ValueError(f"protocol (={protocol!r}) is unknown; valid are {', '.join(PROTOCOLS)}")
    return TF1 if protocol is None else PROTOCOLS[protocol]
