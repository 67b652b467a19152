"""Resizing: to the bit what Pillow, torch-fidelity and torchmetrics do, which is why their scores differ."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.image.fid import NoTrainInceptionV3

from bigtrain.evaluation.conventions import PROTOCOLS
from bigtrain.evaluation.extractors.resize import RESIZES
from bigtrain.sampling.pixels import to_uint8

SIZES = [(32, 299), (400, 299), (33, 224), (299, 299), (7, 20)]


def images(size: int, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (n, 3, size, size + 1), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bicubic_is_pillows(old: int, new: int) -> None:
    """In float as clean-fid asks for it, to float32's last digits; in uint8 as dgm-eval does, exactly."""
    batch = images(old)
    in_float, in_uint8 = (RESIZES[name](batch, new) for name in ("bicubic-float", "bicubic-uint8"))
    for index, image in enumerate(batch):
        channels = [Image.fromarray(channel.numpy().astype(np.float32)) for channel in image]
        theirs = np.stack([channel.resize((new, new), Image.Resampling.BICUBIC) for channel in channels]).clip(0, 255)
        np.testing.assert_allclose(in_float[index], theirs, rtol=0, atol=4e-5)
        rounded = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((new, new), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(in_uint8[index].permute(1, 2, 0), np.asarray(rounded))


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_tensorflow_1_begins_at_the_corner(old: int, new: int) -> None:
    """Pixel i is at i · (in / out) of the old image: TensorFlow 1 knew no centre of a pixel, and no antialias."""
    batch = images(old)
    expected = batch.double().numpy()
    for axis in (2, 3):
        length = expected.shape[axis]
        place = np.arange(new) * np.float32(length / new)
        low = place.astype(int)
        high, part = np.minimum(low + 1, length - 1), np.expand_dims(place - low, tuple(range(1, 4 - axis)))
        expected = expected.take(low, axis) * (1 - part) + expected.take(high, axis) * part
    np.testing.assert_allclose(RESIZES["tensorflow"](batch, new), expected, atol=2e-2)  # their place is in float32


@pytest.mark.parametrize("name", ["bilinear", "bilinear-antialias"])
def test_a_doubled_ramp_is_a_ramp(name: str) -> None:
    ramp = (10 * torch.arange(8, dtype=torch.uint8)).expand(1, 1, 8, 8)
    row = RESIZES[name](ramp, 16)[0, 0, 3]
    torch.testing.assert_close(row[1:-1], 10 * ((torch.arange(1, 15) + 0.5) / 2 - 0.5))


def test_antialias_averages_what_the_others_skip() -> None:
    board = (255 * (torch.arange(64)[:, None] + torch.arange(64)).remainder(2)).to(torch.uint8).expand(1, 3, -1, -1)
    spread = {name: float(RESIZES[name](board, 16).std()) for name in RESIZES}
    assert max(spread[name] for name in ("bilinear-antialias", "bicubic-float", "bicubic-uint8")) < 5
    assert spread["tensorflow"] == 0  # it sees every fourth pixel alone, all of one colour
    assert float(RESIZES["tensorflow"](board, 16).max()) in (0, 255)


def test_torchmetrics_resizes_by_antialias() -> None:
    """Its network, cut off behind the resize."""

    class Cut(Exception):  # noqa: N818
        pass

    seen = []

    class Network(NoTrainInceptionV3):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.features_list, self.use_antialias, self._dtype = ["64"], True, torch.float32

        def Conv2d_1a_3x3(self, x: torch.Tensor) -> None:  # noqa: N802
            seen.append(x)
            raise Cut

    with pytest.raises(Cut):
        Network()._torch_fidelity_forward(images(32))
    ours = (PROTOCOLS["antialias"].resize("inception")(images(32), 299) - 128) / 128
    torch.testing.assert_close(ours, seen[0], rtol=0, atol=0)
    assert inspect.signature(torch.nn.functional.interpolate).parameters["antialias"].default is False


def test_an_image_of_the_right_size_stays() -> None:
    square = images(20)[..., :20]
    for name, resize in RESIZES.items():
        torch.testing.assert_close(resize(square, 20), square.float(), rtol=0, atol=0, msg=name)
        assert "20" in resize.of(20)


def test_our_samples_are_rounded_as_nvidias_are() -> None:
    """StyleGAN's x·127.5 + 128, cut off, is the nearest value, but where x lies exactly between two."""
    x = torch.linspace(-1.2, 1.2, 10_007)
    torch.testing.assert_close(to_uint8(x), (x * 127.5 + 128).clamp(0, 255).to(torch.uint8), rtol=0, atol=0)
