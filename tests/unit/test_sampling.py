"""Sample i is the same however it is made; outputs hold what was made."""

import io
import threading
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from bigtrain.networks import ProgressiveGenerator
from bigtrain.sampling.files import FolderOutput, ZipOutput
from bigtrain.sampling.generate import Sampler, cycled, drawn
from bigtrain.sampling.latents import Inputs, draw_labels, draw_latents
from bigtrain.sampling.outputs import WAITING, ArrayOutput, GridOutput, Output, PictureOutput, grid, grid_columns
from bigtrain.sampling.pixels import fade, to_float, to_uint8
from bigtrain.sampling.rounds import rounds
from bigtrain.storage import Storage


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700), st.integers(1, 3)), min_size=1, max_size=6))
def test_inputs_drawn_ahead_are_those_drawn_when_needed(batches):
    inputs = Inputs(3, "generator", 5, [2, 1, 1])
    for start, count, step in batches:
        indices = range(start, start + count * step, step)
        latents, labels = inputs(indices)
        assert torch.equal(latents, draw_latents(3, "latent/generator", indices, 5))
        assert torch.equal(labels, draw_labels(3, "label/generator", indices, [2, 1, 1]))


@given(st.floats(0.1, 3), st.integers(0, 1000))
def test_truncated_latents_lie_within_and_keep_what_lay_within(threshold, first):
    indices = range(first, first + 20)
    whole, cut = (draw_latents(0, "z", indices, 16, t) for t in (None, threshold))
    assert cut.abs().max() <= threshold
    within = whole.abs() <= threshold
    assert torch.equal(cut[within], whole[within])
    assert torch.equal(cut[3:5], draw_latents(0, "z", indices[3:5], 16, threshold))


def test_truncated_latents_have_the_truncated_normal_distribution():
    drawn_latents = draw_latents(0, "z", range(2000), 10, 0.7).numpy().ravel()
    assert stats.kstest(drawn_latents, stats.truncnorm(-0.7, 0.7).cdf).pvalue > 0.001


@pytest.mark.parametrize("threshold", [0, -1, 0.01, float("nan")])
def test_a_threshold_that_nothing_passes_is_refused(threshold):
    with pytest.raises(ValueError, match="truncation"):
        draw_latents(0, "z", range(2), 4, threshold)


def test_labels_have_the_frequencies_of_the_data():
    counts = [100, 0, 300, 600]
    labels = draw_labels(0, "y", range(20_000), counts)
    found = np.bincount(labels, minlength=4)
    assert found[1] == 0
    assert stats.chisquare(found[[0, 2, 3]], np.array([0.1, 0.3, 0.6]) * 20_000).pvalue > 0.001
    assert not draw_labels(0, "y", range(5), []).any()


def test_pixels_survive_the_way_to_floats_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(pixels)), pixels)
    assert to_float(pixels).min() == -1
    assert to_float(pixels).max() == 1
    assert torch.equal(to_uint8(torch.tensor([-5.0, 5.0])), torch.tensor([0, 255], dtype=torch.uint8))


def test_real_images_fade_in_as_the_networks_do():
    images = torch.randn(2, 1, 4, 4)
    low = images.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(fade(images, 0.0), low, atol=1e-6)
    assert fade(images, 1.0) is images
    assert torch.allclose(fade(images, 0.3), 0.7 * low + 0.3 * images, atol=1e-6)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return ProgressiveGenerator(8, 1, 3, 6, 32, 8)


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_a_sample_does_not_depend_on_what_is_sampled_beside_it(generator, truncation):
    sampler = Sampler(generator, 5, drawn(5, [1, 1, 2]), truncation, batch=7)
    images, labels = sampler(range(20))
    for indices in (range(20)[::-1], [13], [3, 19, 3], range(11, 20)):
        again, their_labels = sampler(indices)
        assert torch.equal(again, images[list(indices)])
        assert torch.equal(their_labels, labels[list(indices)])
    assert images.dtype == torch.uint8
    assert generator.training


def test_a_growing_generator_is_sampled_at_its_place(generator):
    sampler = Sampler(generator, 0, cycled([1]), place={"resolution": 4, "alpha": 1.0})
    assert sampler(range(3))[0].shape == (3, 1, 4, 4)
    assert sampler.truncated(0.5)(range(3))[0].shape == (3, 1, 4, 4)


class Collecting:
    """One rank after the other: what they hand in is kept, and the first one, who comes last, is given it all."""

    def __init__(self, size):
        self.size, self.rank, self.handed_in = size, size - 1, []

    def collect(self, mine):
        self.handed_in.append((self.rank, mine))
        if self.rank:
            return []
        number = sum(rank == 0 for rank, _ in self.handed_in) - 1
        return [[made for other, made in self.handed_in if other == rank][number] for rank in range(self.size)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("indices", [range(10), range(8), [9, 4, 4, 17, 3], range(1)])
def test_rounds_are_all_samples_in_order_at_any_number_of_ranks(generator, ranks, indices):
    sampler, world = Sampler(generator, 0, cycled([2, 0]), batch=4), Collecting(ranks)
    while world.rank:
        assert not any(rounds(sampler, indices, world))
        world.rank -= 1
    made = [batch for round_ in rounds(sampler, indices, world) for batch in round_]
    assert [i for batch in made for i in batch.indices] == list(indices)
    assert torch.cat([batch.labels for batch in made]).tolist() == sampler.labels(indices).tolist()
    assert torch.equal(torch.cat([batch.images for batch in made]), sampler(indices)[0])
    assert len({len(images) for _, images in world.handed_in}) == 1  # as a collective needs it
    assert len(world.handed_in) == ranks * -(-len(indices) // (4 * ranks))


def write(url, channels=1, labels=(0, 2, 1)):
    images = torch.arange(3 * channels * 64, dtype=torch.int64).reshape(3, channels, 8, 8).to(torch.uint8)
    tensor = None if labels is None else torch.tensor(labels)
    with opened(url) as output:
        output.add(range(2), images[:2], tensor if tensor is None else tensor[:2])
        output.add(range(2, 3), images[2:], tensor if tensor is None else tensor[2:])
    return images.permute(0, 2, 3, 1).numpy()


def opened(url) -> Output:
    makers = {".png": lambda name: GridOutput(name, 2), ".zip": ZipOutput, ".npz": ArrayOutput, "": FolderOutput}
    return makers[url.suffix](str(url))


@pytest.mark.parametrize("name", ["samples", "samples.zip", "samples.npz", "grid.png"])
@pytest.mark.parametrize("wrong", [KeyboardInterrupt, ValueError])
def test_what_is_interrupted_leaves_no_half_file(tmp_path, monkeypatch, name, wrong):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()

    def interrupted():
        with opened(tmp_path / name) as output:
            output.add(range(300), torch.zeros(300, 1, 8, 8, dtype=torch.uint8), None)
            raise wrong

    with pytest.raises(wrong):
        interrupted()
    assert not list((tmp_path / "temporary").iterdir())
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert name == "samples" or not left
    for path in left:  # single files of a folder, whole
        assert np.asarray(Image.open(io.BytesIO(path.read_bytes()))).shape == (8, 8)


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails(*_):
        raise OSError("full")

    monkeypatch.setattr(Storage, "write_file", fails)
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "samples.zip")
    assert not list(tmp_path.iterdir())


def test_few_pictures_are_in_memory_and_all_are_kept_in_order(tmp_path):
    """However slow the first of them is."""
    begun, kept = threading.Event(), []

    class Slow(PictureOutput):
        def make(self, index, image, label):
            if index == 0:
                assert begun.wait(60)
            return super().make(index, image, label)

        def keep(self, picture):
            kept.append(picture.index)

    def images():
        return torch.zeros(100, 1, 2, 2, dtype=torch.uint8)

    with Slow(str(tmp_path / "x")) as output:
        output.add(range(100), images(), None)
        assert not kept
        begun.set()
        for first in range(100, 1000, 100):
            output.add(range(first, first + 100), images(), None)
            assert len(kept) >= first + 100 - WAITING
    assert kept == list(range(1000))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_and_a_zip_hold_a_picture_a_sample(tmp_path, channels):
    images = write(tmp_path / "samples", channels)
    write(tmp_path / "samples.zip", channels)
    files = {file.name: file.read_bytes() for file in (tmp_path / "samples").iterdir()}
    with zipfile.ZipFile(tmp_path / "samples.zip") as archive:
        assert files == {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == ["000000_0.png", "000001_2.png", "000002_1.png"]
    for name, content in files.items():
        pixels = np.asarray(Image.open(io.BytesIO(content))).reshape(8, 8, channels)
        assert np.array_equal(pixels, images[int(name[:6])])


def test_without_classes_there_are_no_labels(tmp_path):
    write(tmp_path / "samples", labels=None)
    assert sorted(file.name for file in (tmp_path / "samples").iterdir()) == [f"{i:06d}.png" for i in range(3)]
    write(tmp_path / "s.npz", labels=None)
    assert np.load(tmp_path / "s.npz").files == ["images"]


def test_an_array_file_holds_images_and_labels(tmp_path):
    images = write(tmp_path / "s.npz", 3)
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], images)
        assert arrays["images"].dtype == np.uint8
        assert arrays["labels"].tolist() == [0, 2, 1]
        assert arrays["labels"].dtype == np.int64


def test_a_grid_shows_every_image_in_rows(tmp_path):
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (10, 90, 200)])
    sheet = np.asarray(grid(images, 2))
    assert [sheet[y, x, 0] for y, x in ((10, 10), (10, 44), (44, 10))] == [10, 90, 200]
    write(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width == 2 * 32 + 3 * 2


def test_columns_are_classes_if_there_are_few():
    assert [grid_columns(100, classes) for classes in (0, 1, 10, 32, 1000)] == [10, 1, 10, 32, 10]
