"""BigGAN-PyTorch and pytorch-pretrained-BigGAN: the same images and logits as their code made."""

import json

import pytest
import torch

from bigtrain.interop import biggan_pytorch, hf_biggan
from bigtrain.interop.names import loaded, network_of
from tests.unit.foreign import SEEN, recorded

BIGGAN, HF = recorded("biggan-pytorch"), recorded("hf-biggan")
#: Of sums in another order; the logits are sums of up to 4096 features, some of them of about 100.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def content_of(case):
    """As a folder of BigGAN-PyTorch has it."""
    return {("G_ema" if name == "G" else name): state for name, state in case["states"].items()}


def read_biggan(name, **options):
    return biggan_pytorch.read(content_of(BIGGAN[name]), **{**BIGGAN[name]["options"], **options})


def read_hf(name, **options):
    case = HF[name]
    content = {"config": case["settings"], "weights": case["states"]["weights"]}
    return hf_biggan.read(content, **{**case["options"], **options})


def images(conversion, case):
    with torch.no_grad():
        return loaded(conversion.generator)(case["latent"], case["label"])


@pytest.mark.parametrize("name", BIGGAN)
def test_biggan_makes_the_same_images_and_logits(name):
    """Measured: images within 9e-7, logits within 6e-7 of their size."""
    case, conversion = BIGGAN[name], read_biggan(name)
    made = images(conversion, case)
    torch.testing.assert_close(made[SEEN], case["images"], rtol=0, atol=1e-5)
    assert case["images"].std() > 0.1  # it could have been all grey, or all black and white
    assert conversion.resolution == made.shape[-1]
    assert (conversion.discriminator is None) == ("logits" not in case)
    if conversion.discriminator is not None:
        with torch.no_grad():
            torch.testing.assert_close(loaded(conversion.discriminator)(made, case["label"]), case["logits"], **CLOSE)


@pytest.mark.parametrize("name", HF)
def test_hugging_faces_biggan_makes_the_same_images(name):
    case = HF[name]
    torch.testing.assert_close(images(read_hf(name), case)[SEEN], case["images"], rtol=0, atol=1e-5)
    assert case["images"].std() > 0.1


def test_what_a_compatibility_option_changes():
    """Each of them is needed for the same images, where the source's code does something else than it seems to."""
    for found, case in (
        (read_biggan("eps", last_bn_eps=1e-2), BIGGAN["eps"]),
        (read_biggan("eps", bn_eps=1e-5), BIGGAN["eps"]),
        (read_biggan("cross_replica", cross_replica="multiplied"), BIGGAN["cross_replica"]),
        (read_hf("between", interpolation="linear"), HF["between"]),
    ):
        assert (images(found, case)[SEEN] - case["images"]).abs().max() > 1e-3


def test_statistics_between_two_truncations():
    """The row that is nearer counts more, but in the source's code the other one; 0.58 / 0.02 is below 29 in floats."""
    table = HF["between"]["states"]["weights"]["generator.bn.running_means"]
    for truncation, near, share in ((0.37, 2, 0.15), (0.8, 4, 0.0)):
        linear, source = (
            read_hf("between", truncation=truncation, interpolation=kind).generator.state["last_norm.running_mean"]
            for kind in ("linear", "source")
        )
        low = table[near - (share > 0)]
        torch.testing.assert_close(linear, low * share + table[near] * (1 - share))
        torch.testing.assert_close(source, low * (1 - share) + table[near] * share)
    below = read_hf("layers", truncation=0.58, interpolation="source").generator.state["last_norm.running_mean"]
    torch.testing.assert_close(below, HF["layers"]["states"]["weights"]["generator.bn.running_means"][28])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cifar", {"resolution": 32, "width": 4, "latent_dim": 8, "shared_dim": 0, "num_classes": 5, "attention": []}),
        ("shared_hier", {"latent_dim": 20, "shared_dim": 6, "hierarchical": True, "attention": [16]}),
        ("flat64", {"resolution": 64, "width": 2, "latent_dim": 8, "hierarchical": False, "attention": [16, 32]}),
        ("deep64", {"resolution": 64, "width": 4, "latent_dim": 8, "depth": 2, "attention": [32]}),
    ],
)
def test_the_architecture_follows_from_names_and_shapes(name, arguments):
    found = read_biggan(name).generator.network["init_args"]
    assert {key: found[key] for key in arguments} == arguments


def test_attention_stands_where_that_code_puts_it():
    """Its D_attn 16 at 32² is behind every block, because it takes them all to be at 16²."""
    found = read_biggan("shared_hier").discriminator.network["init_args"]
    assert (found["attention"], found["attention_after"]) == ([16, 8], [3, 4])
    found = read_biggan("flat64").discriminator.network["init_args"]
    assert (found["attention"], found["attention_after"]) == ([8, 4], [5])


def test_the_released_layout_is_biggan_deep_by_its_width():
    network = read_hf("released").generator.network
    assert network["class_path"] == "BigGANDeepGenerator"
    assert {"resolution": 128, "width": 4, "depth": 2, "attention": [32]}.items() <= network["init_args"].items()
    assert read_hf("layers").generator.network["class_path"] == "DeepGenerator"


def test_settings_beside_the_weights_say_what_these_do_not():
    case = BIGGAN["eps"]
    settings = {"itr": 7, "config": {"BN_eps": 1e-2, "SN_eps": 1e-4, "G_nl": "inplace_relu", "norm_style": "bn"}}
    found = biggan_pytorch.read({**content_of(case), "state_dict": settings})
    torch.testing.assert_close(images(found, case)[SEEN], case["images"], rtol=0, atol=1e-5)
    assert found.notes[0] == "the generator is G_ema after 7 steps"
    for name, value in (("norm_style", "in"), ("G_nl", "selu")):
        with pytest.raises(ValueError, match=f"{name} .='{value}'. cannot be read; only"):
            biggan_pytorch.read({**content_of(case), "state_dict": {"config": {name: value}}})


def test_which_generator_and_names_of_copies():
    state = BIGGAN["cifar"]["states"]["G"]
    raw = {f"module.{name}": value.half() if value.is_floating_point() else value for name, value in state.items()}
    both = {"G": raw, "G_ema": state}
    averaged, other = biggan_pytorch.read(both), biggan_pytorch.read(both, raw=True)
    assert averaged.generator.state.keys() == other.generator.state.keys()
    assert other.generator.state["last.weight"].dtype == torch.float32
    assert not torch.equal(averaged.generator.state["last.weight"], other.generator.state["last.weight"])
    torch.testing.assert_close(averaged.generator.state, other.generator.state, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["cifar", "shared_hier", "eps", "deep", "deep64"])
def test_there_and_back_again_is_the_same(name):
    conversion, states = read_biggan(name), BIGGAN[name]["states"]
    written = biggan_pytorch.write(conversion)
    for key, state in states.items():
        assert written[key].keys() == state.keys()
        for tensor, value in state.items():
            assert torch.equal(written[key][tensor], value) or tensor.endswith("sv0"), tensor
    settings = BIGGAN[name]["settings"]
    assert {key: value for key, value in written["state_dict"]["config"].items() if key in settings and key != "dim_z"}
    for key in settings.keys() & written["state_dict"]["config"].keys() - {"dim_z"}:
        assert written["state_dict"]["config"][key] == settings[key] or settings[key] is None
    again = biggan_pytorch.read(written)
    assert again.generator.network == conversion.generator.network
    assert all(torch.equal(again.generator.state[key], value) for key, value in conversion.generator.state.items())
    sv = written["G"]["linear.sv0"]
    assert sv == pytest.approx(float(torch.linalg.matrix_norm(written["G"]["linear.weight"], 2)), rel=0.2)


def test_what_that_code_does_not_have_is_not_written():
    added = read_biggan("cross_replica")
    with pytest.raises(ValueError, match="gain_added"):
        biggan_pytorch.write(added)
    with pytest.raises(ValueError, match="biggan-pytorch has no DeepGenerator"):
        biggan_pytorch.write(read_hf("layers"))
    conversion = read_biggan("shared_hier")
    conversion.discriminator.network["init_args"].update(attention_after=[])
    state = {
        key: value for key, value in conversion.discriminator.state.items() if not key.startswith("attention.after")
    }
    conversion.discriminator.state.clear()
    conversion.discriminator.state.update(state)
    with pytest.raises(ValueError, match="attention behind blocks"):
        biggan_pytorch.write(conversion)


@pytest.mark.parametrize("network", ["G_ema", "D"])
@pytest.mark.parametrize("case", ["shared_hier", "deep"])
def test_every_tensor_is_needed_and_known(case, network):
    """Without any one of them, with one more or a larger one, the message names it."""
    content = content_of(BIGGAN[case])
    state = content[network]
    told = (".u1", ".sv0", "accumulation_counter", "num_batches_tracked")
    for name in [name for name in state if not name.endswith(told)][1::29]:
        fewer = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match=network) as raised:
            biggan_pytorch.read({**content, network: fewer})
        assert name in str(raised.value)
    with pytest.raises(ValueError, match=f"{network} has an unknown blocks.0.0.conv9.weight"):
        biggan_pytorch.read({**content, network: {**state, "blocks.0.0.conv9.weight": torch.ones(1)}})
    larger = {**state, "blocks.1.0.conv1.bias": torch.ones(99)}
    with pytest.raises(ValueError, match=rf"{network}: blocks.1.0.conv1.bias is \[99\]"):
        biggan_pytorch.read({**content, network: larger})


def test_every_tensor_of_hugging_faces_is_needed_and_known():
    case = HF["layers"]
    state, config = case["states"]["weights"], case["settings"]
    for name in list(state)[::5]:
        fewer = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ValueError, match="lacks") as raised:
            hf_biggan.read({"config": config, "weights": fewer})
        assert name.removesuffix("_orig").removesuffix("s") in str(raised.value)
    with pytest.raises(ValueError, match=r"has an unknown generator.more"):
        hf_biggan.read({"config": config, "weights": {**state, "generator.more": torch.ones(1)}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "neither G_ema nor G, only nothing"),
        ({"D": {}}, "neither G_ema nor G, only D"),
        ({"G": {"state": {}, "param_groups": []}}, "G is not a state dict: state is no tensor, but a dict"),
        ({"G": [1]}, "not a state dict .* but a list"),
        ({"G": {"weight": torch.ones(1)}}, "G lacks blocks.0.0.conv1.weight"),
        ({"G": BIGGAN["cifar"]["states"]["D"]}, "G is a discriminator"),
    ],
)
def test_what_is_no_biggan_is_said_to_be_none(content, said):
    with pytest.raises(ValueError, match=said):
        biggan_pytorch.read(content)


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ({"layers": [[True, 16, 8], [True, 4, 2]]}, {}, "do not fit together"),
        ({"layers": [1]}, {}, "must be triples"),
        ({"attention_layer_position": 1}, {}, "lacks generator.layers.1.gamma and"),
        ({"attention_layer_position": None}, {}, r"attention_layer_position \(=None\)"),
        ({"eps": None}, {}, r"eps \(=None\)"),
        ({}, {"truncation": 1.5}, r"truncation \(=1.5\)"),
    ],
)
def test_mistakes_of_a_configuration_are_named(config, options, said):
    case = HF["layers"]
    with pytest.raises(ValueError, match=said):
        hf_biggan.read({"config": {**case["settings"], **config}, "weights": case["states"]["weights"]}, **options)


def test_a_thin_discriminator_is_refused():
    content = content_of(BIGGAN["cifar"])
    thin = {**content["D"], "blocks.0.0.conv1.weight": content["D"]["blocks.0.0.conv1.weight"][:3]}
    with pytest.raises(ValueError, match="D is thin"):
        biggan_pytorch.read({**content, "D": thin})


@pytest.mark.parametrize("name", BIGGAN)
def test_what_was_converted_trains(name):
    conversion = read_biggan(name)
    generator = network_of(conversion.generator.network, "cpu").train()
    generator.load_state_dict(conversion.generator.state)
    made = generator(torch.randn(4, generator.latent_dim), torch.arange(4))
    made.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in generator.parameters())


def test_a_card_can_say_it_all():
    """Every network is plain data."""
    for conversion in [*map(read_biggan, BIGGAN), *map(read_hf, HF)]:
        for part in (conversion.generator, conversion.discriminator):
            assert part is None or json.loads(json.dumps(part.network)) == part.network


READ = {
    "G_ema": lambda state: biggan_pytorch.read({**content_of(BIGGAN["cifar"]), "G_ema": state}),
    "D": lambda state: biggan_pytorch.read({**content_of(BIGGAN["cifar"]), "D": state}),
    "weights": lambda state: hf_biggan.read({"config": HF["layers"]["settings"], "weights": state}),
}


@pytest.mark.parametrize("network", READ)
def test_tensors_of_any_other_kind_are_refused_by_name(network):
    state = HF["layers"]["states"]["weights"] if network == "weights" else content_of(BIGGAN["cifar"])[network]
    kinds = ("weight", "weight_orig", "weight_u", "bias", "running_means")
    names = [name for name, value in state.items() if name.endswith(kinds) and value.numel() > 1]
    for name in names[:: max(1, len(names) // 12)] + names[-1:]:
        for value in (torch.tensor(1.0), torch.ones(2, 2, 2, 2, 2)):
            with pytest.raises(ValueError, match=r"weight|bias|running|gamma|truncations|channels"):
                READ[network]({**state, name: value})
        for value, said in (
            (state[name].to_sparse(), "is not a tensor of real numbers"),
            (state[name].to(torch.complex64), "is not a tensor of real numbers"),
            (state[name].to("meta"), "is not a tensor of real numbers"),
            (torch.zeros(1, dtype=torch.half).expand(1 << 20, 1 << 20), "is not a tensor of real numbers"),
            (state[name] / 0, "not finite"),
        ):
            with pytest.raises(ValueError, match=said) as raised:
                READ[network]({**state, name: value})
            assert name in str(raised.value)


def test_a_number_in_a_name_takes_no_memory():
    """Once there was a list of as many blocks."""
    far = {**content_of(BIGGAN["cifar"])["D"], "blocks.999999999.0.conv1.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="D lacks blocks"):
        READ["D"](far)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"itr": "3"}, r"itr \(='3'\) must be a number"),
        ({"config": 3}, "config must hold settings"),
        ({"config": {"BN_eps": None}}, r"BN_eps \(=None\)"),
    ],
)
def test_settings_of_another_kind_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        biggan_pytorch.read({**content_of(BIGGAN["cifar"]), "state_dict": settings})
