"""The settings of a BigGAN-PyTorch run, as its state_dict.pth has them: what its weights do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigtrain.interop.biggan_layouts import layout_of
from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.names import arguments_of, by_name, check_number, class_name
from bigtrain.networks.layouts import DISCRIMINATOR_WIDTHS

#: Their names of ReLU, in place or not.
RELUS = ("relu", "inplace_relu", "ir")


def settings_of(content: Any) -> dict[str, Any]:
    """The settings by name, with `itr`, the count of steps; nothing if there is no such file.

    Raises:
        ValueError: if the networks are of a kind that cannot be read.
    """
    if not isinstance(content, Mapping):
        return {}
    config = by_name(content.get("config", {}))
    if config is None:
        raise ValueError("state_dict: config must hold settings by name")
    found = {**config, "itr": content.get("itr", 0)}
    for name in ("itr", "BN_eps", "SN_eps"):
        check_number(found.get(name, 0), f"state_dict: {name}")
    for name, readable in (("norm_style", ("bn",)), ("G_nl", RELUS), ("D_nl", RELUS)):
        if found.get(name, readable[0]) not in readable:
            raise ValueError(f"state_dict: {name} (={found[name]!r}) cannot be read; only {', '.join(readable)}")
    return found


def written_settings(conversion: Conversion) -> dict[str, Any]:
    """What `sample.py --config_from_name` and `Generator(**config)` there need.

    Raises:
        ValueError: if that code has no such network.
    """
    config = _generator_config(conversion.generator)
    if conversion.discriminator is not None:
        config |= _discriminator_config(conversion.discriminator)
    counts = {"itr": 0, "epoch": 0, "save_num": 0, "save_best_num": 0, "best_IS": 0, "best_FID": 999999}
    return {**counts, "config": config}


def _generator_config(part: Part) -> dict[str, Any]:
    name, given = class_name(part.network), arguments_of(part.network)
    if name not in ("BigGANGenerator", "BigGANDeepGenerator"):
        raise ValueError(f"biggan-pytorch has no {name}; it has BigGANGenerator and BigGANDeepGenerator")
    _check_common(name, given)
    if given["gain_added"]:
        raise ValueError("biggan-pytorch: a generator with gain_added (=true) cannot be written back")
    deep, stages = name == "BigGANDeepGenerator", (given["resolution"] // 4).bit_length() - 1
    return {
        "model": "BigGANdeep" if deep else "BigGAN",
        "resolution": given["resolution"],
        "n_classes": given["num_classes"],
        "dim_z": given["latent_dim"],
        "shared_dim": given["shared_dim"],
        "G_shared": given["shared_dim"] > 0,
        "hier": deep or given["hierarchical"],
        "G_ch": given["width"],
        "G_attn": _attn(part, [8 << stage for stage in range(stages)]),
        "G_param": "None" if given["sn_eps"] is None else "SN",
        "BN_eps": given["bn_eps"],
        "SN_eps": given["sn_eps"] or 1e-8,
        **({"G_depth": given["depth"]} if deep else {}),
    }


def _discriminator_config(part: Part) -> dict[str, Any]:
    name, given = class_name(part.network), arguments_of(part.network)
    if name not in ("BigGANDiscriminator", "BigGANDeepDiscriminator"):
        raise ValueError(f"biggan-pytorch has no {name}; it has BigGANDiscriminator and BigGANDeepDiscriminator")
    _check_common(name, given)
    deep, resolution = name == "BigGANDeepDiscriminator", given["resolution"]
    if resolution > 256:
        raise ValueError(f"biggan-pytorch has discriminators up to 256², not resolution (={resolution})")
    multiples, _ = DISCRIMINATOR_WIDTHS[resolution]
    stages = len(multiples) - deep
    # As that code names them: at 32² it says 16 of all, and of the others the last two are at 4².
    labels = [16] * stages if resolution == 32 else [max(4, resolution >> (i + 1)) for i in range(stages)]
    return {"D_ch": given["width"], "D_attn": _attn(part, labels), **({"D_depth": given["depth"]} if deep else {})}


def _check_common(name: str, given: Mapping[str, Any]) -> None:
    """What neither of the two can be there."""
    if not given["num_classes"] or given["image_channels"] != 3:
        raise ValueError(
            f"biggan-pytorch has networks with classes and 3 channels only, not a {name} of num_classes "
            f"(={given['num_classes']}) and image_channels (={given['image_channels']})"
        )
    resolution, depth = given["resolution"], given.get("depth", 1)
    if "Deep" in name and (resolution > 256 or ("Generator" in name and resolution > 32 and depth != 2)):
        raise ValueError(
            f"biggan-pytorch has BigGAN-deep up to 256², with generators of depth 2 above 32², not a {name} of "
            f"resolution (={resolution}) and depth (={depth})"
        )


def _attn(part: Part, labels: list[int]) -> str:
    """The resolutions of attention as their G_attn and D_attn name them: 32_64.

    Args:
        part: the network.
        labels: the resolution that their code gives to each stage of blocks.
    """
    depth = arguments_of(part.network).get("depth", 1)
    blocks = set(layout_of(part.network).attention.values())
    asked = {labels[block // depth] for block in blocks}
    made = {depth * (stage + 1) - 1 for stage, label in enumerate(labels) if label in asked}
    if made != blocks:
        raise ValueError(
            f"biggan-pytorch cannot have attention behind blocks {sorted(block + 1 for block in blocks)} only: at "
            f"{sorted(asked)} it has it behind {sorted(block + 1 for block in made)}"
        )
    return "_".join(map(str, sorted(asked))) or "0"
