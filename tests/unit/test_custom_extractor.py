"""Any module as an extractor: by the path of its class, in eval mode, on uint8 images, under a name of its code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bigtrain.evaluation.evaluate import evaluate
from bigtrain.evaluation.extractors.custom import ModuleExtractor
from bigtrain.evaluation.reference import content_key, measure_reference

HERE = __name__


class Net(nn.Module):
    """Three features of grey images, and two logits, behind a dropout that eval mode turns off."""

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.dropout = nn.Linear(16, 3), nn.Dropout(0.9)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        assert images.dtype == torch.uint8
        features = self.dropout(self.dense(images.flatten(1).float() / 255))
        return features, features[:, :2]


class Means(nn.Module):
    """Without weights or logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images.double().mean(dim=(2, 3))


class Picture(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float()


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float() @ torch.zeros(3)


class Wanting(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


def images(n: int = 6, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 4, 4), generator=generator, dtype=torch.uint8)


def test_it_is_measured_in_eval_mode_and_told_apart_by_code_and_weights(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first, again = (ModuleExtractor(f"{HERE}.Net", 4) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.feature_dim, first.num_classes, first.channels) == (3, 2, 1)
    assert (first.name, first.weight_hash) == (again.name, again.weight_hash)
    assert first.name.startswith(f"{HERE}.Net@")
    for mine, theirs in zip(first.train().measure(images())[:2], again.measure(images())[:2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)  # no dropout
    torch.save({name: value + 1 for name, value in first.network.state_dict().items()}, tmp_path / "weights.pth")
    other = ModuleExtractor(f"{HERE}.Net", 4, tmp_path / "weights.pth")
    assert other.weight_hash != first.weight_hash
    assert content_key("m", 4, other) != content_key("m", 4, first)


def test_other_code_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of the real images that were kept under the old one are not taken for its."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []
    for module, factor in (("made_one", 1), ("made_two", 2)):
        code = f"def forward(self, x): return x.float().mean((2, 3)) * {factor}"
        code = f"import torch\nclass Net(torch.nn.Module):\n    {code}\n"
        (tmp_path / f"{module}.py").write_text(code)
        names.append(ModuleExtractor(f"{module}.Net", 4).name)
    assert len({name.partition("@")[2] for name in names}) == 2
    assert all(len(name.partition("@")[2]) == 8 for name in names)


def test_features_alone_make_a_distance() -> None:
    extractor = ModuleExtractor(f"{HERE}.Means", 4)
    assert (extractor.feature_dim, extractor.num_classes) == (3, 0)
    real = images(12, 3)
    reference = measure_reference([(real, None)], extractor, "images")
    (score,) = evaluate(lambda indices: (real[indices], None), extractor, reference, ["fid"], num=12, batch_size=4)
    assert score.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_package.Net", "there is no such class"),
        (f"{HERE}.Nothing", "there is no such class"),
        ("pathlib.Path", "it is no torch module"),
        ("torch.nn.functional.relu", "it is no torch module"),
        (f"{HERE}.Wanting", "must work without arguments"),
        (f"{HERE}.Picture", r"makes \[2, 3, 4, 4\] and \[2, 0\] of 2 images; it must make features \[n, d\]"),
        (f"{HERE}.Broken", r"of uint8 images \[2, 3, 4, 4\]"),
    ],
)
def test_what_is_no_extractor_is_refused(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModuleExtractor(path, 4)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"bias": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth' are not those of '.*Net'"):
        ModuleExtractor(f"{HERE}.Net", 4, tmp_path / "weights.pth")
