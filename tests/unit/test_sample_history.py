"""`bigtrain sample --kind history`: the same samples, snapshot by snapshot, as a film and as a strip."""

from __future__ import annotations

import importlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from bigtrain.cli.main import main
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.history import film, grown, strip
from bigtrain.sampling.outputs import grid
from bigtrain.snapshots import load_snapshot, snapshots_of
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot

#: Moments of a growing generator: images seen, resolution, alpha.
MOMENTS = [(500, 4, 1.0), (20_000, 8, 0.25), (100_000, 8, 1.0), (1_000_064, 16, 0.5)]
LARGEST = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for images_seen, resolution, alpha in reversed(MOMENTS):
        made_snapshot(folder / "snapshots", "ProgressiveGenerator", PROGRESSIVE, images_seen, resolution, alpha)
    return folder


def expected(run: Path, indices: range, truncation: float | None = None) -> list[torch.Tensor]:
    """The samples of each snapshot at the largest resolution, pixel by pixel."""
    made = []
    for images_seen, resolution, alpha in MOMENTS:
        found = load_snapshot(f"{run}/snapshots/{images_seen // 1000:06d}.{images_seen % 1000:03d}.json")
        place = {"resolution": resolution, "alpha": alpha}
        images, _ = Sampler(found.generator, 2, cycled(range(10)), truncation, 64, place)(indices)
        positions = torch.arange(LARGEST) * resolution // LARGEST
        made.append(images[:, :, positions][:, :, :, positions])
    return made


def test_snapshots_come_in_the_order_of_their_moments(run):
    assert [load_snapshot(url).card.images_seen for url in snapshots_of(str(run))] == [one for one, *_ in MOMENTS]
    assert snapshots_of(f"{run}/snapshots") == snapshots_of(str(run))
    with pytest.raises(ValueError, match="holds no snapshots"):
        snapshots_of(f"{run}/none")
    with pytest.raises(ValueError, match="is one snapshot"):
        snapshots_of(snapshots_of(str(run))[0])


def test_a_strip_has_a_row_a_sample_and_a_column_a_snapshot(run, tmp_path, capsys):
    out = tmp_path / "strip.png"
    options = ["--kind", "history", "--num", "3", "--seed", "2", "--truncation", "0.7", "--out", str(out)]
    assert main(["sample", str(run), *options]) == 0
    assert f"3 samples at 4 moments, the last of {run}/snapshots/001000.064 at 1000.06 kimg" in capsys.readouterr().out
    history = expected(run, range(3), 0.7)
    with Image.open(out) as opened:
        assert np.array_equal(opened, grid(torch.stack([one[i] for i in range(3) for one in history]), 4))


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_a_film_has_a_frame_a_snapshot_and_stands_still_for_a_second(run, tmp_path, ending):
    out = tmp_path / f"film{ending}"
    options = ["--kind", "history", "--num", "20", "--seed", "2", "--fps", "4", "--out", str(out)]
    assert main(["sample", str(run), *options]) == 0
    history = expected(run, range(20))
    with Image.open(out) as opened:
        frames = [
            (np.asarray(frame.convert("RGB")), frame.info.get("duration")) for frame in ImageSequence.Iterator(opened)
        ]
    assert [duration for _, duration in frames] == [250, 250, 250, 1000]  # Pillow sums up frames that are equal
    for (frame, _), images in zip(frames, history, strict=True):
        assert np.array_equal(frame, grid(images, 10))  # a column a class


def test_an_mp4_is_written(run, tmp_path):
    av = pytest.importorskip("av") if os.environ.get("CI") != "true" else importlib.import_module("av")
    out = tmp_path / "film.mp4"
    assert main(["sample", str(run), "--kind", "history", "--num", "4", "--fps", "3", "--out", str(out)]) == 0
    with av.open(io.BytesIO(out.read_bytes())) as container:
        assert len(list(container.decode(video=0))) == 4 + 2


def test_whole_factors_repeat_pixels():
    small, large = torch.arange(2 * 4).reshape(2, 1, 2, 2).byte(), torch.zeros(2, 1, 6, 6, dtype=torch.uint8)
    both = grown([small, large])
    assert both.shape == (2, 2, 1, 6, 6)
    assert torch.equal(both[0, :, :, ::3, ::3], small)
    assert torch.equal(both[0, 1, 0, :3, :3], torch.full((3, 3), 4, dtype=torch.uint8))
    assert strip([small, large]).columns == 2
    assert torch.equal(strip([small, large]).images, both[:, [0, 1]].transpose(0, 1).flatten(0, 1))
    assert film([small, large], 2, fps=5).shape[0] == 2 + 4
