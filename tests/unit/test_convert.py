"""`bigtrain convert` as a user meets it: snapshots of other trainers' files, and back."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.checkpoints import Checkpoints
from bigtrain.cli.main import main
from bigtrain.interop.onnx import onnx_of
from bigtrain.networks import BigGANGenerator, ProgressiveGenerator
from bigtrain.snapshots import load_opponent, load_snapshot
from bigtrain.storage import Storage
from tests.runs import tiny_config, write_config
from tests.unit.foreign import SEEN, recorded
from tests.unit.test_fit import fails
from tests.unit.test_interop_progressive import PRO_FOUND, made, pro_2_content
from tests.unit.test_unpickle import Calls


def convert(*arguments):
    return main(["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def biggan(tmp_path_factory):
    """A folder as BigGAN-PyTorch leaves it, of a run with copies."""
    folder, case = tmp_path_factory.mktemp("biggan"), recorded("biggan-pytorch")["shared_hier"]
    generator, discriminator = case["states"]["G"], case["states"]["D"]
    settings = {"itr": 3, "best_IS": np.float64(2.0), "config": {"BN_eps": 1e-5, "G_activation": torch.nn.ReLU()}}
    torch.save(generator, folder / "G_ema.pth")
    torch.save({name: value + 1 for name, value in generator.items()}, folder / "G.pth")
    torch.save(discriminator, folder / "D.pth")
    torch.save(settings, folder / "state_dict.pth")
    torch.save(generator, folder / "G_ema_best0.pth")
    return folder


@pytest.fixture(scope="module")
def converted(biggan, tmp_path_factory):
    file = tmp_path_factory.mktemp("converted") / "biggan.safetensors"
    assert convert(biggan, file, "--from", "biggan-pytorch") == 0
    return file


def test_a_conversion_is_a_snapshot_that_samples(biggan, converted, tmp_path, capsys):
    case, snapshot = recorded("biggan-pytorch")["shared_hier"], load_snapshot(str(converted))
    with torch.no_grad():
        torch.testing.assert_close(snapshot.generator(case["latent"], case["label"])[SEEN], case["images"])
    assert snapshot.card.config["converted"]["from"] == "biggan-pytorch"
    assert snapshot.card.config["converted"]["notes"] == ["the generator is G_ema after 3 steps"]
    folder = tmp_path / "run"
    assert convert(biggan, folder, "--from", "biggan-pytorch") == 0
    told = capsys.readouterr().out
    assert "note: the generator is G_ema after 3 steps" in told
    assert f"{folder}: BigGANGenerator at 32² with 5 classes and BigGANDiscriminator of {biggan}" in told
    made = []
    for source, batch in ((converted, 64), (converted, 2), (folder, 3)):
        out = tmp_path / "s.npz"
        assert main(["sample", str(source), "--out", str(out), "--num", "6", "--batch", str(batch)]) == 0
        made.append(np.load(out)["images"].astype(int))
    assert all(np.abs(images - made[0]).max() <= 1 for images in made)  # of 255: another batch rounds otherwise
    assert made[0].std() > 20


def test_one_file_and_names_with_a_suffix(biggan, tmp_path):
    expected = load_snapshot_of(biggan, tmp_path / "a.safetensors")
    for name, source, options in (
        ("b", biggan / "G_ema.pth", []),
        ("c", biggan, ["--suffix", "best0"]),
        ("d", biggan.as_uri(), []),
    ):
        found = load_snapshot_of(source, tmp_path / f"{name}.safetensors", *options)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    raw = load_snapshot_of(biggan, tmp_path / "a.safetensors", "--raw")
    assert torch.equal(raw["last.bias"], expected["last.bias"] + 1)
    assert load_opponent(str(tmp_path / "a.safetensors")) is not None
    load_snapshot_of(biggan / "G.pth", tmp_path / "a.safetensors")
    assert load_opponent(str(tmp_path / "a.safetensors")) is None  # what was there belonged to another


def load_snapshot_of(source, file, *options):
    assert convert(source, file, "--from", "biggan-pytorch", *options) == 0
    return load_snapshot(str(file)).generator.state_dict()


def test_hugging_faces_folder_or_file(tmp_path):
    case, snapshots = recorded("hf-biggan")["layers"], []
    for prefix, source in (("", tmp_path), ("biggan-deep-32-", tmp_path / "biggan-deep-32-pytorch_model.bin")):
        torch.save(case["states"]["weights"], tmp_path / f"{prefix}pytorch_model.bin")
        (tmp_path / f"{prefix}config.json").write_text(json.dumps(case["settings"]))
        assert convert(source, tmp_path / "h.safetensors", "--from", "hf-biggan", "--truncation", 0.58) == 0
        snapshots.append(load_snapshot(str(tmp_path / "h.safetensors")))
    for snapshot in snapshots:
        with torch.no_grad():
            torch.testing.assert_close(
                snapshot.generator(case["latent"], case["label"])[SEEN], case["images"], rtol=0, atol=1e-5
            )
        assert snapshot.card.config["converted"]["options"] == {"truncation": 0.58}


def test_what_files_of_pro_gan_pth_do_not_tell(tmp_path):
    """Where it stands, and whether its learning rate was equalized, are options; without, it is grown."""
    torch.save(pro_2_content(), tmp_path / "GAN_GEN_2.pth")
    cards = []
    for options in ([], ["--resolution", 8, "--alpha", 0.25], ["--no-equalized"]):
        assert convert(tmp_path / "GAN_GEN_2.pth", tmp_path / "p.safetensors", "--from", "pro-gan-pth", *options) == 0
        cards.append(load_snapshot(str(tmp_path / "p.safetensors")))
    assert [card.card.place for card in cards] == [
        {"resolution": 16, "alpha": 1.0},
        {"resolution": 8, "alpha": 0.25},
        {"resolution": 16, "alpha": 1.0},
    ]
    with torch.no_grad():
        images = cards[1].generator(made("two/latent", (2, 8)), **cards[1].card.place)
    torch.testing.assert_close(images, PRO_FOUND["two/8/0.25/generator"], rtol=0, atol=1e-5)
    weights = [card.generator.state_dict()["blocks.1.conv1.weight"] for card in cards]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_a_file_that_is_none_is_not_read(tmp_path, capsys):
    """Larger than any memory, or no file at all."""
    out = tmp_path / "a.safetensors"
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nothing")
    (tmp_path / "endless.pt").symlink_to("/dev/zero")
    for name in ("large", "folder", "dangling", "endless"):
        assert f"{name}.pt" in fails(capsys, "convert", tmp_path / f"{name}.pt", out, "--from", "gan-zoo-pgan")
    assert not out.exists()


def test_back_into_their_files(biggan, converted, tmp_path):
    assert convert(converted, tmp_path / "back", "--to", "biggan-pytorch") == 0
    for name, source in (("G", "G_ema"), ("G_ema", "G_ema"), ("D", "D")):
        written = torch.load(tmp_path / "back" / f"{name}.pth")
        state = torch.load(biggan / f"{source}.pth")
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], state[key]) for key in state if not key.endswith("sv0"))
    assert torch.load(tmp_path / "back" / "state_dict.pth")["config"]["G_attn"] == "16"
    assert convert(converted, tmp_path / "G.pth", "--to", "biggan-pytorch") == 0
    assert torch.load(tmp_path / "G.pth").keys() == torch.load(biggan / "G.pth").keys()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{biggan}", "a.safetensors"], "one of --from FORMAT"),
        (["{biggan}", "a.safetensors", "--from", "biggan-pytorch", "--to", "onnx"], "one of --from FORMAT"),
        (["{biggan}", "a.safetensors", "--from", "biggan"], "invalid choice: 'biggan'"),
        (["{biggan}", "a.safetensors", "--from", "biggan-pytorch", "--truncation", "0.5"], "--from hf-biggan only"),
        (["{biggan}", "a.safetensors", "--form", "biggan-pytorch"], "did you mean --from?"),
        (["{biggan}", "a.safetensors", "--from", "biggan-pytorch", "--suffix", "best7"], "G_ema_best7.pth"),
        (["{biggan}", "a.safetensors", "--from", "hf-biggan"], "has none of pytorch_model.bin, config.json"),
        (["{biggan}/G.pth", "a.safetensors", "--from", "hf-biggan"], "there is no config.json"),
        (["{biggan}/D.pth", "a.safetensors", "--from", "biggan-pytorch"], "G is a discriminator"),
        (["{biggan}/state_dict.pth", "a.safetensors", "--from", "biggan-pytorch"], "itr is no tensor"),
        (["{biggan}/nothing.pth", "a.safetensors", "--from", "biggan-pytorch"], "has none of nothing.pth"),
        (["{biggan}/nowhere", "a.safetensors", "--from", "biggan-pytorch"], "has none of G_ema.pth, G.pth"),
        (["{biggan}/nothing.pt", "a.safetensors", "--from", "gan-zoo-pgan"], "nothing.pt"),
        (["{biggan}", "a.safetensors", "--from", "biggan-pytorch", "--alpha", "1"], "--from pro-gan-pth only"),
        (["{converted}", "a.onnx", "--to", "safetensors"], "DST (=a.onnx) must end in .safetensors"),
        (["{converted}", "a", "--to", "onnx"], "DST (=a) must end in .onnx"),
        (["{biggan}", "a.onnx", "--to", "onnx"], "holds no snapshot"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(arguments, said, biggan, converted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, "convert", *(word.format(biggan=biggan, converted=converted) for word in arguments))
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_evil_files_are_refused(biggan, tmp_path, capsys):
    file, proof, out = tmp_path / "G.pth", tmp_path / "executed", tmp_path / "a.safetensors"
    whole = (biggan / "G.pth").read_bytes()
    evil = {**torch.load(biggan / "G.pth"), "linear.bias": Calls(os.system, f"touch {proof}")}
    torch.save(evil, tmp_path / "evil.pth")
    for content, said in (
        (whole[: len(whole) // 2], "is damaged, cut off or no checkpoint"),
        (b"<html>not found</html>", "is not a checkpoint"),
        ((tmp_path / "evil.pth").read_bytes(), f"{os.system.__module__}.system"),
    ):
        file.write_bytes(content)
        line = fails(capsys, "convert", file, out, "--from", "biggan-pytorch")
        assert said in line
        assert str(file) in line
    state = torch.load(biggan / "G.pth")
    del state["blocks.1.0.conv2.weight"]
    torch.save(state, file)
    assert "G lacks blocks.1.0.conv2.weight" in fails(capsys, "convert", file, out, "--from", "biggan-pytorch")
    assert not out.exists()
    assert not proof.exists()


def test_what_an_onnx_program_computes(tmp_path, capsys):
    """Of any number of samples, at the place of a growing generator; the file is left only if the images agree."""
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    generator = ProgressiveGenerator(8, 1, num_classes=3, latent_dim=5, fmap_base=32, fmap_max=8).eval()
    program, difference = onnx_of(generator, {"resolution": 8, "alpha": 0.3})
    assert 0 < difference < 1e-5
    session = onnxruntime.InferenceSession(program)
    latent, label = torch.randn(7, 5), torch.arange(7) % 3
    (found,) = session.run(None, {"latent": latent.numpy(), "label": label.numpy()})
    with torch.no_grad():
        expected = generator(latent, label, resolution=8, alpha=0.3)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    assert [given.name for given in session.get_inputs()] == ["latent", "label"]
    assert session.get_inputs()[0].shape[1] == 5

    class Fixed(BigGANGenerator):
        """Its program is of three samples only."""

        def forward(self, latent, label=None):
            return super().forward(latent).view(len(latent), 1, 32, 32)

    with pytest.raises(ValueError, match="onnxruntime cannot run a batch of 1"):
        onnx_of(Fixed(32, 1, 0, 8, width=2, attention=[]).eval(), {})


@pytest.mark.long
def test_biggan_as_onnx(converted, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert convert(converted, tmp_path / "g.onnx", "--to", "onnx") == 0
    assert "onnxruntime's images differ by" in capsys.readouterr().out
    session, case = onnxruntime.InferenceSession(tmp_path / "g.onnx"), recorded("biggan-pytorch")["shared_hier"]
    (found,) = session.run(None, {"latent": case["latent"].numpy(), "label": case["label"].numpy()})
    torch.testing.assert_close(torch.from_numpy(found)[SEEN], case["images"], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Shards of noise in colour, 32², of five classes."""
    folder = tmp_path_factory.mktemp("colours")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    for number, picture in enumerate(pixels):
        path = folder / "pictures" / str(number % 5) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    build = ["shards", "build", str(folder / "pictures"), str(folder / "shards"), "--resolutions", "32"]
    assert main([*build, "--workers", "1"]) == 0
    return folder / "shards"


def fine_tuning(shards, start, **generator):
    """BigGAN of the conversion's sizes on these shards, two steps."""
    card = load_snapshot(str(start)).card
    config, (network, _) = tiny_config(shards), load_opponent(str(start))
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3, "betas": [0.0, 0.9]}}
    arguments = {**card.network["init_args"], **generator}
    config["schedule"] = {
        "class_path": "Constant",
        "init_args": {"resolution": 32, "batch_size": 4, "total_kimg": 0.008},
    }
    config["game"]["init_args"] = {
        "generator": {"network": {**card.network, "init_args": arguments}, "optimizer": adam},
        "discriminator": {"network": network, "optimizer": adam},
        "objective": {"class_path": "Hinge"},
        "ema_half_life_kimg": 1000.0,
    }
    config["evaluation"], config["cadences"] = None, {"checkpoint_kimg": 0.004, "num_samples": 5}
    return {**config, "start_from": str(start)}


def test_a_training_begins_with_a_conversion(converted, colours, tmp_path, capsys):
    """The average of so long a half-life is what it began with; a run that began elsewhere is far from it."""
    config = write_config(tmp_path / "fine.yaml", fine_tuning(colours, converted))
    begun = load_snapshot(str(converted)).generator.state_dict()
    assert main(["fit", "--config", str(config), "--run", str(tmp_path / "run")]) == 0
    assert f"beginning with {converted.with_suffix('')}" in capsys.readouterr().err
    first, last = (load_snapshot(str(tmp_path / "run" / "snapshots" / f"000000.00{n}.json")) for n in (4, 8))
    for snapshot in (first, last):
        for name, value in snapshot.generator.named_parameters():
            torch.testing.assert_close(value, begun[name], rtol=0, atol=1e-5)
    options = ["--config", str(config), "--run", str(tmp_path / "other"), "--start_from", "null"]
    assert main(["fit", *options, "--schedule.total_kimg", "0.004"]) == 0
    other = load_snapshot(str(tmp_path / "other")).generator.state_dict()
    assert (other["first.weight"] - begun["first.weight"]).abs().max() > 0.05
    # Stopped after the first step and resumed, while what it began with is gone.
    config.write_text(config.read_text().replace(str(converted), str(tmp_path / "copy.safetensors")))
    assert main(["convert", str(converted), str(tmp_path / "copy.safetensors"), "--to", "safetensors"]) == 0
    again = ["fit", "--config", str(config), "--run", str(tmp_path / "again")]
    assert main([*again, "--schedule.total_kimg", "0.004"]) == 0
    for file in tmp_path.glob("copy.*"):
        file.unlink()
    assert main(again) == 0
    resumed = load_snapshot(str(tmp_path / "again")).generator.state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in last.generator.state_dict().items())


def test_the_discriminator_begins_there_too_and_differences_are_told(converted, colours, tmp_path, capsys):
    config = fine_tuning(colours, converted, bn_eps=1e-3)
    path = write_config(tmp_path / "fine.yaml", config)
    assert main(["fit", "--config", str(path), "--run", str(tmp_path / "run"), "--schedule.total_kimg", "0.004"]) == 0
    assert "generator.network.bn_eps is 0.001 here, but 1e-05 in start_from" in capsys.readouterr().err
    checkpoint = Checkpoints(Storage(tmp_path / "run" / "checkpoints")).load()
    _, state = load_opponent(str(converted))
    moved = checkpoint.tensors["networks/discriminator.network.logit.weight"] - state["logit.weight"]
    assert 0 < moved.abs().max() <= 1.1e-3  # one step of Adam


def test_a_run_begins_with_another_run(digits, tmp_path, capsys):
    config = write_config(tmp_path / "tiny.yaml", {**tiny_config(digits), "evaluation": None})
    options = ["fit", "--config", str(config), "--schedule.total_kimg", "0.016"]
    assert main([*options, "--run", str(tmp_path / "one")]) == 0
    other = ["--run", str(tmp_path / "two"), "--seed", "4"]  # whose own weights would be far away
    assert main([*options, *other, "--start_from", str(tmp_path / "one")]) == 0
    assert "which has no discriminator" not in capsys.readouterr().err
    one, two = (Checkpoints(Storage(tmp_path / name / "checkpoints")).load().tensors for name in ("one", "two"))
    names = [name for name in one if name.startswith("networks/discriminator.") and name.endswith("weight")]
    moved = [float((one[name] - two[name]).abs().max()) for name in names]
    assert 0 < max(moved) < 0.01  # by two updates of 0.002 each, from where the other ended
    assert convert(tmp_path / "one", tmp_path / "one.safetensors", "--to", "safetensors") == 0
    assert load_opponent(str(tmp_path / "one.safetensors")) is not None
    told = fails(capsys, *options, *other)
    assert "start_from is None, but the run in" in told


def test_what_a_training_cannot_begin_with_is_said_before_it_begins(converted, digits, tmp_path, capsys):
    config = write_config(tmp_path / "tiny.yaml", {**tiny_config(digits), "evaluation": None})
    options = ["fit", "--config", config, "--run", tmp_path / "run", "--start_from"]
    line = fails(capsys, *options, converted)
    assert f"start_from (={converted}): its generator is another network than this ProgressiveGenerator" in line
    assert "holds no snapshot" in fails(capsys, *options, tmp_path / "nowhere")
    assert not (tmp_path / "run" / "checkpoints").exists()
