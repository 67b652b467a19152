"""Progressive GANs of other trainers compute here what they computed there.

The fixtures hold what the sources' own code gave (pytorch_GAN_zoo at b75dee4; pro-gan-pth 3.4 and 2.1.1), with weights
and inputs that `made` makes again from their names.
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bigtrain import networks
from bigtrain.games import AdversarialGame, Player
from bigtrain.interop import gan_zoo, pro_gan
from bigtrain.interop.conversion import Conversion, Part
from bigtrain.objectives import NonSaturating
from bigtrain.regularizers import R1
from bigtrain.schedules import Constant
from bigtrain.snapshots import Card, load_snapshot, save_snapshot
from bigtrain.storage import Storage
from tests.unit.tiny import adam, play

FIXTURES = Path(__file__).parent.parent / "fixtures" / "interop"
BATCHES = [1, 3, 4, 8]
ZOO = ["grey4", "fading8", "fading16", "tanh", "classes"]
PRO = ["grown", "grey", "plain"]


def made(name, shape, std=1.0):
    """Normal numbers that belong to the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(drawn * np.float32(std))


def stored(name):
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    return json.loads(bytes(arrays.pop("cases").numpy())), arrays


ZOO_CASES, ZOO_FOUND = stored("gan_zoo")
PRO_CASES, PRO_FOUND = stored("pro_gan")


def zoo_content(name, networks=("netG", "netD", "avgG")):
    """What a file of that case unpickles to: its config is an object."""
    case = ZOO_CASES[name]
    return {"config": SimpleNamespace(**case["config"])} | {
        network: {key: made(f"{name}/{network}/{key}", shape, case["std"]) for key, shape in shapes.items()}
        for network, shapes in case["shapes"].items()
        if network in networks
    }


def pro_content(name):
    case = PRO_CASES[name]
    return {
        network: {
            "conf": saved["conf"],
            "state_dict": {
                key: made(f"{name}/{network}/{key}", shape, case["std"]) for key, shape in saved["shapes"].items()
            },
        }
        for network, saved in case["networks"].items()
    }


def pro_2_content():
    return {key: made(f"two/generator/{key}", shape) for key, shape in PRO_CASES["two"]["shapes"].items()}


def network(part):
    made_network = getattr(networks, part.network["class_path"].rpartition(".")[2])(**part.network["init_args"])
    made_network.load_state_dict(part.state)
    return made_network


def place(conversion):
    return {"resolution": conversion.resolution, "alpha": conversion.alpha}


def error(found, expected):
    return (found - expected).abs().max().item()


def zoo_label(name):
    """Of cat or dog (1, 0) and hat none, red or blue (2, 1), as the fixture's one-hot vectors."""
    return torch.tensor([1 * 3 + 2, 0 * 3 + 1]) if name == "classes" else None


@torch.no_grad()
@pytest.mark.parametrize(("name", "averaged"), [*((name, True) for name in ZOO), ("grey4", False), ("fading8", False)])
def test_a_generator_of_the_gan_zoo_makes_its_images(name, averaged):
    content = zoo_content(name) if averaged else zoo_content(name, ["netG", "netD"])
    conversion = gan_zoo.read(content)
    generator = network(conversion.generator)
    assert conversion.resolution == generator.resolution
    latent = made(f"{name}/latent", (2, generator.latent_dim))
    images = generator(latent, zoo_label(name), **place(conversion))
    assert error(images, ZOO_FOUND[f"{name}/{'avgG' if averaged else 'netG'}"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ZOO)
def test_a_discriminator_of_the_gan_zoo_gives_its_logits(name):
    """Also of a batch that its groups of four do not divide, and of one image."""
    conversion = gan_zoo.read(zoo_content(name))
    discriminator = network(conversion.discriminator)
    shape = discriminator.image_channels, discriminator.resolution, discriminator.resolution
    for n in BATCHES:
        label = torch.arange(n) if name == "classes" else None
        if label is not None:
            label = label % discriminator.num_classes
        logits = discriminator(made(f"{name}/images/{n}", (n, *shape)), label, **place(conversion))
        assert error(logits, ZOO_FOUND[f"{name}/netD/{n}"][:, 0]) <= 1e-5


def test_the_gan_zoo_fades_the_other_way_and_never_its_discriminator_at_8():
    conversion = gan_zoo.read(zoo_content("fading8"))
    assert (conversion.resolution, conversion.alpha) == (8, 0.65)
    discriminator = network(conversion.discriminator)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(discriminator(images, None, 8, 0.1), discriminator(images, None, 8, 1.0))
    discriminator.activate(8, fading=True)
    discriminator(images, None, 8, 0.1).sum().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_files_of_the_gan_zoo_are_read_however_they_name_their_tensors():
    """By its own older code, by a data-parallel wrapper, with a config that is a mapping."""
    content = zoo_content("fading16")
    expected = gan_zoo.read(content)
    content["config"] = vars(content["config"])
    content["avgG"] = {f"module.{key}": value for key, value in content["avgG"].items()}
    content["netD"] = {key.replace(".module.", "."): value for key, value in content["netD"].items()}
    found = gan_zoo.read(content)
    for one, other in ((expected.generator, found.generator), (expected.discriminator, found.discriminator)):
        assert one.network == other.network
        assert all(torch.equal(value, other.state[key]) for key, value in one.state.items())


def test_labels_of_the_gan_zoo_count_its_attributes_in_its_order():
    conversion = gan_zoo.read(zoo_content("classes"))
    generator = network(conversion.generator)
    assert generator.num_classes == 6
    expected = torch.tensor([[0.0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 1, 0, 0]])  # cat, dog; none, red, blue
    assert torch.equal(generator.embed_label(torch.tensor([5, 0, 3])), expected)
    assert any("kind (2: ['cat', 'dog']), then hat (3" in note for note in conversion.notes)
    assert any("classifier is left out" in note for note in conversion.notes)


def test_a_discriminator_with_too_many_classes_is_left_out(monkeypatch):
    monkeypatch.setattr(gan_zoo, "MOST_CLASSES", 5)
    conversion = gan_zoo.read(zoo_content("classes"))
    assert conversion.discriminator is None
    assert "the discriminator is left out: with 6 classes" in conversion.notes[-1]


def test_what_was_converted_trains_on():
    """The players fit to each other, and every weight of the path moves."""
    conversion = gan_zoo.read(zoo_content("classes"))
    args = [part.network["init_args"] for part in (conversion.generator, conversion.discriminator)]
    game = AdversarialGame(
        Player(partial(networks.ProgressiveGenerator, **args[0]), adam),
        Player(partial(networks.ProgressiveDiscriminator, **args[1]), adam),
        NonSaturating(),
        Constant(16, 8, 0.1),
        [R1(1.0)],
        accumulation=2,
    )
    game.generator_network.load_state_dict(conversion.generator.state)
    game.discriminator_network.load_state_dict(conversion.discriminator.state)
    play(game, 2)
    assert game.discriminator_network.projection.weight.any()
    for part, trained in (
        (conversion.generator, game.generator_network),
        (conversion.discriminator, game.discriminator_network),
    ):
        for name, value in trained.named_parameters():
            assert value.isfinite().all()
            assert torch.equal(value, part.state[name]) != value.requires_grad, name


def test_a_snapshot_of_a_conversion_is_one(tmp_path):
    conversion = gan_zoo.read(zoo_content("classes"))
    card = Card(conversion.generator.network, 0, conversion.resolution, conversion.alpha, [], [], 0, "", {}, {})
    save_snapshot(Storage(str(tmp_path)), conversion.generator.state, card)
    loaded = load_snapshot(str(tmp_path))
    images = loaded.generator(made("classes/latent", (2, 5)), zoo_label("classes"), **loaded.card.place)
    assert error(images, ZOO_FOUND["classes/avgG"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", PRO)
def test_networks_of_pro_gan_pytorch_give_what_they_gave(name):
    """At every depth, in the middle of a fade, with batches of one group and of two; `grey` has classes."""
    case, content = PRO_CASES[name], pro_content(name)
    for resolution, alpha in case["places"]:
        conversion = pro_gan.read(content, resolution=resolution, alpha=alpha)
        generator, discriminator = network(conversion.generator), network(conversion.discriminator)
        latent, key = made(f"{name}/latent", (2, generator.latent_dim)), f"{name}/{resolution}/{alpha}"
        assert error(generator(latent, **place(conversion)), PRO_FOUND[f"{key}/shadow_generator"]) <= 1e-5
        for n in BATCHES:
            shape = n, discriminator.image_channels, resolution, resolution
            label = torch.arange(n) % discriminator.num_classes if discriminator.num_classes else None
            logits = discriminator(made(f"{name}/images/{resolution}/{n}", shape), label, **place(conversion))
            assert error(logits, PRO_FOUND[f"{key}/discriminator/{n}"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", PRO)
def test_without_a_shadow_the_generator_itself_is_taken(name):
    content = pro_content(name)
    del content["shadow_generator"], content["discriminator"]
    conversion = pro_gan.read(content, resolution=4)
    generator = network(conversion.generator)
    images = generator(made(f"{name}/latent", (2, generator.latent_dim)), resolution=4)
    assert error(images, PRO_FOUND[f"{name}/4/1.0/generator"]) <= 1e-5
    assert conversion.discriminator is None


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_generator_of_pro_gan_pth_2_makes_its_images(prefix):
    content = {prefix + key: value for key, value in pro_2_content().items()}
    for resolution, alpha in PRO_CASES["two"]["places"]:
        conversion = pro_gan.read(content, resolution=resolution, alpha=alpha)
        images = network(conversion.generator)(made("two/latent", (2, 8)), **place(conversion))
        assert error(images, PRO_FOUND[f"two/{resolution}/{alpha}/generator"]) <= 1e-5


@pytest.mark.parametrize("name", ["grown", "grey"])
def test_pro_gan_pth_goes_there_and_back(name):
    content = pro_content(name)
    if name == "grey":  # as its own code has clipped them
        vectors = content["discriminator"]["state_dict"]["layers.1.label_embedder.weight"]
        vectors.copy_(vectors.renorm(2, 0, 1.0))
    back = pro_gan.write(pro_gan.read(content))
    for part, of in (
        ("generator", "shadow_generator"),
        ("shadow_generator", "shadow_generator"),
        ("discriminator", "discriminator"),
    ):
        assert back[part]["conf"] == content[of]["conf"]
        assert back[part]["state_dict"].keys() == content[of]["state_dict"].keys()
        for key, value in content[of]["state_dict"].items():
            assert torch.allclose(back[part]["state_dict"][key], value, rtol=1e-6, atol=1e-6), key
            assert back[part]["state_dict"][key].shape == value.shape


def test_what_pro_gan_pth_cannot_do_is_not_written():
    paper = networks.ProgressiveGenerator(8, channels=[4, 4])
    init_args = {"resolution": 8, "channels": [4, 4]}
    part = Part({"class_path": "bigtrain.networks.ProgressiveGenerator", "init_args": init_args}, paper.state_dict())
    with pytest.raises(ValueError, match=r"first_norms \(='original'\)"):
        pro_gan.write(Conversion(part, None, 8))
    with pytest.raises(ValueError, match="must be a ProgressiveGenerator"):
        pro_gan.write(Conversion(Part({"class_path": "DCGANGenerator", "init_args": {}}, {}), None, 8))
    conversion = pro_gan.read(pro_content("grey"))
    conversion.discriminator.state["projection.weight"].mul_(2)
    with pytest.raises(ValueError, match="longer than"):
        pro_gan.write(conversion)
    conversion.generator.state["blocks.0.dense.bias"][3] += 1
    with pytest.raises(ValueError, match="differs between pixels"):
        pro_gan.write(conversion)


def changed(content, path, value=None):
    """The content with another value at that place, or without it."""
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def zoo_changed(path, value=None):
    content = zoo_content("grey4")
    content["config"] = vars(content["config"])
    return lambda: gan_zoo.read(changed(content, path, value))


def pro_changed(path, value=None):
    return lambda: pro_gan.read(changed(pro_content("plain"), path, value))


G, D = ["generator", "state_dict"], ["discriminator", "state_dict"]
SHADOW = ["shadow_generator", "state_dict"]


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (zoo_changed(["config"]), r"holds \['avgG', 'netD', 'netG'\]"),
        (lambda: gan_zoo.read({"state_dict": {}}), "netG, netD, avgG"),
        (zoo_changed(["avgG", "formatLayer.module.bias"]), "avgG lacks 'formatLayer.bias'"),
        (zoo_changed(["avgG", "toRGBLayers.0.module.weight"]), "avgG lacks 'toRGBLayers.0.weight'"),
        (zoo_changed(["avgG", "noise.weight"], torch.ones(1)), "avgG has unknown 'noise.weight'"),
        (
            zoo_changed(["avgG", "formatLayer.module.weight"], torch.ones(95, 5)),
            r"formatLayer.weight .* \[95, 5\], not",
        ),
        (zoo_changed(["avgG", "toRGBLayers.0.module.weight"], torch.ones(6)), r"toRGBLayers.0.weight .*shape \[6\]"),
        (zoo_changed(["netD", "decisionLayer.module.weight"]), "netD lacks 'decisionLayer.weight'"),
        (zoo_changed(["netD"], {"a": 1}), "netD is not a state dict"),
        (zoo_changed(["config"], 3), "config is a int"),
        (zoo_changed(["config", "lossCriterion"], "Hinge"), "lossCriterion .*'Hinge'.*'WGANGP'"),
        (zoo_changed(["config", "attribKeysOrder"], {"a": {"order": 0, "values": list("abcde")}}), "has 5 values"),
        (zoo_changed(["config", "attribKeysOrder"], {"a": ["b"]}), "attribKeysOrder must"),
        (zoo_changed(["config", "attribKeysOrder"], {"a": {"order": 0, "values": 3}}), "attribKeysOrder must"),
        (zoo_changed(["config", "alpha"], "x"), r"config.alpha \(='x'\) must be a number"),
        (zoo_changed(["config", "lossCriterion"], ["WGANGP"]), "lossCriterion"),
        (zoo_changed(["netD", "decisionLayer.module.bias"], torch.tensor(1.0)), "decisionLayer.bias"),
        (
            zoo_changed(["avgG", "formatLayer.module.weight"], torch.tensor(1.0)),
            r"formatLayer.weight has the shape \[\]",
        ),
        (pro_changed([*SHADOW, "layers.0.conv_1.bias"], torch.tensor(1.0)), r"conv_1.bias has the shape \[\]"),
        (pro_changed([*D, "layers.0.conv_2.weight"], torch.tensor(1.0)), r"conv_2.weight has the shape \[\]"),
        (pro_changed(["shadow_generator", "conf"]), "shadow_generator must hold 'conf'"),
        (pro_changed([*SHADOW, "layers.0.conv_2.bias"]), "shadow_generator lacks 'layers.0.conv_2.bias'"),
        (pro_changed([*SHADOW, "rgb_converters.0.weight"]), "lacks 'rgb_converters.0.weight'"),
        (pro_changed([*SHADOW, "layers.0.conv_1.weight"], torch.ones(4, 5)), r"conv_1.weight has the shape \[4, 5\]"),
        (
            pro_changed([*D, "layers.0.conv_4.weight"], torch.ones(1)),
            "discriminator has unknown 'layers.0.conv_4.weight'",
        ),
        (lambda: pro_gan.read(pro_content("plain"), resolution=8), r"resolution \(=8\) must .* from 4 to 4"),
        (lambda: pro_gan.read(pro_content("plain"), alpha=1.5), r"alpha \(=1.5\)"),
        (lambda: pro_gan.read({"initial_block.conv_1.deconv.weight": torch.ones(1)}), "pro-gan-pth 1"),
        (lambda: pro_gan.read({"final_block.conv_1.weight": torch.ones(1)}), "holds .*final_block"),
        (lambda: pro_gan.read([]), "not pro_gan_pytorch's"),
    ],
)
def test_what_is_not_of_the_format_is_refused_in_one_line(read, named):
    with pytest.raises(ValueError, match=named) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_a_discriminator_without_activation_behind_from_rgb_is_left_out_with_a_note():
    content = pro_content("plain")
    state = content["discriminator"]["state_dict"]
    for key in [key for key in state if key.startswith("from_rgb.")]:
        state[key.replace(".0.0.", ".0.")] = state.pop(key)
    conversion = pro_gan.read(content)
    assert conversion.discriminator is None
    assert any("before 3.3" in note for note in conversion.notes)
