"""What is wrong with a `bigtrain evaluate` is one line that names it, and no number is printed."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bigtrain.cli.main import main
from bigtrain.evaluation import classifier
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot

EXECUTED = Path("executed")


class Means(nn.Module):
    """The mean of each quarter of each channel."""

    channels = 3

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images.float(), images.shape[-1] // 2).flatten(1)


class GreyMeans(Means):
    channels = 1


class Nothing(Means):
    """NaN of images that are dark."""

    channels = 1

    def forward(self, images: Tensor) -> Tensor:
        found = super().forward(images)
        return torch.where(images.float().mean(dim=(1, 2, 3))[:, None] < 100, torch.nan, found)


class Code:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (EXECUTED,)


MEANS, GREY, NOTHING = (f"{__name__}.{kind.__name__}" for kind in (Means, GreyMeans, Nothing))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what is right and what is not."""
    folder = tmp_path_factory.mktemp("given")
    for name, sizes in {"three": [8] * 3, "twelve": [8] * 12, "one": [8]}.items():
        _images(folder / name, sizes)
    for name in ("truncated", "text", "empty", "texts"):
        _images(folder / name, [32] * 3 if name in ("truncated", "text") else [])
    jpeg = io.BytesIO()
    Image.open(folder / "truncated" / "001.png").save(jpeg, "JPEG")
    (folder / "truncated" / "001.jpg").write_bytes(jpeg.getvalue()[:400])
    (folder / "text" / "001.png").write_text("not an image")
    (folder / "texts" / "readme.txt").write_text("no image")
    _shards("digits:", folder / "shards", 8)
    _shards("digits:", folder / "small", 4)
    _shards(str(folder / "twelve"), folder / "colour", 8)
    made_snapshot(folder / "run" / "snapshots", arguments={**PROGRESSIVE, "resolution": 8}, shards=folder / "shards")
    _statistics(folder)
    for name in ("weights.pth", "weights.safetensors"):
        (folder / name).write_bytes(pickle.dumps({"weight": Code()}))
    return folder


def _images(folder: Path, sizes: list[int]) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i, size in enumerate(sizes):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")


def _shards(source: str, folder: Path, resolution: int) -> None:
    built = ["shards", "build", source, str(folder), "--resolutions", str(resolution), "--workers", "1"]
    assert main(built) == 0


def _statistics(folder: Path) -> None:
    mean, covariance = np.zeros(4), np.eye(4)
    covariances = {
        "nan": np.diag([1, np.nan, 1, 1]),
        "infinite": np.diag([1, np.inf, 1, 1]),
        "askew": np.triu(np.ones((4, 4))),
        "negative": -covariance,
        "other": np.eye(3),
    }
    for name, found in covariances.items():
        np.savez(folder / f"{name}.npz", mu=mean, sigma=found)
    np.savez(folder / "long.npz", mu=np.zeros(5), sigma=np.eye(5))
    np.savez(folder / "none.npz")
    np.savez(folder / "pickle.npz", mu=np.array([Code()], dtype=object), sigma=covariance)
    np.savez(folder / "right.npz", mu=mean, sigma=covariance)
    (folder / "cut.npz").write_bytes((folder / "right.npz").read_bytes()[:300])
    (folder / "zero.npz").write_bytes(b"")
    (folder / "noise.npz").write_bytes(b"\xff" * 64)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A classifier of a few steps, no weights anywhere, and a folder of its own."""
    monkeypatch.setattr(classifier, "MAX_EPOCHS", 1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)


#: What is said of which arguments; `@` is the folder.
BY_GREY = f"--reference @/shards --extractor {GREY} --metrics fid"
MISTAKES = [
    # the source
    (f"@/empty {BY_GREY}", "empty: holds no image"),
    (f"@/texts {BY_GREY}", "it has 1 other files, such as readme.txt"),
    (f"@/missing {BY_GREY}", "missing' does not exist"),
    (f"@/text {BY_GREY}", "image '001.png' cannot be measured (unreadable: it is no image of"),
    (f"@/truncated {BY_GREY}", "image '001.jpg' cannot be measured (unreadable"),
    (f"@/one {BY_GREY}", "there is only one image in"),
    (f"@/twelve --reference @/shards --extractor {GREY} --metrics fid,is", "need an extractor with logits"),
    ("@/three --reference @/shards --metrics is", "splits (=10) must be at least 1 and at most num (=3)"),
    (f"@/three --reference @/shards --extractor {GREY} --metrics precision", "needs at least 6 samples"),
    (f"@/small {BY_GREY}", "have resolutions [4], not [8]; build them with --resolutions 8"),
    (f"@/colour {BY_GREY}", "have 3 channels, but 1 are compared: build them again with --channels 1"),
    ("@/run --reference @/small --metrics is", "has resolutions [4], not the needed 8"),
    ("@/shards --metrics fid", "--reference URL is needed"),
    # the reference
    *(
        (f"@/three --reference @/{name}.npz --extractor {MEANS} --metrics fid", said)
        for name, said in {
            "nan": "numbers that are not finite",
            "infinite": "numbers that are not finite",
            "askew": "sigma is no covariance",
            "negative": "sigma is no covariance",
            "other": "must be [d] and [d, d]",
            "none": "must hold the arrays mu and sigma",
            "pickle": "is damaged, or no .npz of plain arrays: Object arrays cannot be loaded",
            "cut": "is damaged, or no .npz of plain arrays",
            "zero": "is damaged, or no .npz of plain arrays",
            "noise": "is damaged, or no .npz of plain arrays",
            "right": "holds statistics of 4 features, but",
            "missing": "missing.npz",
        }.items()
    ),
    (f"@/three --reference @/right.npz --extractor {GREY} --metrics kid", "need single real images"),
    (f"@/three --reference @/long.npz --extractor {GREY} --metrics fid", "holds statistics of 5 features, but"),
    (
        f"@/three --reference @/missing --extractor {GREY}",
        "missing') holds no shards: it has no manifest.json; make them",
    ),
    (f"@/three --reference @/statistics.pkl --extractor {GREY}", "is a pickle, which could execute anything"),
    # the extractor
    (f"@/twelve --reference @/shards --extractor {NOTHING} --metrics fid", "makes numbers that are not finite"),
    (f"@/three --reference @/shards --extractor {GREY} --weights @/weights.pth", "not a file of tensors only"),
    (f"@/three --reference @/shards --extractor {GREY} --weights @/weights.safetensors", "not a file of tensors only"),
    ("@/three --reference @/shards --extractor inception --weights @/weights.pth", "not a file of tensors only"),
    ("@/three --reference @/shards --extractor @/weights.safetensors", "is damaged, or no safetensors file"),
    ("@/three --reference @/shards --extractor inception", "cannot be downloaded (no network); fetch it elsewhere"),
    ("@/run --extractor inception --metrics ppl", "LPIPS needs images of at least 16 pixels; these have 8"),
    # options
    *((f"@/run --num {num}", f"--num (={num}) must be at least 2") for num in (-1, 0, 1)),
    (f"@/three {BY_GREY} --num 4", "--num (=4) is more than the 3 images"),
    *((f"@/run --batch {batch}", f"--batch (={batch}) must be at least 1") for batch in (-1, 0)),
    ("@/run --metrics fid,fdi", "metrics (=['fid', 'fdi']): ['fdi'] are unknown; valid are am, c2st"),
    ("@/run --metrics fid --truncation 0.5,1 --plot a.png", "--plot (=a.png) draws curves: name fid and is"),
    ("@/run --metrics fid,is --plot a.png", "two thresholds in --truncation"),
    ("@/run --metrics ,", "metrics (=[]): name one at least; valid are am, c2st"),
    ("@/run --metrics fid,is,fid", "fid is there twice; name each once"),
    ("@/three --reference @/shards --metrics recognition", "recognition needs samples with labels"),
    ("@/three --reference @/shards --metrics fid,ppl", "--metrics ppl are of a generator; "),
    *(
        (f"@/run --truncation={text}", f"--truncation (={text}) must be numbers of at least 0.02")
        for text in ("-1", "nan", "inf", "0", "0.5,0.5", "none,none", "", "0.5,", "half")
    ),
    ("@/run --standing-stats 0", "standing_stats (=0)"),
    ("@/run --seed many", "argument --seed: invalid int value: 'many'"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line(arguments: str, said: str, given: Path, tmp_path: Path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments.replace("@", str(given)).split()]) == 2
    out, lines = capsys.readouterr()
    *_, last = lines.splitlines()
    assert last.startswith("bigtrain: error: ")
    assert said in last
    assert "Traceback" not in lines
    assert out == ""
    assert not EXECUTED.exists()
