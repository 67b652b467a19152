"""Metrics of pairs of images: toy cases that can be counted, closed forms, and the formulas of other libraries."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.mifid import _compute_cosine_distance

from bigtrain.evaluation import metrics
from bigtrain.evaluation.metrics import Pairs, kernels, neighbours


def normal(n: int, d: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def line(*places: float) -> torch.Tensor:
    return torch.tensor(places)[:, None]


def test_kid_is_torch_fidelitys_on_the_same_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = normal(90, 16), normal(70, 16, 1, 0.3)
    theirs = kid_features_to_metric(real, fake, kid_subsets=5, kid_subset_size=30, rng_seed=2020, verbose=False)
    draws = np.random.RandomState(2020)
    monkeypatch.setattr(kernels, "chosen", lambda rows, size, *_: rows[draws.choice(len(rows), size, replace=False)])
    expected = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    assert metrics.kernel_distance(real, fake, subsets=5, size=30) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("subsets", "block"), [(1, neighbours.BLOCK), (6, neighbours.BLOCK), (6, 100)])
def test_kid_is_the_mean_over_its_subsets(subsets: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel of each subset or, where that is less work, by one of all samples."""
    monkeypatch.setattr(kernels, "BLOCK", block)
    real, fake = normal(60, 8), normal(40, 8, 1, 0.3)
    values = [
        kernels.unbiased_mmd(*(neighbours.chosen(rows, 30, 0, "kid", name, i) for name, rows in sets.items()))
        for sets in [{"real": real, "fake": fake}]
        for i in range(subsets)
    ]
    whole = mock.Mock(side_effect=kernels._mmds_of_one_kernel)
    monkeypatch.setattr(kernels, "_mmds_of_one_kernel", whole)
    expected = pytest.approx((np.mean(values), np.std(values)), rel=1e-11)
    assert metrics.kernel_distance(real, fake, subsets, size=30) == expected
    assert whole.call_count == (subsets > 1)


def test_kid_of_equal_distributions_is_zero_within_its_error() -> None:
    """Unbiased: over many pairs of sets the mean of the estimates is 0, and not what pairs with oneself would add."""
    values = np.array([kernels.unbiased_mmd(normal(40, 8, i), normal(50, 8, 1000 + i)) for i in range(200)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 3 * error
    itself = float((normal(4000, 8).square().sum(1) / 8 + 1).pow(3).mean()) - 1  # E k(x, x) - about E k(x, y)
    assert itself / 40 > 20 * error


def test_kid_does_not_depend_on_global_generators_and_has_no_larger_subsets_than_samples() -> None:
    real, fake = normal(50, 8), normal(30, 8, 1, 0.5)
    torch.manual_seed(1)
    first = metrics.kernel_distance(real, fake, subsets=4)
    torch.manual_seed(2)
    assert metrics.kernel_distance(real, fake, subsets=4) == first
    assert metrics.kernel_distance(real, fake, subsets=4, seed=1)[0] != first[0]
    everything = metrics.kernel_distance(real[:30], fake, subsets=3)
    assert everything == pytest.approx((metrics.kernel_distance_of_all(real[:30], fake), 0), abs=1e-12)


@pytest.mark.parametrize("block", [neighbours.BLOCK, 7])
def test_cmmd_is_the_mean_of_the_kernels(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real, fake = normal(20, 8), normal(15, 8, 1, 1.0)
    x, y = (torch.nn.functional.normalize(some.double(), dim=1) for some in (real, fake))

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square() / 200).mean()

    expected = 1000 * float(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    assert metrics.cmmd(real, fake) == pytest.approx(expected, rel=1e-8)
    assert metrics.cmmd(real, real) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("block", [neighbours.BLOCK, 101])
def test_precision_and_recall_are_torch_fidelitys(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real, fake = normal(120, 6), 0.7 * normal(90, 6, 1, 0.5)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)
    found = metrics.precision_recall(Pairs(real, fake))
    assert found == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-4)
    assert 0.05 < min(found) < max(found) < 1


def test_density_and_coverage_by_scikit_learn() -> None:
    real, fake = normal(80, 4).double().numpy(), normal(60, 4, 1, 0.4).double().numpy()
    radii = NearestNeighbors(n_neighbors=6).fit(real).kneighbors(real)[0][:, 5]
    distances = np.linalg.norm(real[:, None] - fake[None], axis=2)
    inside = distances <= radii[:, None]
    expected = inside.sum() / (5 * 60), inside.any(1).mean()
    found = metrics.density_coverage(Pairs(torch.from_numpy(real), torch.from_numpy(fake)))
    assert found == pytest.approx(expected, rel=1e-12)


#: Of 0 … 19 a ball of 5 neighbours reaches 3 to both sides, 4 and 5 at the ends: how many it holds, in all.
IN_BALLS = 2 * (6 + 6 + 6) + 14 * 7


@pytest.mark.parametrize(
    ("fake", "precision_recall", "density_coverage"),
    [
        (line(*range(20)), (1, 1), (IN_BALLS / (5 * 20), 1)),  # identical
        (line(*range(1000, 1020)), (0, 0), (0, 0)),  # disjoint
    ],
)
def test_toy_sets(fake: torch.Tensor, precision_recall: object, density_coverage: object) -> None:
    pairs = Pairs(line(*range(20)), fake)
    assert metrics.precision_recall(pairs) == precision_recall
    assert metrics.density_coverage(pairs) == density_coverage


def test_half_covered() -> None:
    """Two far clusters, and fakes in one of them only: all are precise, half of the reals are recalled."""
    near, far = normal(50, 2), normal(50, 2, 1, 1e4)
    pairs = Pairs(torch.cat((near, far)), near)
    assert metrics.precision_recall(pairs) == (1, 0.5)
    assert metrics.density_coverage(pairs)[1] == 0.5


def test_sets_of_equals_are_precise_recalled_and_covered() -> None:
    """All distances are 0 and so are the radii, so that a strict < says 0. Rounding must not decide it either."""
    equal = (normal(1, 64) * 1e3).expand(12, 64)
    pairs = Pairs(equal, equal)
    assert metrics.precision_recall(pairs) == (1, 1)
    assert metrics.density_coverage(pairs) == (12 / 5, 1)
    strict = Pairs(equal, equal, strict=True)
    assert metrics.precision_recall(strict) == metrics.density_coverage(strict) == (0, 0)


def test_two_samples_that_nobody_can_tell_apart() -> None:
    accuracies = [
        metrics.nearest_neighbour_accuracy(Pairs(normal(150, 3, i), normal(200, 3, 100 + i))) for i in range(8)
    ]
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.05)


def test_two_samples_that_anybody_can_tell_apart_and_copies() -> None:
    real = normal(30, 3)
    assert metrics.nearest_neighbour_accuracy(Pairs(real, real + 1e3)) == 1
    assert metrics.nearest_neighbour_accuracy(Pairs(real, real.clone())) == 0, "copies are nearer than any other"
    assert metrics.nearest_neighbour_accuracy(Pairs(real[:1].expand(9, 3), real[:1].expand(9, 3))) == 0.5, "ties"


def test_retrieval_is_the_way_from_a_real_to_the_nearest_fake() -> None:
    assert metrics.retrieval_distance(Pairs(line(0, 1, 10), line(0, 3))) == pytest.approx((0 + 1 + 7) / 3)


def test_memorization_is_torchmetrics() -> None:
    real, fake = normal(40, 3), normal(30, 3, 1)
    theirs = float(_compute_cosine_distance(fake.double(), real.double(), cosine_distance_eps=2.0))
    assert metrics.memorization_distance(Pairs(real, fake)) == pytest.approx(theirs, rel=1e-9)
    assert metrics.memorization_distance(Pairs(real, -2 * real)) == pytest.approx(0, abs=1e-12)


def test_k_means_finds_clusters_that_are_there() -> None:
    places = torch.tensor([[0.0, 0], [100, 0], [0, 100]])
    points = (places[:, None] + normal(3 * 40, 2).reshape(3, 40, 2)).flatten(0, 1)
    found = min(
        (metrics.k_means(points, 3, seed) for seed in range(5)),
        key=lambda c: torch.cdist(points.double(), c).amin(1).sum(),
    )
    expected = points.reshape(3, 40, 2).double().mean(1)
    torch.testing.assert_close(found[found.sum(1).argsort()][0], expected[0])
    assert sorted(torch.cdist(found, expected).argmin(1).tolist()) == [0, 1, 2]


def test_bins_of_equal_and_of_other_sets() -> None:
    real = normal(2000, 4)
    assert metrics.different_bins(real, real, bins=20) == 0
    equal = np.mean([metrics.different_bins(real, normal(2000, 4, seed), bins=20) for seed in range(1, 6)])
    assert equal < 0.15, "about 0.05"
    assert metrics.different_bins(real, real[real[:, 0] > 0], bins=20) > 0.8, "half of the reals are missing"


@pytest.mark.parametrize("support", [500, 3000])
def test_birthdays_tell_a_known_support(support: int) -> None:
    """n draws of N images have n·(n - 1)/(2N) pairs alike, give or take its root: here 360 and 60."""
    images = normal(support, 16)
    n = 600
    drawn = images[torch.randint(support, (n,), generator=torch.Generator().manual_seed(1))]
    expected_pairs = n * (n - 1) / (2 * support)
    found = metrics.support_size(Pairs(normal(300, 16, 2), drawn))
    assert found == pytest.approx(support, rel=3 / np.sqrt(expected_pairs) + 0.05)


def test_without_any_two_alike_the_support_is_at_least_the_pairs() -> None:
    assert metrics.support_size(Pairs(normal(50, 16), normal(40, 16, 1))) == 40 * 39 / 2


def test_two_clusters_of_random_places_are_drawn_from_streams_of_their_own() -> None:
    rows = torch.arange(50)
    first = neighbours.chosen(rows, 10, 0, "a")
    assert len(first.unique()) == 10
    assert not torch.equal(first, neighbours.chosen(rows, 10, 0, "b"))
    assert torch.equal(first, neighbours.chosen(rows, 20, 0, "a")[:10])
