"""Progressive GANs of akanimax/pro_gan_pytorch (on PyPI pro-gan-pth).

From version 3 on a file is `{generator: {conf, state_dict}, discriminator, shadow_generator, …}`; version 2 has a bare
state dict a network, of which those of generators are read. Where its networks differ from the paper's: the gain is √2
everywhere, what the first layer gives is not normalized (in version 2 the latent is not either), the logit of a
discriminator with classes goes through a leaky ReLU, and its vectors of classes are clipped to the length 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.equalized import (
    Constants,
    arguments,
    check_names,
    part,
    read_layers,
    widths,
    write_layers,
)
from bigtrain.interop.names import needed, state_of
from bigtrain.networks import ProgressiveDiscriminator, ProgressiveGenerator

EMBEDDER = "label_embedder.weight"
#: Of a transposed convolution, which is a dense layer to 4².
FIRST = {2: "initial_block.conv_1", 3: "layers.0.conv_1"}
STEPS = "training goes on with other steps: pro_gan_pytorch has the gain √2 also in to_rgb and in the logit"
CLIPPED = "its vectors of classes are clipped to the length 1 at each use; here they can grow"
OLD_FROM_RGB = "the discriminator is left out: it is of a version before 3.3, without an activation after from_rgb"


def generator_names(scales: int, version: int = 3) -> dict[str, str]:
    """Its layers and ours, for images of 4², 8², … at so many scales."""
    first, shift = FIRST[version].removesuffix("_1"), 3 - version
    names = {f"{first}_1": "blocks.0.dense", f"{first}_2": "blocks.0.conv"}
    for scale in range(scales):
        names[f"rgb_converters.{scale}"] = f"to_rgb.{scale}"
    for scale in range(1, scales):
        names[f"layers.{scale - shift}.conv_1"] = f"blocks.{scale}.conv1"
        names[f"layers.{scale - shift}.conv_2"] = f"blocks.{scale}.conv2"
    return names


def discriminator_names(scales: int) -> dict[str, str]:
    """Its layers and ours: it counts from the highest resolution down."""
    last = scales - 1
    names = {f"layers.{last}.conv_{1 + i}": name for i, name in enumerate(("blocks.0.conv", "blocks.0.dense", "logit"))}
    for scale in range(scales):
        names[f"from_rgb.{last - scale}.0"] = f"from_rgb.{scale}"
    for scale in range(1, scales):
        names[f"layers.{last - scale}.conv_1"] = f"blocks.{scale}.conv1"
        names[f"layers.{last - scale}.conv_2"] = f"blocks.{scale}.conv2"
    return names


def read(
    content: Mapping[str, Any], resolution: int | None = None, alpha: float = 1.0, equalized: bool = True
) -> Conversion:
    """The networks of such a file.

    Args:
        content: of the file.
        resolution: at which the networks stand, which the file does not say (its name may: depth_5 is 32²); None: at
            full growth.
        alpha: how far the last block has faded in.
        equalized: whether the learning rate was equalized, for a file of version 2, which does not say it.
    """
    content = content if isinstance(content, Mapping) else {}
    generator, full = _generator(content, equalized)
    if resolution is not None and (resolution < 4 or resolution > full or resolution & (resolution - 1)):
        raise ValueError(f"resolution (={resolution}) must be a power of two from 4 to {full}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha (={alpha}) must be between 0 and 1")
    discriminator, notes = None, [STEPS]
    if content.get("discriminator"):
        discriminator, more = _discriminator(content["discriminator"])
        notes += more
    return Conversion(generator, discriminator, resolution or full, alpha, notes)


def _generator(content: Mapping[str, Any], equalized: bool) -> tuple[Part, int]:
    """The averaged one, if there is one."""
    name = next((name for name in ("shadow_generator", "generator") if content.get(name)), None)
    if name is not None:
        state, equalized = _saved(content[name], name)
        return _generator_part(state, 3, equalized, name)
    where = "the file"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        state = state_of(content, where)
        if "initial_block.conv_1.deconv.weight" in state:
            raise ValueError("this generator is of pro-gan-pth 1, whose files lack the scales of its layers")
        if f"{FIRST[2]}.weight" in state:
            return _generator_part(state, 2, equalized, where)
    raise ValueError(
        f"the file holds {sorted(map(str, content))[:4]}, which is not pro_gan_pytorch's {{generator, discriminator, "
        "shadow_generator}, nor a generator of its version 2 (GAN_GEN_….pth)"
    )


def _saved(saved: Any, where: str) -> tuple[dict[str, Tensor], bool]:
    """The state dict of a network, and whether its learning rate is equalized."""
    if not isinstance(saved, Mapping) or "conf" not in saved or "state_dict" not in saved:
        raise ValueError(f"{where} must hold 'conf' and 'state_dict', as pro_gan_pytorch saves it")
    return state_of(saved["state_dict"], where), bool(saved["conf"].get("use_eql", True))


def _generator_part(state: dict[str, Tensor], version: int, equalized: bool, where: str) -> tuple[Part, int]:
    channels = widths(state, "rgb_converters.{}.weight", 1, where)
    resolution, names = 2 << len(channels), generator_names(len(channels), version)
    check_names(state, names, where)
    weight = needed(state, f"{FIRST[version]}.weight", where, 4)  # [latent_dim, c, 4, 4]
    bias = needed(state, f"{FIRST[version]}.bias", where, 1)  # [c]
    if weight.shape[2:] != (4, 4):
        raise ValueError(f"{where}: {FIRST[version]}.weight has the shape {list(weight.shape)}, not […, …, 4, 4]")
    dense = {"weight": weight.permute(1, 2, 3, 0).flatten(0, 2), "bias": bias.repeat_interleave(16)}  # [16 c, …]
    state = state | {f"{FIRST[version]}.{kind}": value for kind, value in dense.items()}
    network, card = part(
        ProgressiveGenerator,
        {
            "resolution": resolution,
            "image_channels": len(state["rgb_converters.0.weight"]),
            "latent_dim": len(weight),
            "channels": channels,
            "first_norms": "pro_gan" if version == 3 else "pro_gan_2",
        },
    )
    return Part(card, read_layers(state, names, network, Constants(equalized, biases=False), where)), resolution


def _discriminator(saved: Any) -> tuple[Part | None, list[str]]:
    """With notes about it."""
    where = "discriminator"
    state, equalized = _saved(saved, where)
    if "from_rgb.0.weight" in state:
        return None, [OLD_FROM_RGB]
    channels = widths(state, "from_rgb.{}.0.weight", 0, where)[::-1]
    names, last = discriminator_names(len(channels)), len(channels) - 1
    embedder = f"layers.{last}.{EMBEDDER}"
    vectors = needed(state, embedder, where, 2) if embedder in state else None  # [num_classes, features]
    state.pop(embedder, None)
    check_names(state, names, where)
    features = len(needed(state, f"layers.{last}.conv_2.weight", where, 4))
    network, card = part(
        ProgressiveDiscriminator,
        {
            "resolution": 2 << len(channels),
            "image_channels": state["from_rgb.0.0.weight"].shape[1],
            "num_classes": 0 if vectors is None else len(vectors),
            "channels": channels,
            "features": features,
            "leaky_logit": vectors is not None,
        },
    )
    weights = read_layers(state, names, network, Constants(equalized, biases=False), where)
    if vectors is None:
        return Part(card, weights), []
    if vectors.shape[1:] != (features,):
        raise ValueError(f"{where}: {EMBEDDER} has the shape {list(vectors.shape)}, not […, {features}]")
    clipped = vectors.double().renorm(2, 0, 1.0)
    weights["projection.weight"] = (clipped * math.sqrt(features)).float()
    return Part(card, weights), [CLIPPED]


def write(conversion: Conversion) -> dict[str, Any]:
    """What version 3 saves, without optimizers: the generator also as the shadow generator.

    (Its own code makes only networks of the widths that fmap_base 16384 and fmap_max 512 give.)

    Raises:
        ValueError: if its networks cannot do what these do.
    """
    generator = _written_generator(conversion.generator)
    content = {"generator": generator, "shadow_generator": generator}
    if conversion.discriminator is not None:
        content["discriminator"] = _written_discriminator(conversion.discriminator)
    return content


def _written_generator(of: Part) -> dict[str, Any]:
    required = {"first_norms": "pro_gan", "num_classes": 0, "leak": 0.2, "tanh": False}
    found = arguments(of, ProgressiveGenerator, required, "pro-gan-pth")
    network, _ = part(ProgressiveGenerator, of.network["init_args"])
    scales, latent_dim = len(network.to_rgb), network.latent_dim
    state = write_layers(of.state, generator_names(scales), network, Constants(True, biases=False))
    weight, bias = state[f"{FIRST[3]}.weight"], state[f"{FIRST[3]}.bias"].unflatten(0, (-1, 16))
    if not torch.equal(bias, bias[:, :1].expand_as(bias)):
        raise ValueError(
            "blocks.0.dense.bias differs between pixels, for this generator has been trained: to be pro-gan-pth it "
            "must be one number a feature map"
        )
    state[f"{FIRST[3]}.weight"] = weight.reshape(-1, 4, 4, latent_dim).permute(3, 0, 1, 2).contiguous()
    state[f"{FIRST[3]}.bias"] = bias[:, 0].clone()
    return {"conf": _conf(scales, found["image_channels"], latent_dim), "state_dict": state}


def _written_discriminator(of: Part) -> dict[str, Any]:
    conditional = bool(of.network["init_args"].get("num_classes", 0))
    required = {"stddev": "original", "stddev_group": 4, "leak": 0.2, "first_fade": 8, "leaky_logit": conditional}
    found = arguments(of, ProgressiveDiscriminator, required, "pro-gan-pth")
    network, _ = part(ProgressiveDiscriminator, of.network["init_args"])
    scales, features = len(network.from_rgb), network.logit.weight.shape[1]
    state = write_layers(of.state, discriminator_names(scales), network, Constants(True, biases=False))
    head = f"layers.{scales - 1}.conv_"
    state[f"{head}3.weight"] = state[f"{head}3.weight"][:, :, None, None]  # [1, features, 1, 1]
    if conditional:
        vectors = (of.state["projection.weight"].double() / math.sqrt(features)).float()
        if vectors.norm(dim=1).max() > 1 + 1e-5:
            raise ValueError(
                "projection.weight has vectors that are longer than the square root of their dimension, which "
                "pro_gan_pytorch clips"
            )
        state[f"layers.{scales - 1}.{EMBEDDER}"] = vectors
    conf = _conf(scales, found["image_channels"], features) | {"num_classes": found["num_classes"] or None}
    return {"conf": conf, "state_dict": state}


def _conf(scales: int, image_channels: int, latent_size: int) -> dict[str, Any]:
    return {"depth": scales + 1, "num_channels": image_channels, "latent_size": latent_size, "use_eql": True}
