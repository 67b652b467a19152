"""Sheets, walks, neighbours and sums of latents consist of the samples that are made one by one."""

from __future__ import annotations

import importlib
import io
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from bigtrain.networks import BigGANGenerator, Generator, ProgressiveGenerator
from bigtrain.sampling import arithmetic, neighbours, paths
from bigtrain.sampling.animations import animation, check_animation
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.interpolation import corners, interpolation_sheet, walk, ways
from bigtrain.sampling.pixels import to_uint8
from bigtrain.sampling.sheets import class_sheet, truncation_sheet

CLASSES = 3


@pytest.fixture(scope="module", params=["progressive", "biggan"])
def generator(request) -> Generator:
    torch.manual_seed(0)
    if request.param == "progressive":
        return ProgressiveGenerator(8, 1, CLASSES, 6, 32, 8)
    return BigGANGenerator(32, 1, CLASSES, latent_dim=8, shared_dim=4, width=2, attention=[])


@pytest.fixture(scope="module")
def sampler(generator) -> Sampler:
    return Sampler(generator, 5, cycled(range(CLASSES)), batch=7)


def made(sampler: Sampler, latents, labels) -> torch.Tensor:
    """What the generator makes of them in one batch of the sampler's size."""
    padding = sampler.batch - len(latents)
    latents = torch.cat((latents, torch.zeros(padding, latents.shape[1])))
    labels = torch.cat((torch.as_tensor(labels), torch.zeros(padding, dtype=torch.int64)))
    with torch.no_grad():
        return to_uint8(sampler.generator.eval()(latents, labels))[: sampler.batch - padding]


points = st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6)


@given(points, points, st.integers(2, 9), st.sampled_from(sorted(paths.PATHS)))
def test_a_way_begins_and_ends_with_its_ends_to_the_bit(start, end, steps, path):
    a, b = torch.tensor([start]), torch.tensor([end])
    way = paths.between(a, b, steps, paths.PATHS[path])
    assert way.shape == (1, steps, 6)
    assert torch.equal(way[:, 0], a)
    assert torch.equal(way[:, -1], b)
    assert way.isfinite().all()


@given(st.integers(0, 10_000), st.integers(2, 9))
def test_on_the_arc_the_norm_goes_evenly_and_so_does_the_angle(seed, steps):
    start, end = torch.randn(2, 1, 20, generator=torch.Generator().manual_seed(seed))
    way = paths.between(start, end, steps, paths.spherical)[0].double()
    norms = way.norm(dim=1)
    assert torch.allclose(norms, torch.linspace(norms[0], norms[-1], steps, dtype=torch.float64), rtol=1e-5)
    directions = way / norms[:, None]
    cosines = (directions[1:] * directions[:-1]).sum(1).clamp(-1, 1)
    assert cosines.acos().std(unbiased=False) < 1e-4
    plane = torch.cat((start, end)).double()
    assert torch.linalg.matrix_rank(torch.cat((plane, way)), atol=1e-4) == 2


def test_a_straight_way_is_the_weighted_mean():
    start, end = torch.randn(2, 4, 5)
    way = paths.between(start, end, 5, paths.linear)
    for step in range(5):
        assert torch.allclose(way[:, step], start * (1 - step / 4) + end * step / 4, atol=1e-6)


def test_where_there_is_no_arc_the_way_is_straight():
    point = torch.tensor([[3.0, -4.0]])
    assert torch.allclose(
        paths.between(point, 2 * point, 3, paths.spherical)[0], torch.tensor([[3.0, -4], [4.5, -6], [6, -8]])
    )
    assert torch.allclose(
        paths.between(point, -point, 3, paths.spherical)[0], torch.tensor([[3.0, -4], [0, 0], [-3, 4]])
    )
    assert torch.equal(paths.between(point, point, 4, paths.spherical)[0], point.expand(4, 2))


@pytest.mark.parametrize("path", sorted(paths.PATHS))
def test_a_loop_is_closed(path):
    turns = torch.randn(3, 6)
    points = paths.loop(turns, 4, paths.PATHS[path])
    assert torch.equal(points[::4], turns)
    for i in range(3):  # the twelfth point's successor is the first
        way = paths.between(turns[i : i + 1], turns[[(i + 1) % 3]], 5, paths.PATHS[path])[0]
        assert torch.equal(points[4 * i : 4 * i + 4], way[:-1])


def test_a_class_sheet_has_one_latent_down_each_column(sampler):
    sheet = class_sheet(sampler, sampler.latents([4, 9]), [2, 0, 1])
    assert sheet.columns == 2
    latents = sampler.latents([4, 9])
    for row, label in enumerate([2, 0, 1]):
        assert torch.equal(sheet.images[2 * row : 2 * row + 2], made(sampler, latents, [label, label]))
    assert not torch.equal(sheet.images[0], sheet.images[2])


def test_a_truncation_sheet_has_the_plain_samples_at_none(sampler):
    sheet = truncation_sheet(sampler, [0, 3, 5, 7], [0.2, None])
    assert sheet.columns == 4
    assert torch.equal(sheet.images[4:], sampler([0, 3, 5, 7])[0])
    truncated = Sampler(sampler.generator, 5, sampler.labels, 0.2, batch=7)
    assert torch.equal(sheet.images[:4], truncated([0, 3, 5, 7])[0])
    with pytest.raises(ValueError, match="truncation"):
        truncation_sheet(sampler, [0], [None, 0.001])


@pytest.mark.parametrize("path", sorted(paths.PATHS))
def test_ways_of_both_lead_from_sample_to_sample(sampler, path):
    starts, ends = ways(sampler, [4, 0, 8], "both", range(CLASSES))
    sheet = interpolation_sheet(sampler, starts, ends, 3, paths.PATHS[path])
    images = sampler([4, 0, 8])[0]
    assert torch.equal(sheet.images[[0, 2, 3, 5]], images[[0, 1, 1, 2]])
    assert sheet.columns == 3


def test_ways_of_latents_keep_the_class_of_their_start(sampler):
    starts, ends = ways(sampler, [4, 0], "latents", range(CLASSES))
    sheet = interpolation_sheet(sampler, starts, ends, 3, paths.linear)
    latents = sampler.latents([4, 0])
    way = torch.stack((latents[0], latents.double().mean(0).float(), latents[1]))
    assert torch.equal(sheet.images, made(sampler, way, [1, 1, 1]))


def test_ways_of_classes_keep_the_latent(sampler):
    starts, ends = ways(sampler, [4, 1], "classes", [2, 0])
    sheet = interpolation_sheet(sampler, starts, ends, 3, paths.spherical)
    latents = sampler.latents([4, 1])
    assert torch.equal(sheet.images[[0, 3]], made(sampler, latents, [2, 2]))
    assert torch.equal(sheet.images[[2, 5]], made(sampler, latents, [0, 0]))
    middle = sampler.vectors(torch.tensor([2, 0])).mean(0, keepdim=True)
    assert torch.equal(sheet.images[[1]], sampler.make(latents[:1], middle))


def test_a_walk_passes_its_corners_and_closes(sampler):
    frames = walk(sampler, corners(sampler, [4, 0, 8], "both", range(CLASSES)), 5, paths.spherical)
    assert torch.equal(frames[::5], sampler([4, 0, 8])[0])
    # From the last corner on: the frames and then the first one are the way back, to the bit.
    starts, ends = ways(sampler, [8, 4], "both", range(CLASSES))
    back = interpolation_sheet(sampler, starts, ends, 6, paths.spherical).images
    assert torch.equal(torch.cat((frames[10:], frames[:1])), back)


def test_walks_of_one_part_keep_the_other(sampler):
    latents = sampler.latents([4, 0, 8])
    frames = walk(sampler, corners(sampler, [4, 0, 8], "latents", range(CLASSES)), 2, paths.linear)
    assert torch.equal(frames[::2], made(sampler, latents, [1, 1, 1]))
    frames = walk(sampler, corners(sampler, [4], "classes", [2, 0]), 2, paths.linear)
    assert torch.equal(frames[::2], made(sampler, latents[[0, 0]], [2, 0]))


@pytest.mark.parametrize("what", ["classes", "both"])
def test_without_vectors_of_classes_only_latents_change(what):
    class Plain(Generator):
        def __init__(self, num_classes: int) -> None:
            super().__init__(4, 1, num_classes, 16)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, latent, label=None):
            return (self.scale * latent).reshape(-1, 1, 4, 4)

    for generator in (Plain(3), BigGANGenerator(32, 1, 0, latent_dim=8, width=2, attention=[])):
        plain = Sampler(generator, 0, cycled([0]))
        for make in (ways, corners):
            with pytest.raises(ValueError, match="only latents can change"):
                make(plain, [0, 1], what, [0])
            assert make(plain, [0, 1], "latents", [0])


def test_a_sum_is_made_of_the_sum_of_latents(sampler):
    terms = arithmetic.parse(" 3 - 5+8")
    assert [tuple(term) for term in terms] == [(1, 3), (-1, 5), (1, 8)]
    sheet = class_sheet(sampler, arithmetic.operands_and_sum(sampler, terms), [2])
    three, five, eight = sampler.latents([3, 5, 8])
    latents = torch.stack((three, five, eight, three - five + eight))
    assert torch.equal(sheet.images, made(sampler, latents, [2] * 4))
    assert arithmetic.parse("-12") == [(-1, 12)]


@pytest.mark.parametrize("formula", ["", "3 5", "3 +", "a", "3 - - 5", "2*3", "1.5"])
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(ValueError, match="must be sample indices"):
        arithmetic.parse(formula)


@pytest.mark.parametrize("size", [1, 4, 50])
def test_neighbours_are_those_of_brute_force(size):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8))
    images[31] = images[7]  # equally near ones: the earlier first
    wanted = torch.cat((images[[7, 20]], 255 - images[:2]))
    found = neighbours.nearest(wanted, images.split(size), 3)
    differences = wanted[:, None].to(torch.int64) - images[None].to(torch.int64)
    squares = differences.square().sum(dim=(2, 3, 4))
    order = np.argsort(squares.numpy(), axis=1, kind="stable")[:, :3]
    assert found.positions.tolist() == order.tolist()
    assert torch.equal(found.distances.square().round().long(), squares.gather(1, torch.from_numpy(order)))
    assert torch.equal(found.images, images[torch.from_numpy(order)])
    assert found.positions[:2, 0].tolist() == [7, 20]
    assert found.positions[0, 1] == 31
    assert found.distances[:2, 0].tolist() == [0, 0]
    sheet = neighbours.neighbour_sheet(wanted, found)
    assert sheet.columns == 4
    assert torch.equal(sheet.images[4:6], images[[20, 20]])


def test_neighbours_by_features():
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 4, 4) * 20
    brightness = neighbours.nearest(images[:2], [images], 99, lambda some: -some[:, 0, 0, :1].float())
    assert brightness.positions.shape == (2, 10)
    assert brightness.positions[0].tolist() == list(range(10))
    assert brightness.distances[0, 1] == 20


@pytest.mark.parametrize("channels", [1, 3])
def test_animations_hold_every_frame(channels):
    frames = torch.zeros(5, channels, 8, 8, dtype=torch.uint8)
    for i in range(5):
        frames[i, :, i] = 255
    for ending in (".gif", ".webp"):
        content = animation(frames, ending, 25)
        with Image.open(io.BytesIO(content)) as opened:
            assert (opened.n_frames, opened.size, opened.info["loop"]) == (5, (32, 32), 0)
            shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
            assert opened.info["duration"] == 40
        for frame, pixels in zip(frames, shown, strict=True):
            assert np.array_equal(pixels[::4, ::4], frame.expand(3, 8, 8).permute(1, 2, 0))


def test_an_mp4_holds_every_frame():
    av = pytest.importorskip("av") if os.environ.get("CI") != "true" else importlib.import_module("av")
    frames = torch.arange(0, 250, 10, dtype=torch.uint8)[:, None, None, None].expand(25, 1, 16, 16)
    with av.open(io.BytesIO(animation(frames, ".mp4", 10))) as container:
        assert container.streams.video[0].average_rate == 10
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 25
    for frame, pixels in zip(frames, shown, strict=True):
        assert pixels.shape == (32, 32, 3)
        assert abs(pixels.astype(int) - int(frame[0, 0, 0])).max() <= 4


def test_animations_that_cannot_be_written_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, fps, said in [("a.mp4", 20, "bigtrain\\[video\\]"), ("a.avi", 20, ".gif, .webp"), ("a.gif", 51, "fps")]:
        with pytest.raises(ValueError, match=said):
            check_animation(name, fps)
    assert check_animation("s3://bucket/a.webp", 1) == ".webp"
