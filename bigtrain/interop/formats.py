"""The formats by name. What reads and writes one is imported only when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from bigtrain.interop.conversion import Conversion


class Format(NamedTuple):
    """A foreign format.

    Args:
        module: with `read(content, …) -> Conversion`, and `write(conversion) -> content` if there is a way back.
        what: it is, in words.
        files: in its folder, by their names in `content`; a suffix stands for `{}`. Nothing if it is one file, whose
            content is all there is.
        single: whose content a file is that is given instead of the folder,
        companions: and which are read beside it.
        writes: whether there is a way back.
    """

    module: str
    what: str
    files: Mapping[str, str]
    single: str
    companions: tuple[str, ...]
    writes: bool

    @property
    def code(self) -> ModuleType:
        return importlib.import_module(f"bigtrain.interop.{self.module}")


FORMATS: Final[dict[str, Format]] = {
    "biggan-pytorch": Format(
        "biggan_pytorch",
        "ajbrock's BigGAN and BigGAN-deep: a folder of G_ema.pth, G.pth, D.pth, state_dict.pth, or a generator's file",
        {"G_ema": "G_ema{}.pth", "G": "G{}.pth", "D": "D{}.pth", "state_dict": "state_dict{}.pth"},
        "G",
        (),
        writes=True,
    ),
    "hf-biggan": Format(
        "hf_biggan",
        "Hugging Face's pytorch-pretrained-BigGAN: a folder of pytorch_model.bin and config.json, or the former",
        {"weights": "pytorch_model.bin", "config": "config.json"},
        "weights",
        ("config",),
        writes=False,
    ),
    "gan-zoo-pgan": Format("gan_zoo", "PGAN of Facebook's pytorch_GAN_zoo: its .pt", {}, "", (), writes=False),
    "pro-gan-pth": Format("pro_gan", "pro_gan_pytorch: the file that its training saves", {}, "", (), writes=True),
}


def read(name: str, content: Any, options: Mapping[str, Any]) -> Conversion:
    """The networks of what a format's files hold.

    Args:
        name: of the format.
        content: of its files by their names, or of its one file.
        options: those that were given, of the format's own.

    Raises:
        ValueError: if the content is not of the format.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"a file of {name} holds tensors by name, not a {type(content).__name__}")
    conversion: Conversion = FORMATS[name].code.read(content, **options)
    return conversion


def write(name: str, conversion: Conversion) -> Mapping[str, Any]:
    """What the format's files would hold, as `read` takes it.

    Raises:
        ValueError: if it has no such networks.
    """
    content: Mapping[str, Any] = FORMATS[name].code.write(conversion)
    return content
