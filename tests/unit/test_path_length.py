"""Perceptual path length: closed forms, the published tails, torch-fidelity's figure, and any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity import metric_ppl, sample_similarity_lpips
from torch_fidelity.generative_model_base import GenerativeModelBase
from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS
from torchvision.models import vgg16

from bigtrain.evaluation import paths
from bigtrain.evaluation.extractors import Extractor, lpips
from bigtrain.evaluation.extractors.encoders import ENCODERS
from bigtrain.evaluation.extractors.lpips import LpipsExtractor
from bigtrain.evaluation.extractors.weights import Published
from bigtrain.evaluation.metrics.path_length import EPSILON, path_length
from bigtrain.evaluation.paths import check_takes_unrounded, evaluate_paths, squared_distances
from bigtrain.evaluation.protocol import Provenance
from bigtrain.networks import Generator
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.latents import draw_latents

DIM = 5


class Linear(Generator):
    """A matrix, and for each class another scale; in float64."""

    def __init__(self, num_classes: int = 0, normalise: bool = False, resolution: int = 4) -> None:
        super().__init__(resolution, 3, num_classes, DIM)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(3 * resolution**2, DIM, generator=generator, dtype=torch.float64)
        self.matrix, self.normalise = nn.Parameter(0.1 * pixels), normalise

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if self.normalise:
            latent = F.normalize(latent, dim=1)
        images = latent @ self.matrix.T
        if self.num_classes:
            images = images * (1 + self.needed_label(label)[:, None])
        return images.unflatten(1, (3, self.resolution, self.resolution))


class Pixels(Extractor):
    """The pixels themselves as features, in the type that they come in."""

    name, weight_hash, channels, feature_dim, num_classes = "pixels", "", 3, 48, 0
    resize, quantisation = "none", "uint8"
    device = torch.device("cpu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1).double(), torch.zeros(len(images), 0)


def measured(generator: Generator, name: str = "ppl", num: int = 50, batch: int = 8, **options) -> float:  # type: ignore[no-untyped-def]
    sampler = Sampler(generator, 3, cycled([0, 1]), batch=batch)
    return evaluate_paths(sampler, Pixels(), name, num, batch, Provenance(seed=3), 4, **options).value


def latents(num: int) -> tuple[Tensor, Tensor]:
    """The ends of the ways of seed 3."""
    return tuple(draw_latents(3, f"latent/{stream}", range(num), DIM).double() for stream in ("sample", "path"))  # type: ignore[return-value]


@pytest.mark.parametrize("num_classes", [0, 2])
def test_a_linear_generator_has_a_closed_form(num_classes: int) -> None:
    """On straight ways ‖A(b - a)‖² in pixels, wherever the step is; a class counts at both ends alike."""
    generator = Linear(num_classes)
    start, end = latents(50)
    scale = 127.5 * (1 + torch.arange(50) % 2 if num_classes else torch.ones(50))
    steps = (((end - start) @ generator.matrix.T) * scale[:, None]).square().sum(dim=1).detach()
    # Of 50 steps, both percentiles are the outermost ones themselves.
    assert measured(generator, "ppl_linear") == pytest.approx(float(steps.mean()), rel=1e-6)


def test_arcs_of_a_generator_that_normalises_are_as_long_as_their_angle() -> None:
    """‖A d(direction)/dt‖² = angle²·‖A tangent‖²: with an orthogonal A, the angle alone, anywhere on the way."""
    generator = Linear(normalise=True)
    generator.matrix.data = torch.linalg.qr(generator.matrix.data).Q
    start, end = (F.normalize(some, dim=1) for some in latents(50))
    angle = (start * end).sum(dim=1).acos()
    for name in ("ppl", "ppl_end"):
        assert measured(generator, name) == pytest.approx(127.5**2 * float(angle.square().mean()), rel=1e-6)


def test_both_tails_are_left_out() -> None:
    """Of 1000 steps the ten smallest and the ten largest: the percentiles themselves stay."""
    steps = torch.arange(1000.0, dtype=torch.float64)
    shuffled = steps[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    shuffled[shuffled == 999] = 1e9
    assert path_length(shuffled * EPSILON**2) == pytest.approx(float(steps[9:991].mean()), rel=1e-12)


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_measures_the_same(world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ranks keep adds up, to the bit, to what one of them would."""
    parts: list[Tensor] = []
    monkeypatch.setattr(paths.KeptDistances, "add_ranks", lambda kept: parts.append(kept.rows.clone()))
    whole: list[Tensor] = []
    monkeypatch.setattr(paths, "path_length", lambda distances: whole.append(distances) or 0.0)
    for rank in range(world_size):
        measured(Linear(2), num=21, rank=rank, world_size=world_size)
    measured(Linear(2), num=21)
    torch.testing.assert_close(sum(parts), whole[-1], rtol=1e-9, atol=0)
    assert ((torch.stack(parts) != 0).sum(dim=0) == 1).all()  # each step was one rank's


def test_what_is_told_of_a_score() -> None:
    sampler = Sampler(Linear(), 3, cycled([0]), truncation=0.5, batch=8)
    score = evaluate_paths(sampler, Pixels(), "ppl_end", 2000, 8, Provenance(seed=3, truncation=0.5, kimg=1.0), 4)
    assert (score.metric, score.num_fake, score.num_real, score.kimg) == ("ppl_end2k", 2000, None, 1.0)
    assert (score.protocol.extractor, score.protocol.quantisation, score.truncation) == ("pixels", "none", 0.5)
    assert score.protocol.settings == (
        "at the start of paths in Z, spherical, epsilon 0.0001, between percentiles 1 and 99; squared distance of the "
        "extractor's features"
    )
    assert score.value < measured(Linear(), "ppl_end", 2000)  # the truncated latents are nearer to each other


def test_numbers_that_are_none_are_no_score() -> None:
    broken = Linear()
    broken.matrix.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="50 of 50 distances by 'pixels' are no finite numbers"):
        measured(broken)


def test_extractors_that_round_are_refused() -> None:
    class Rounding(Pixels):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(images / 255 if images.dtype == torch.uint8 else images)

    check_takes_unrounded(Pixels(), 4)
    with pytest.raises(ValueError, match="other features of float pixels"):
        check_takes_unrounded(Rounding(), 4)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[nn.Module, Path]]:
    """torch-fidelity's LPIPS with random weights, and the folder of their files."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        network = vgg16()
    network.features.to_empty(device="cpu")
    for parameter in network.features.parameters():
        fan_in = parameter[0].numel()
        nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5, generator=generator)
    channels = {
        f"lin{i}.model.1.weight": torch.rand(1, count, 1, 1, generator=generator)
        for i, count in enumerate((64, 128, 256, 512, 512))
    }
    torch.save(channels, folder / "weights-vgg16-lpips.pth")
    torch.save({f"features.{name}": value for name, value in network.features.state_dict().items()}, folder / "vgg.pth")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sample_similarity_lpips, "load_state_dict_from_url", lambda *_, **__: channels)
        patched.setattr(sample_similarity_lpips, "torchvision_load_pretrained_vgg16", lambda: network)
        yield SampleSimilarityLPIPS("lpips-vgg16"), folder


@pytest.fixture
def mine(theirs: tuple[nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> LpipsExtractor:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(theirs[1].parent))
    monkeypatch.setitem(lpips.ENCODERS, "vgg16", replace(ENCODERS["vgg16"], published=Published("https://no/vgg.pth")))
    return LpipsExtractor(24)


def test_squared_distances_are_lpips(theirs, mine) -> None:  # type: ignore[no-untyped-def]
    """torch-fidelity's, of pixels that need not be whole; more pairs than are compared at a time."""
    generator = torch.Generator().manual_seed(1)
    images, others = (255 * torch.rand(20, 3, 24, 24, generator=generator) for _ in range(2))
    expected = theirs[0](images, others).flatten()
    found = squared_distances(mine, images, others)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)
    assert expected.std() > 1e-3 * expected.mean()


def test_images_that_lpips_cannot_see_are_refused(mine) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="at least 16 pixels; these have 8"):
        LpipsExtractor(8)


def test_large_images_are_made_smaller(mine, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As StyleGAN does: each pixel of the largest size is the mean of those it covers."""
    monkeypatch.setattr(lpips, "LARGEST", 16)
    image = 255 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mine(image)[0], mine(F.avg_pool2d(image, 2))[0])


def test_the_figure_is_torch_fidelitys(theirs, mine, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """On the same generator and latents, which it takes at the start of the way and of length one."""
    generator = Linear(normalise=True, resolution=32)
    drawn = iter(F.normalize(some, dim=1) for some in latents(40))
    monkeypatch.setattr(metric_ppl, "sample_random", lambda *_: next(drawn))
    monkeypatch.setattr(metric_ppl, "create_sample_similarity", lambda *_, **__: theirs[0])
    percentile = np.percentile  # whose argument `interpolation` numpy has renamed
    monkeypatch.setattr(np, "percentile", lambda *given, interpolation: percentile(*given, method=interpolation))

    class Model(GenerativeModelBase):
        z_size, z_type, num_classes = DIM, "normal", 0

        def forward(self, latent: Tensor) -> Tensor:
            return (generator(latent) + 1) * 127.5

    options = {"input1_model_num_samples": 40, "batch_size": 40, "cuda": False, "verbose": False}
    expected = metric_ppl.calculate_ppl(1, input1=Model(), ppl_z_interp_mode="slerp_unit", **options)
    monkeypatch.setattr(np, "percentile", percentile)
    sampler = Sampler(generator, 3, cycled([0]), batch=40)
    found = evaluate_paths(sampler, mine, "ppl_end", 40, 40, Provenance(seed=3), 32)
    assert found.value == pytest.approx(expected["perceptual_path_length_mean"], rel=1e-2)
