"""Extractors by name, as `--extractor` and the configuration have them."""

from __future__ import annotations

import difflib

from bigtrain.evaluation.extractors.base import Extractor
from bigtrain.evaluation.extractors.custom import ModuleExtractor
from bigtrain.evaluation.extractors.encoders import ENCODERS, EncoderExtractor
from bigtrain.evaluation.extractors.inception import INCEPTION, InceptionExtractor
from bigtrain.evaluation.extractors.resize import Resize

#: Networks with published weights.
PUBLISHED = {"inception": INCEPTION, **{name: encoder.published for name, encoder in ENCODERS.items()}}


def is_available(name: str, weights: str | None = None) -> bool:
    """Whether nothing has to be downloaded for it: the user names weights of his own, or the published ones are here.

    That a name is wrong is for the extractor to say: to measure with something else would hide it.
    """
    return weights is not None or PUBLISHED[name].path.is_file()


def check_name(name: str, *others: str) -> None:
    """Refuses what is neither published, nor one of the others, nor looks like the path of a class or of a file.

    Raises:
        ValueError: with the valid choices.
    """
    names = [*others, *PUBLISHED]
    if name not in names and "." not in name:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(
            f"extractor (={name!r}) is unknown; {hint}valid: {', '.join(names)}, the FILE.safetensors of a trained "
            "classifier, or the path of a class, such as my_package.MyNet"
        )


def named_extractor(name: str, weights: str | None, resize: Resize, resolution: int) -> Extractor:
    """The extractor.

    Args:
        name: in PUBLISHED, or the path of a class.
        weights: path or URL of its weights; None for the published ones, or those that its constructor makes.
        resize: for a published one; other classes do it themselves.
        resolution: of the images that it will be given.

    Raises:
        OSError, ValueError: as each of them does.
    """
    if name == "inception":
        return InceptionExtractor(weights, resize)
    if name in PUBLISHED:
        return EncoderExtractor(name, weights, resize)
    return ModuleExtractor(name, resolution, weights)
