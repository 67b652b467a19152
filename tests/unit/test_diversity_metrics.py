"""What a classifier takes the fakes for, how different they are, and their pixels: by hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from bigtrain.evaluation import metrics
from bigtrain.evaluation.metrics.classification import classification_accuracy
from bigtrain.evaluation.metrics.posteriors import divergence
from bigtrain.evaluation.statistics import DirectionStatistics, LogitStatistics, PosteriorStatistics
from bigtrain.randomness import normal


def posteriors(*rows: list[float]) -> PosteriorStatistics:
    """Of samples with these p(y|x)."""
    statistics = PosteriorStatistics(len(rows[0]))
    statistics.update(torch.tensor(rows, dtype=torch.float64).log())
    return statistics


def random_logits(n: int = 60, k: int = 5) -> Tensor:
    return 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(0))


def test_mode_score_by_its_definition_and_as_an_inception_score() -> None:
    logits, real = random_logits(), torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1], dtype=torch.float64)
    statistics, of_splits = PosteriorStatistics(5), LogitStatistics(60, 5, splits=1)
    statistics.update(logits)
    of_splits.update(logits, torch.arange(60))
    p = logits.double().softmax(1)
    expected = math.exp(float((p * (p / real).log()).sum(1).mean() - (p.mean(0) * (p.mean(0) / real).log()).sum()))
    assert metrics.mode_score(statistics, real) == pytest.approx(expected, rel=1e-10)
    assert metrics.mode_score(statistics, real) == pytest.approx(metrics.inception_score(of_splits)[0], rel=1e-10)


def test_am_score() -> None:
    """Sure and as frequent as the reals: 0. Unsure: the entropy. One mode of two only: KL without end."""
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    sure, other = [1 - 1e-12, 1e-12], [1e-12, 1 - 1e-12]
    assert metrics.am_score(posteriors(sure, other), half) == pytest.approx(0, abs=1e-9)
    assert metrics.am_score(posteriors([0.5, 0.5]), half) == pytest.approx(math.log(2))
    assert metrics.am_score(posteriors([0.9, 0.1], [0.9, 0.1]), half) == pytest.approx(
        math.log(0.5) - 0.5 * math.log(0.09) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    )
    assert metrics.am_score(posteriors(sure), half) > 10


def test_modified_inception_score_is_that_of_all_pairs_in_each_class() -> None:
    logits = random_logits()
    statistics = PosteriorStatistics(6)
    statistics.update(torch.cat((logits, torch.full((60, 1), -50.0)), dim=1))  # no sample is of the last class
    p = torch.cat((logits, torch.full((60, 1), -50.0)), dim=1).double().softmax(1)
    expected = []
    for label in range(5):
        some = p[p.argmax(1) == label]
        expected.append(float(torch.stack([divergence(a, b) for a in some for b in some]).mean().exp()))
    value, each = metrics.modified_inception_scores(statistics)
    assert each[:5] == pytest.approx(expected, rel=1e-9)
    assert each[5] is None
    assert value == pytest.approx(np.mean(expected), rel=1e-9)
    assert metrics.modified_inception_scores(posteriors([0.7, 0.3], [0.7, 0.3]))[0] == pytest.approx(1)


def test_mode_divergence_is_of_frequencies() -> None:
    counts = torch.tensor([10, 20, 70])
    assert metrics.mode_divergence(3 * counts, counts) == pytest.approx(0, abs=1e-12)
    assert metrics.mode_divergence(torch.tensor([0, 0, 5]), counts) == pytest.approx(-math.log(0.7))


def test_posteriors_of_parts_are_those_of_all() -> None:
    logits = random_logits()
    whole, merged = PosteriorStatistics(5), PosteriorStatistics(5)
    whole.update(logits)
    for part in logits.split([7, 0, 50, 3]):
        one = PosteriorStatistics(5)
        one.update(part)
        merged.merge_state(one)
    for name, sums in whole.sums().items():
        torch.testing.assert_close(merged.sums()[name], sums, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_vendi_counts_what_is_different(n: int) -> None:
    """n orthogonal vectors, each as often and as long as it likes, count n; equal ones count 1."""
    statistics = DirectionStatistics(8)
    statistics.update(torch.eye(8)[:n].repeat(5, 1) * torch.arange(1, 5 * n + 1)[:, None])
    assert metrics.vendi_score(statistics) == pytest.approx(n, rel=1e-9)


def test_vendi_is_that_of_the_kernel_matrix() -> None:
    features = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)).double()  # fewer than dimensions
    statistics = DirectionStatistics(10)
    statistics.update(features)
    cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=2)
    eigenvalues = torch.linalg.eigvalsh(cosines / 6)
    assert metrics.vendi_score(statistics) == pytest.approx(
        math.exp(-(eigenvalues * eigenvalues.log()).sum()), rel=1e-9
    )


def noise(n: int, size: int = 16, channels: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


def test_similarity_of_equal_images_is_one_and_of_noise_about_none() -> None:
    assert metrics.ms_ssim_diversity(noise(1).expand(6, -1, -1, -1))[0] == pytest.approx(1, abs=1e-6)
    assert metrics.ms_ssim_diversity(noise(20))[0] < 0.2


def test_similarity_is_of_pairs_within_a_class() -> None:
    """Two classes of one image each, in turns: pairs across them would not be alike."""
    images, labels = noise(2).repeat(4, 1, 1, 1), torch.tensor([0, 2]).repeat(4)
    value, classes = metrics.ms_ssim_diversity(images, labels)
    assert value == pytest.approx(1, abs=1e-6)
    assert classes is not None
    assert classes[1] is None
    assert [classes[0], classes[2]] == pytest.approx([1, 1], abs=1e-6)


def test_large_images_have_all_five_scales() -> None:
    images = torch.nn.functional.interpolate(noise(2, 24).float(), size=192, mode="bilinear").byte()
    expected = multiscale_structural_similarity_index_measure(
        images[:1].double(), images[1:].double(), data_range=255.0
    )
    assert metrics.ms_ssim_diversity(images)[0] == pytest.approx(float(expected), rel=1e-6)


def test_sliced_wasserstein_tells_noise_from_what_is_smooth() -> None:
    """Equal sets 0; other noise little; noise of a lower resolution much. Two levels at 32²."""
    real = noise(20, 32)
    smooth = noise(20, 4, seed=2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert metrics.sliced_wasserstein(real, real) == 0
    alike, other = metrics.sliced_wasserstein(real, noise(15, 32, seed=1)), metrics.sliced_wasserstein(real, smooth)
    assert 0 < alike < other / 2


def test_sliced_wasserstein_is_the_mean_of_distances_along_lines() -> None:
    """Images of the size of a patch are their only patch: SciPy's distances of projections, on the same lines."""
    real, fake = noise(9, 7), noise(9, 7, seed=1) // 2
    lines = normal(0, "swd.lines", np.arange(512), 49).astype(np.float32)
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    along = []
    for images in (real, fake):
        rows = images.flatten(1).double().numpy()
        along.append((rows - rows.mean()) / rows.std() @ lines.T)
    expected = 1000 * np.mean([wasserstein_distance(a, b) for a, b in zip(along[0].T, along[1].T, strict=True)])
    assert metrics.sliced_wasserstein(real, fake) == pytest.approx(expected, rel=1e-5)


def test_a_classifier_that_learned_from_fakes(digits_like: tuple[Tensor, Tensor]) -> None:
    """Fakes that look like the reals teach all; fakes with permuted labels teach the wrong thing."""
    images, labels = digits_like
    counts = classification_accuracy(images[:120], labels[:120], images[120:], labels[120:], 2, max_steps=30)
    assert float(counts.fraction) > 0.95
    assert counts.per_class.tolist() == pytest.approx([1, 1], abs=0.1)
    wrong = classification_accuracy(images[:120], 1 - labels[:120], images[120:], labels[120:], 2, max_steps=30)
    assert float(wrong.fraction) < 0.05


@pytest.fixture
def digits_like() -> tuple[Tensor, Tensor]:
    """A bright left or right half under noise."""
    labels = torch.arange(200) % 2
    images = noise(200, 8).long() // 2
    images[labels == 0, :, :, :4] += 120
    images[labels == 1, :, :, 4:] += 120
    return images.to(torch.uint8), labels
