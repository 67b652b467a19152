"""`bigtrain evaluate` with extractors, protocols and references of all kinds, and with wrong and hostile input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bigtrain.callbacks import scoring
from bigtrain.cli.main import main
from bigtrain.evaluation import classifier
from bigtrain.evaluation.conventions import PROTOCOLS
from bigtrain.evaluation.extractors.named import PUBLISHED
from tests.unit.made_snapshot import PROGRESSIVE, made_snapshot


class Grey(nn.Module):
    """The mean of each quarter of a grey image."""

    channels = 1

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images.float(), images.shape[-1] // 2).flatten(1)


GREY = f"{__name__}.Grey"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("shards") / "digits")
    assert main(["shards", "build", "digits:", folder, "--resolutions", "8", "--workers", "1"]) == 0
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A classifier of a few steps, and no weights on this machine or anywhere."""

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(classifier, "MAX_EPOCHS", 1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)


def pictures(folder: Path, sizes: list[tuple[int, int]]) -> str:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return str(folder)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that must fail says: one line."""
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("bigtrain: error: ")
    assert "\n" not in said
    return said


def scores(tmp_path: Path, *arguments: str) -> list[dict]:
    file = tmp_path / "scores.json"
    assert main(["evaluate", *arguments, "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_a_trained_extractor_measures_from_any_file(shards, tmp_path, capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The file is the classifier beside the shards, which is trained once, and its scores are the same."""
    file = tmp_path / "digits.safetensors"
    assert main(["evaluate", "train-extractor", shards, "--to", str(file)]) == 0
    said = capsys.readouterr().out
    accuracy = float(said.split(": ")[1].split()[0])
    assert 0.2 < accuracy <= 1
    assert f"kept as {file}" in said
    (beside,) = Path(shards, "evaluation").glob("classifier-*-r8.safetensors")
    assert beside.read_bytes() == file.read_bytes()
    monkeypatch.setattr(scoring, "train_classifier", lambda *_, **__: pytest.fail("trained again"))
    assert main(["evaluate", "train-extractor", shards]) == 0
    assert f"kept as {beside}" in capsys.readouterr().out
    snapshot = made_snapshot(tmp_path / "run" / "snapshots", arguments={**PROGRESSIVE, "resolution": 8})
    common = [snapshot, "--reference", shards, "--num", "150", "--extractor"]
    one, other = (scores(tmp_path, *common, name) for name in ("classifier", str(file)))
    assert one == other
    assert [score["metric"] for score in one] == ["fid150_full", "is150", "recognition150"]
    assert one[0]["protocol"]["holdout_accuracy"] == pytest.approx(accuracy, abs=1e-4)


def test_a_protocol_is_told(shards, tmp_path) -> None:  # type: ignore[no-untyped-def]
    images = pictures(tmp_path / "pictures", [(8, 8)] * 12)
    common = [images, "--reference", shards, "--extractor", GREY, "--metrics", "fid"]
    found = {name: scores(tmp_path, *common, "--protocol", name)[0] for name in ("tf1", "stylegan")}
    assert found["tf1"]["protocol"] | {"name": "stylegan", "ddof": 0} == found["stylegan"]["protocol"]
    assert found["tf1"]["value"] != found["stylegan"]["value"]
    assert found["tf1"]["protocol"]["extractor"].startswith(f"{GREY}@")
    assert found["tf1"]["protocol"]["prepared"] == "cropped to the central square and averaged by area to 8 pixels"


def test_statistics_of_others_are_a_reference(shards, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    """Of the images themselves, they are as far as nothing from them; and no shards are needed."""
    images = pictures(tmp_path / "pictures", [(8, 8)] * 12)
    loaded = np.stack([np.asarray(Image.open(path).convert("L")) for path in sorted(Path(images).iterdir())])
    features = Grey()(torch.from_numpy(loaded)[:, None]).double().numpy()
    file = str(tmp_path / "stats.npz")
    np.savez(file, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    grey = str(tmp_path / "grey")
    Path(grey).mkdir()
    for i, image in enumerate(loaded):
        Image.fromarray(image).save(f"{grey}/{i:03d}.png")
    (score,) = scores(tmp_path, grey, "--reference", file, "--extractor", GREY, "--metrics", "fid")
    assert score["value"] == pytest.approx(0, abs=1e-4)
    assert (score["num_real"], score["protocol"]["num_real"]) == (None, None)
    assert score["protocol"]["reference"].startswith("stats.npz of SHA-256 ")
    snapshot = made_snapshot(tmp_path / "run" / "snapshots", arguments={**PROGRESSIVE, "resolution": 8})
    common = ["--reference", file, "--metrics", "fid", "--num", "20", "--extractor"]
    assert scores(tmp_path, snapshot, *common, GREY)[0]["value"] > 0
    Path(file).write_bytes(Path(file).read_bytes()[:-40])
    assert "is damaged" in fails(capsys, snapshot, *common, GREY)
    np.savez(file, mu=np.zeros(2048), sigma=np.eye(2048))
    assert "2048 features, but" in fails(capsys, snapshot, *common, GREY)
    assert "is a pickle" in fails(capsys, snapshot, "--reference", str(tmp_path / "stats.pkl"))


def test_images_of_two_sizes_are_made_one_and_it_is_said(shards, tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    images = pictures(tmp_path / "pictures", [(8, 8), (16, 12), (8, 8), (9, 8)])
    (score,) = scores(tmp_path, images, "--reference", shards, "--extractor", GREY, "--metrics", "fid")
    assert score["num_fake"] == 4
    (line,) = [text for text in caplog.messages if "another size" in text]
    assert line.startswith("images of another size than 8² were cropped and resized to it: 2, the first is")
    assert line.endswith("001.png of 16x12")
    assert any("fid4_full is of 4 samples in 4 dimensions" in text for text in caplog.messages)


def test_wrong_and_hostile_input_is_one_line(shards, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    three = pictures(tmp_path / "three", [(8, 8)] * 3)
    twelve = pictures(tmp_path / "twelve", [(8, 8)] * 12)
    damaged = pictures(tmp_path / "damaged", [(8, 8)] * 3)
    content = Path(damaged, "001.png").read_bytes()
    Path(damaged, "001.png").write_bytes(content[: len(content) // 2])
    Path(tmp_path / "other.safetensors").write_bytes(b"\xff" * 64)
    against = ["--reference", shards, "--extractor", GREY]
    cases = {
        "splits (=10) must be at least 1 and at most num (=3)": [three, "--reference", shards],
        "need an extractor with logits": [twelve, *against],
        "001.png' cannot be measured": [damaged, *against, "--metrics", "fid"],
        "is more than the 3 images": [three, *against, "--num", "4"],
        "protocol (='tf2') is unknown; valid are tf1, clean": [three, *against, "--protocol", "tf2"],
        "did you mean inception?": [three, "--reference", shards, "--extractor", "inceptoin"],
        "weights-inception-2015-12-05-6726825d.pth": [three, "--reference", shards, "--protocol", "clean"],
        "other.safetensors is damaged": [three, "--reference", shards, "--extractor", f"{tmp_path}/other.safetensors"],
        "no_such_file.safetensors": [three, "--reference", shards, "--extractor", "no_such_file.safetensors"],
        "must end in .safetensors": ["train-extractor", shards, "--to", "classifier.pth"],
    }
    for said, arguments in cases.items():
        assert said in fails(capsys, *arguments), arguments
    (tmp_path / "empty").mkdir()
    fails(capsys, str(tmp_path / "empty"), *against)


def test_a_classifier_of_other_images_is_refused(shards, tmp_path, capsys) -> None:  # type: ignore[no-untyped-def]
    file = str(tmp_path / "digits.safetensors")
    assert main(["evaluate", "train-extractor", shards, "--to", file]) == 0
    other = str(tmp_path / "other")
    assert (
        main(
            [
                "shards",
                "build",
                pictures(tmp_path / "pictures", [(16, 16)] * 3),
                other,
                "--resolutions",
                "16",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    images = pictures(tmp_path / "more", [(16, 16)] * 3)
    said = fails(capsys, images, "--reference", other, "--extractor", file)
    assert "was trained on images of 8 pixels and 1 channels; here are 16 and 3" in said
    assert "have no labels" in fails(capsys, "train-extractor", other)


def test_help_names_what_there_is(capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in PROTOCOLS)
    families = {name.partition("-vit-")[0] for name in PUBLISHED}
    assert all(family in said for family in families)
    assert all(name.rpartition("vit-")[2].removesuffix("-14") in said for name in PUBLISHED)
