"""A generator as an ONNX program, which is compared with the generator before it counts."""

from __future__ import annotations

import copy
import logging
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bigtrain import randomness
from bigtrain.networks import Generator
from bigtrain.networks.layers import SpectralNorm

#: Between its images and the generator's, in [-1, 1].
LARGEST_DIFFERENCE = 1e-4
#: Sizes of the batches that are compared.
COMPARED = (1, 3)


class _Placed(nn.Module):
    """A generator at one place, without the arguments of growth."""

    def __init__(self, generator: Generator, place: dict[str, Any]) -> None:
        super().__init__()
        self.generator, self.place = generator, place

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.generator(latent, label, **self.place)


def onnx_of(generator: Generator, place: dict[str, Any]) -> tuple[bytes, float]:
    """The program, and by how much its images differ from the generator's in float32.

    Its inputs are `latent` float32 [n, latent_dim] and, with classes, `label` int64 [n]; its output is `images`.
    Spectral norms are folded into the weights.

    Args:
        generator: as a snapshot has it.
        place: its `resolution` and `alpha`, if it grows.

    Raises:
        ValueError: if the packages are not installed, or the images differ by more than 1e-4.
    """
    try:
        import onnx  # noqa: F401, PLC0415 (an extra)
        import onnxruntime  # noqa: PLC0415
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise ValueError(f"--to onnx needs {error.name}: pip install '.[onnx]'") from error
    network = _Placed(_folded(generator), place if generator.progressive else {}).eval()
    content = _exported(network, _inputs(generator, max(COMPARED)))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differences = []
    for count in COMPARED:
        inputs = _inputs(generator, count)
        with torch.no_grad():
            images = network(*inputs)
        found = _run(session, inputs)
        differences.append(float((found - images).abs().max()))
    largest = max(differences)
    if not largest <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"--to onnx: onnxruntime's images differ from the generator's by {largest:.2g}, more than "
            f"{LARGEST_DIFFERENCE:g}: nothing was written"
        )
    return content, largest


def _run(session: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    names = [given.name for given in session.get_inputs()]
    try:
        (found,) = session.run(None, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))
    except Exception as error:  # onnxruntime has errors of its own
        raise ValueError(f"--to onnx: onnxruntime cannot run a batch of {len(inputs[0])}: {error}") from error
    return torch.from_numpy(found)


def _folded(generator: Generator) -> Generator:
    """A copy whose spectral norms are in the weights, in float32."""
    folded = copy.deepcopy(generator).eval().float()
    for module in folded.modules():
        if isinstance(module, SpectralNorm):
            module.weight.data = module.normalized_weight().detach()
            module.normalized_weight = partial(getattr, module, "weight")  # type: ignore[method-assign]
    return folded.requires_grad_(False)


def _inputs(generator: Generator, count: int) -> tuple[Tensor, ...]:
    indices = range(count)
    latent = torch.from_numpy(randomness.normal(0, "onnx", indices, generator.latent_dim).astype("float32"))
    return (latent, torch.arange(count) % generator.num_classes) if generator.num_classes else (latent,)


def _exported(network: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    count = torch.export.Dim("n")
    names = ["latent", "label"][: len(inputs)]
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it wonders about operators of packages that are not used here
    try:
        with warnings.catch_warnings():  # torch's exporter uses what torch has deprecated
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                inputs,
                input_names=names,
                output_names=["images"],
                dynamic_shapes=tuple({0: count} for _ in inputs),
                dynamo=True,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
