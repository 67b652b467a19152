"""BigGAN-PyTorch (github.com/ajbrock/BigGAN-PyTorch): the networks of its BigGAN.py and BigGANdeep.py.

A run there is a folder of state dicts, each in a file of its own: G.pth, G_ema.pth (the average), D.pth, optimizers,
and state_dict.pth with the settings; names of copies end in a suffix (G_ema_best0.pth). What its weights depend on:

- Its spectral norm makes one fresh power iteration from u0 in evaluation too, as ours does. (u1, … and sv0, … are for
  its log: only the first singular value divides.)
- The last batch norm has ε 1e-5 whatever BN_eps says (`last_bn_eps`).
- Synchronised batch norm (`cross_replica`) that is not on several GPUs adds the gain instead of multiplying by it.
- In BigGANdeep.py the embedding stands before the latent, in ours behind it: columns change places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from bigtrain.interop.biggan_layouts import Layout, discriminator_layout, generator_layout, layout_of
from bigtrain.interop.biggan_settings import settings_of, written_settings
from bigtrain.interop.conversion import Conversion, Part
from bigtrain.interop.names import NameMap, foreign_name, loaded, needed, network_of, renamed, state_of
from bigtrain.networks.layers import SpectralNorm

#: Their defaults on the command line, of what names and shapes do not tell.
SN_EPS, BN_EPS, LAST_BN_EPS = 1e-8, 1e-5, 1e-5

_BLOCK: Final = r"blocks\.(\d+)\."
_GENERATOR: Final[NameMap] = (
    (r"shared\.", "shared."),
    (r"first\.", "linear."),
    (_BLOCK + r"norm(\d)\.(gain|bias)\.", r"blocks.\1.0.bn\2.\3."),
    (_BLOCK + r"norm(\d)\.running_", r"blocks.\1.0.bn\2.stored_"),
    (_BLOCK + r"conv(\d)\.", r"blocks.\1.0.conv\2."),
    (_BLOCK + r"shortcut\.", r"blocks.\1.0.conv_sc."),
    (r"last_norm\.weight", "output_layer.0.gain"),
    (r"last_norm\.bias", "output_layer.0.bias"),
    (r"last_norm\.running_", "output_layer.0.stored_"),
    (r"last\.", "output_layer.2."),
)
_DISCRIMINATOR: Final[NameMap] = (
    (r"first\.", "input_conv."),
    (_BLOCK + r"conv(\d)\.", r"blocks.\1.0.conv\2."),
    (_BLOCK + r"(shortcut|added)\.", r"blocks.\1.0.conv_sc."),
    (r"logit\.", "linear."),
    (r"projection\.", "embed."),
)
#: Nothing depends on these: further singular vectors, all singular values, counts of batches.
_FOR_THE_LOG: Final = re.compile(r"(.*\.)?(u[1-9]\d*|sv\d+|num_batches_tracked|accumulation_counter)")


def read(
    content: Mapping[str, Any],
    sn_eps: float | None = None,
    bn_eps: float | None = None,
    last_bn_eps: float = LAST_BN_EPS,
    cross_replica: Literal["added", "multiplied"] = "added",
    raw: bool = False,
) -> Conversion:
    """The networks of a folder, or of one of its generators.

    Args:
        content: of the files: `G`, `G_ema`, `D`, `state_dict`, of which a generator must be there.
        sn_eps: ε of spectral norm; None for that of the settings in `state_dict`, or 1e-8.
        bn_eps: ε of the blocks' batch norms; None for that of the settings, or 1e-5.
        last_bn_eps: ε of the last batch norm.
        cross_replica: what synchronised batch norm does with the gain: `added`, as their code does wherever it is not
            on several GPUs (so also in evaluation), or `multiplied`, as it trains on several.
        raw: whether the generator is G rather than G_ema, if there are both.

    Raises:
        ValueError: if it is not a generator of theirs, or a tensor is missing, unknown or misshapen.
    """
    chosen = next((name for name in (("G", "G_ema") if raw else ("G_ema", "G")) if name in content), None)
    if chosen is None:
        raise ValueError(f"there is neither G_ema nor G, only {', '.join(content) or 'nothing'}")
    settings = settings_of(content.get("state_dict"))
    sn_eps = settings.get("SN_eps", SN_EPS) if sn_eps is None else sn_eps
    bn_eps = settings.get("BN_eps", BN_EPS) if bn_eps is None else bn_eps
    notes = [f"the generator is {chosen}" + (f" after {settings['itr']} steps" if settings.get("itr") else "")]
    state = state_of(content[chosen], chosen)
    synchronised = "output_layer.0.bn.running_mean" in state
    added = synchronised and cross_replica == "added"
    if synchronised:
        notes.append(f"its synchronised batch norm is taken as {cross_replica}: see cross_replica")
    if any(name.endswith("accumulation_counter") and value > 0 for name, value in state.items()):
        notes.append("its standing statistics were sums, and are divided by their count")
    state = _one_batch_norm(state, added, chosen)
    layout = generator_layout(state, chosen)
    layout.network["init_args"].update(
        sn_eps=float(sn_eps) if "linear.u0" in state else None,
        bn_eps=float(bn_eps),
        last_bn_eps=float(last_bn_eps),
        gain_added=added,
    )
    discriminator = None
    if "D" in content:
        found = _kept(state_of(content["D"], "D"))
        of_d = discriminator_layout(found, "D")
        of_d.network["init_args"]["sn_eps"] = float(sn_eps)
        discriminator = Part(of_d.network, _ours(found, of_d, _DISCRIMINATOR, "D"))
    generator = Part(layout.network, _ours(state, layout, _GENERATOR, chosen))
    return Conversion(generator, discriminator, layout.network["init_args"]["resolution"], notes=notes)


def write(conversion: Conversion) -> dict[str, Any]:
    """What its folder would hold: the generator as `G` and as `G_ema`, `D` if there is one, and the settings.

    Raises:
        ValueError: if that code has no such network.
    """
    content: dict[str, Any] = {"state_dict": written_settings(conversion)}
    generator = _theirs(conversion.generator, _GENERATOR)
    content["G"] = content["G_ema"] = generator
    if conversion.discriminator is not None:
        content["D"] = _theirs(conversion.discriminator, _DISCRIMINATOR)
    return content


def _kept(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not _FOR_THE_LOG.fullmatch(name)}


def _one_batch_norm(state: dict[str, Tensor], added: bool, what: str) -> dict[str, Tensor]:
    """The statistics of their three batch norms, under the names of the one that is torch's."""
    found = {}
    for name, value in state.items():
        count = state.get(re.sub(r"stored_(mean|var)$", "accumulation_counter", name))
        if name.endswith(("stored_mean", "stored_var")) and count is not None and count > 0:
            value = value / count  # noqa: PLW2901 (standing statistics, which are sums)
        found[re.sub(r"\.bn\.(stored|running)_(mean|var)$", r".stored_\2", name)] = value
    if added:  # bn(x) + gain + bias, which no condition changes
        gain, bias = (needed(found, f"output_layer.0.{name}", what) for name in ("gain", "bias"))
        found["output_layer.0.gain"], found["output_layer.0.bias"] = torch.ones_like(gain), gain + bias
    return _kept(found)


def _names(layout: Layout, names: NameMap) -> NameMap:
    """The name map with what depends on the architecture: BigGANdeep.py's discriminator nests the blocks of a stage."""
    nested = layout.depth if "Discriminator" in layout.network["class_path"] else 1

    def attention(found: re.Match[str]) -> str:
        return f"blocks.{layout.attention[found[1]] // nested}.{nested}."

    def block(found: re.Match[str]) -> str:
        stage, number = divmod(int(found[1]), nested)
        return f"blocks.{stage}.{number}.{'conv_sc' if found[2] == 'added' else found[2]}."

    deep = ((_BLOCK + r"(conv\d|added)\.", block),) if nested > 1 else ()
    return ((r"attention\.(\w+)\.", attention), *deep, *names)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Of our tensors that they have too, by our names; u is called u0 there."""
    found = network.state_dict().items()
    return {re.sub(r"\.u$", ".u0", name): value.shape for name, value in found if not _FOR_THE_LOG.fullmatch(name)}


def _ours(state: Mapping[str, Tensor], layout: Layout, names: NameMap, what: str) -> dict[str, Tensor]:
    """Their tensors under our names."""
    network = network_of(layout.network)
    turned = {name: _turned(name, value, layout, back=False) for name, value in state.items()}
    found = renamed(turned, _shapes(network), _names(layout, names), what)
    ours = {re.sub(r"\.u0$", ".u", name): value for name, value in found.items()}
    counts = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    return ours | {name: torch.tensor(0) for name in counts}


def _theirs(part: Part, names: NameMap) -> dict[str, Tensor]:
    """Our tensors under their names, with the singular values of their log."""
    network, layout = loaded(part), layout_of(part.network)
    shapes, state = _shapes(network), network.state_dict()
    renaming = {name: foreign_name(name, _names(layout, names)) for name in shapes}
    found = {}
    for name, theirs in renaming.items():
        value = _turned(theirs, state[re.sub(r"\.u0$", ".u", name)], layout, back=True)
        found[theirs] = value[None] if name.endswith(".u0") else value.squeeze() if name.endswith("gamma") else value
    for name, module in network.named_modules():
        if isinstance(module, SpectralNorm):
            value = module.weight.norm() / module.normalized_weight().norm()
            found[foreign_name(f"{name}.", _names(layout, names)) + "sv0"] = value[None]
    if "output_layer.0.stored_var" in found:  # their last batch norm has no other ε
        arguments = layout.network["init_args"]
        eps = arguments["bn_eps"] if arguments["last_bn_eps"] is None else arguments["last_bn_eps"]
        found["output_layer.0.stored_var"] = found["output_layer.0.stored_var"] + (eps - LAST_BN_EPS)
    return {name: value.contiguous().clone() for name, value in found.items()}


def _turned(name: str, value: Tensor, layout: Layout, back: bool) -> Tensor:
    """What lies otherwise there: a table of classes is the transpose; the latent comes after the embedding.

    Args:
        name: theirs.
        value: theirs, or ours on the way `back`.
        layout: of the network.
        back: whether it becomes theirs.
    """
    conditional = re.fullmatch(r"blocks\.\d+\.0\.bn\d\.(gain|bias)\.weight", name)
    if value.ndim != 2:  # which `renamed` refuses where it matters
        return value
    if conditional and layout.one_hot:
        return value.T
    if layout.deep and (conditional or (name == "linear.weight" and "latent_dim" in layout.network["init_args"])):
        arguments = layout.network["init_args"]
        first = arguments["latent_dim"] if back else arguments["shared_dim"]
        return torch.cat((value[:, first:], value[:, :first]), dim=1)
    return value
