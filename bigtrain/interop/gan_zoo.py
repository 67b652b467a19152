"""Progressive GANs of facebookresearch/pytorch_GAN_zoo: `{config, netG, netD, avgG}`.

Where its networks differ from the paper's: each layer's bias is scaled as its weight, the gain is √2 everywhere, the
one-hot vectors of the classes are normalized with the latent, minibatch standard deviation is that of neighbours, the
discriminator does not fade in its block at 8², and alpha 1 is the old branch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.equalized import Constants, check_names, part, read_layers, widths
from bigtrain.interop.names import by_name, check_number, needed, state_of
from bigtrain.networks import ProgressiveDiscriminator, ProgressiveGenerator

#: Its losses, and whether the generator ends with a tanh under them.
LOSSES = {"WGANGP": False, "Logistic": False, "MSE": True, "DCGAN": True}
#: With more classes than these the discriminator is left out: it would have a vector of each.
MOST_CLASSES = 2**16


def generator_names(scales: int) -> dict[str, str]:
    """Its layers and ours, for images of 4², 8², … at so many scales."""
    first = {"formatLayer": "blocks.0.dense", "groupScale0.0": "blocks.0.conv"}
    return first | _scale_names(scales, "toRGBLayers", "to_rgb")


def discriminator_names(scales: int) -> dict[str, str]:
    """Its layers and ours."""
    last = {"groupScaleZero.0": "blocks.0.conv", "groupScaleZero.1": "blocks.0.dense", "decisionLayer": "logit"}
    return last | _scale_names(scales, "fromRGBLayers", "from_rgb")


def _scale_names(scales: int, rgb: str, our_rgb: str) -> dict[str, str]:
    """Of what stands at each scale: the layers to or from images, and the blocks beyond 4²."""
    names = {f"{rgb}.{scale}": f"{our_rgb}.{scale}" for scale in range(scales)}
    for scale in range(1, scales):
        names[f"scaleLayers.{scale - 1}.0"] = f"blocks.{scale}.conv1"
        names[f"scaleLayers.{scale - 1}.1"] = f"blocks.{scale}.conv2"
    return names


def read(content: Mapping[str, Any]) -> Conversion:
    """The networks of such a file.

    Args:
        content: of the file; its `config` is an object with attributes or a mapping.
    """
    held = set(content) if isinstance(content, Mapping) else set()
    if "config" not in held or not held & {"netG", "avgG"}:
        raise ValueError(
            f"the file holds {sorted(map(str, held))[:4]}, which is not pytorch_GAN_zoo's "
            "{config, netG, netD, avgG}: give a .pt or .pth file that its PGAN has saved"
        )
    config = _Config.of(content["config"])
    name = "avgG" if content.get("avgG") else "netG"
    generator, resolution = _generator(_named(content[name], name), config, name)
    discriminator = _discriminator(_named(content["netD"], "netD"), config) if content.get("netD") else None
    return Conversion(
        generator=generator,
        discriminator=discriminator,
        resolution=resolution,
        alpha=1.0 - config.alpha if resolution > 4 else 1.0,
        notes=_notes(config),
    )


@dataclass(frozen=True)
class _Config:
    """What the weights alone do not say, with the defaults of its code for what an older file does not have."""

    alpha: float
    leak: float
    tanh: bool
    constants: Constants
    attributes: dict[str, list[Any]]  # the values of each, in the order of the one-hot vectors

    @classmethod
    def of(cls, config: Any) -> _Config:
        values = by_name(config)
        if values is None:
            raise ValueError(f"config is a {type(config).__name__}: it must be an object with attributes, or a mapping")
        loss = values.get("lossCriterion", "WGANGP")
        if not isinstance(loss, str) or loss not in LOSSES:
            raise ValueError(f"config.lossCriterion (={loss!r}) must be one of {sorted(LOSSES)}")
        if not values.get("perChannelNormalization", True):
            raise ValueError(
                "config.perChannelNormalization (=False) is what its own generator cannot do: no such file"
            )
        for name in ("alpha", "leakyReluLeak"):
            check_number(values.get(name, 0.0), f"config.{name}")
        equalized = bool(values.get("equalizedlR", True))
        return cls(
            alpha=float(values.get("alpha", 0.0)),
            leak=float(values.get("leakyReluLeak", 0.2)),
            tanh=LOSSES[loss],
            constants=Constants(weights=equalized, biases=equalized),
            attributes=_attributes(values.get("attribKeysOrder") or {}),
        )

    @property
    def sizes(self) -> list[int]:
        """The numbers of values of the attributes."""
        return [len(values) for values in self.attributes.values()]

    @property
    def num_classes(self) -> int:
        return math.prod(self.sizes) if self.sizes else 0


def _attributes(found: Any) -> dict[str, list[Any]]:
    """The values of each attribute, in their order."""

    def known(of: Any) -> bool:
        return isinstance(of, Mapping) and isinstance(of.get("order"), int) and isinstance(of.get("values"), list)

    if not isinstance(found, Mapping) or not all(map(known, found.values())):
        raise ValueError("config.attribKeysOrder must have an order and a list of values for each attribute")
    return {str(name): found[name]["values"] for name in sorted(found, key=lambda name: found[name]["order"])}


def _named(state: Any, where: str) -> dict[str, Tensor]:
    """Its tensors as `formatLayer.weight`: older files have not the `module` of its wrapper in their names."""
    return {key.replace(".module.", "."): value for key, value in state_of(state, where).items()}


def _generator(state: dict[str, Tensor], config: _Config, where: str) -> tuple[Part, int]:
    channels = widths(state, "toRGBLayers.{}.weight", 1, where)
    resolution, names = 2 << len(channels), generator_names(len(channels))
    check_names(state, names, where)
    network, card = part(
        ProgressiveGenerator,
        {
            "resolution": resolution,
            "image_channels": len(state["toRGBLayers.0.weight"]),
            "num_classes": config.num_classes,
            "latent_dim": _latent_dim(needed(state, "formatLayer.weight", where, 2), config, where),
            "channels": channels,
            "leak": config.leak,
            "tanh": config.tanh,
            "attributes": config.sizes or None,
        },
    )
    return Part(card, read_layers(state, names, network, config.constants, where)), resolution


def _latent_dim(weight: Tensor, config: _Config, where: str) -> int:
    """What the first layer takes beside the one-hot vectors."""
    taken, of_classes = weight[0].numel(), sum(config.sizes)
    if taken <= of_classes:
        raise ValueError(
            f"config.attribKeysOrder has {of_classes} values, but {where}'s formatLayer takes {taken} numbers in all"
        )
    return taken - of_classes


def _discriminator(state: dict[str, Tensor], config: _Config) -> Part | None:
    """With classes, the logit of real against fake only, and vectors of the classes that are 0 still."""
    if config.num_classes > MOST_CLASSES:
        return None
    channels = widths(state, "fromRGBLayers.{}.weight", 0, "netD")
    names = discriminator_names(len(channels))
    check_names(state, names, "netD")
    plain_block = state["groupScaleZero.0.weight"].numel() == 9 * channels[0] ** 2
    network, card = part(
        ProgressiveDiscriminator,
        {
            "resolution": 2 << len(channels),
            "image_channels": state["fromRGBLayers.0.weight"].shape[1],
            "num_classes": config.num_classes,
            "channels": channels,
            "leak": config.leak,
            "stddev": "none" if plain_block else "gan_zoo",
            "first_fade": 16,
        },
    )
    # Its first number tells real from fake and is that of the first class too, as base_GAN.py has it; the last is idle.
    decision = {
        key: value[:1] if key.startswith("decisionLayer.") and value.ndim else value for key, value in state.items()
    }
    weights = read_layers(decision, names, network, config.constants, "netD")
    if config.num_classes:
        weights["projection.weight"] = torch.zeros(config.num_classes, channels[0])
    return Part(card, weights)


def _notes(config: _Config) -> list[str]:
    notes = [
        "training goes on with other steps: pytorch_GAN_zoo scales biases like weights, and has the gain √2 also in "
        "to_rgb, in the logit and in the dense layers; it sums its Wasserstein loss over the batch"
    ]
    if config.attributes:
        notes.append(
            "the label counts the values of "
            + ", then ".join(f"{name} ({len(values)}: {values})" for name, values in config.attributes.items())
            + ", the last one fastest"
        )
        notes.append(
            "the discriminator's classifier is left out; a projection of the label, from 0, stands in its place"
            if config.num_classes <= MOST_CLASSES
            else f"the discriminator is left out: with {config.num_classes} classes it cannot have a vector of each"
        )
    return notes
