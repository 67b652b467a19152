"""Encoders with published weights: their networks are the published ones, and nothing in a file is executed."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torchvision.models import VisionTransformer

from bigtrain.evaluation.conventions import PROTOCOLS, TF1
from bigtrain.evaluation.evaluate import Evaluation
from bigtrain.evaluation.extractors.dinov2 import DinoV2, GatedMlp
from bigtrain.evaluation.extractors.encoders import ENCODERS, EncoderExtractor
from bigtrain.evaluation.extractors.named import PUBLISHED, check_name, named_extractor
from bigtrain.evaluation.extractors.weights import Published, load_weights
from bigtrain.randomness import seeded

Tensors = dict[str, torch.Tensor]
TENSORFLOW = TF1.encoder_resize


def images(n: int = 2, size: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def drawn(module: torch.nn.Module) -> Tensors:
    """A state of random weights, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=generator) * 0.1 for name, value in module.state_dict().items()}


def saved(path: Path, state: Tensors) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("layers", [1, (1, 1, 1, 1)])
def test_clip_is_torch_fidelitys(tmp_path: Path, layers: int | tuple[int, ...]) -> None:
    """On a vision transformer and a residual network, as their weights tell which of them it is."""
    with seeded(0, "test"):
        theirs = CLIPVisual(24, 64, layers, 64, 16).eval()
    if layers == 1:
        theirs.load_state_dict({name: value.half() for name, value in drawn(theirs).items()})
    state = {name: value.half() for name, value in theirs.state_dict().items() if "num_batches" not in name}
    theirs.load_state_dict(state, strict=False)
    mine = EncoderExtractor("clip-vit-b-16", saved(tmp_path / "clip.pt", state), TENSORFLOW)
    assert (mine.size, mine.feature_dim, mine.num_classes) == (64, 24, 0)
    around = SimpleNamespace(
        feature_extractor_internal_dtype=torch.float32, resolution=64, model=theirs, features_list=["clip"]
    )
    with torch.no_grad():
        (expected,) = FeatureExtractorCLIP.forward(around, images())
    features, logits, _ = mine.measure(images())
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert features.std(dim=0).mean() > 1e-4 * features.abs().mean()  # the weights tell images apart
    assert logits.shape == (2, 0)


def test_dinov2_is_a_vision_transformer() -> None:
    """torchvision's, with the scales of the channels in its dense layers."""
    mine = DinoV2(width=128, depth=2, patch=14, grid=3)
    state = drawn(mine)
    mine = DinoV2.of(state)
    theirs = VisionTransformer(42, 14, num_layers=2, num_heads=2, hidden_dim=128, mlp_dim=512)
    theirs.heads = torch.nn.Identity()
    names = {
        "class_token": "cls_token",
        "conv_proj": "patch_embed.proj",
        "encoder.pos_embedding": "pos_embed",
        "encoder.layers.encoder_layer_": "blocks.",
        "self_attention.in_proj_": "attn.qkv.",
        "self_attention.out_proj": "attn.proj",
        "encoder.ln.": "norm.",
        "ln_": "norm",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    }
    for name, value in theirs.state_dict().items():
        ours = name
        for their_part, our_part in names.items():
            ours = ours.replace(their_part, our_part)
        scale = {"attn.proj": "ls1.gamma", "mlp.fc2": "ls2.gamma"}
        found = state[ours]
        for dense, gamma in scale.items():
            if dense in ours:
                factor = state[ours.partition(dense)[0] + gamma]
                found = found * (factor[:, None] if found.dim() > 1 else factor)
        value.copy_(found)
    pixels = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(mine(pixels), theirs.eval()(pixels), rtol=1e-4, atol=1e-5)


def test_positions_are_sampled_a_little_beside_the_middle() -> None:
    """A ramp stays a ramp, at the places of a grid that is a tenth of a patch larger."""
    network = DinoV2(width=64, depth=1, patch=14, grid=37)
    ramp = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1).expand(1, -1, 64)
    network.pos_embed.data[:, 1:] = ramp
    rows = network.positions(16)[0, 1:, 0].unflatten(0, (16, 16))
    expected = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    torch.testing.assert_close(rows[8, 2:-2], expected[2:-2], rtol=0, atol=0.06)  # the cubic bends a ramp a little
    assert rows[8, 13] < 13.5 * 37 / 16 - 0.5 - 0.1
    assert network.positions(37) is network.pos_embed


def test_the_gated_mlp_is_as_wide_as_published() -> None:
    mlp = GatedMlp(1536)  # of ViT-g
    assert mlp.w12.weight.shape == (8192, 1536)
    small = GatedMlp(64)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    gate, value = (
        F.linear(x, *parts) for parts in zip(small.w12.weight.chunk(2), small.w12.bias.chunk(2), strict=True)
    )
    torch.testing.assert_close(small(x), small.w3(gate * gate.sigmoid() * value))


def test_dinov2_is_read_from_a_file_and_resized_by_the_protocol(tmp_path: Path) -> None:
    path = saved(tmp_path / "dinov2.pth", drawn(DinoV2(width=64, depth=1, patch=14, grid=20, gated=True)))
    found = [
        named_extractor("dinov2-vit-g-14", str(path), PROTOCOLS[name].resize("dinov2-vit-g-14"), 40)
        for name in ("tf1", "dgm-eval")
    ]
    assert [one.resize for one in found] == [
        "bilinear 224 as in TensorFlow 1, without antialias",
        "bicubic 224 as in Pillow, rounded to uint8",
    ]
    assert found[0].weight_hash == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    first, second = (one.measure(images()).features for one in found)
    assert first.shape == (2, 64)
    assert not torch.allclose(first, second, rtol=1e-3)


@pytest.mark.long
def test_vgg16_is_torch_fidelitys(tmp_path: Path) -> None:
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16  # noqa: PLC0415
    from torchvision.models import vgg16  # noqa: PLC0415

    with seeded(0, "test"):
        path = saved(tmp_path / "vgg16.pth", vgg16().state_dict())
    mine = EncoderExtractor("vgg16", path, TENSORFLOW)
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], str(path))
    assert mine.feature_dim == 4096
    torch.testing.assert_close(mine.measure(images()).features, theirs(images())[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_offline_the_error_says_which_file_goes_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(OSError, match=f"put it at {PUBLISHED[name].path}"):
        named_extractor(name, None, TENSORFLOW, 32)


@pytest.mark.parametrize("name", ENCODERS)
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "other.pth", {"weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=f"other.pth' are not those of '{name}'"):
        EncoderExtractor(name, path, TENSORFLOW)


def test_a_script_is_opened_only_if_its_hash_is_known(tmp_path: Path) -> None:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), content)
    path = tmp_path / "weights.pt"
    path.write_bytes(content.getvalue())
    known = Published("https://somewhere/weights.pt", f"it-{hashlib.sha256(content.getvalue()).hexdigest()}.pt")
    other = Published("https://somewhere/weights.pt", f"it-{'0' * 64}.pt")
    assert set(load_weights(path, known).tensors) == {"weight", "bias"}
    for published in (other, None):
        with pytest.raises(ValueError, match="not a file of tensors only"):
            load_weights(path, published)


def test_what_has_no_logits_has_no_inception_score(tmp_path: Path) -> None:
    path = saved(tmp_path / "dinov2.pth", drawn(DinoV2(width=64, depth=1, patch=14, grid=16)))
    extractor = EncoderExtractor("dinov2-vit-s-14", path, TENSORFLOW)
    with pytest.raises(ValueError, match=r"\['is'\] need an extractor with logits; the extractor is 'dinov2-vit-s-14'"):
        Evaluation(extractor, None, ["is"], num=20, batch_size=4)


@pytest.mark.parametrize(
    ("name", "said"), [("incepton", "did you mean inception"), ("x", "dinov2-vit-l-14"), ("x", "my_package.MyNet")]
)
def test_an_unknown_name_gets_the_valid_ones(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_name(name, "auto")
    check_name("auto", "auto")
    check_name("some_package.Net")
