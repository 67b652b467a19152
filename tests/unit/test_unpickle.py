"""Files of others are read without executing anything in them."""

import argparse
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from bigtrain.interop.unpickle import KNOWN, load_file

FORMATS = pytest.mark.parametrize("zipped", [True, False])


def saved(content, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@FORMATS
def test_tensors_numbers_and_settings_are_read(zipped):
    settings = argparse.Namespace(width=3, nested={"eps": 1e-4})
    content = {
        "state": nn.Linear(2, 3).state_dict(),
        "parameter": nn.Parameter(torch.arange(3.0)),
        "scores": {"best": np.float64(2.5), "small": np.float32(1.25), "count": np.int64(-7), "good": np.bool_(True)},
        "config": settings,
        "activation": nn.ReLU(inplace=True),
    }
    found = load_file(saved(content, zipped), "a.pth")
    assert torch.equal(found["state"]["weight"], content["state"]["weight"])
    assert torch.equal(found["parameter"], torch.arange(3.0))
    assert found["scores"] == {"best": 2.5, "small": 1.25, "count": -7, "good": True}
    assert {type(value) for value in found["scores"].values()} == {float, int, bool}
    assert vars(found["config"]) == vars(settings)
    assert found["activation"].inplace is True
    for object_ in (found["config"], found["activation"]):
        assert type(object_).__mro__[1].__name__ == "StandIn"
        assert not callable(object_)


@FORMATS
def test_nothing_is_executed_and_its_name_is_told(zipped, tmp_path):
    proof = tmp_path / "executed"
    write = f"open({str(proof)!r}, 'w').close()"
    for evil, named in (
        (Calls(os.system, f"touch {proof}"), f"{os.system.__module__}.system"),
        (Calls(eval, write), "builtins.eval"),
        (Calls(exec, write), "builtins.exec"),
        (Calls(getattr, "a", "upper"), "builtins.getattr"),
        (Calls(torch.load, str(proof)), "torch.serialization.load"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (np.ones(3), "multiarray._reconstruct"),
    ):
        for content in (evil, {"state": {"weight": torch.ones(2), "bias": evil}}, [argparse.Namespace(a=evil)]):
            with pytest.raises(ValueError, match="not imported: nothing in it was executed") as raised:
                load_file(saved(content, zipped), "evil.pth")
            assert named in str(raised.value)
            assert "\n" not in str(raised.value)
    assert not proof.exists()
    torch.load(io.BytesIO(saved(Calls(exec, write))), weights_only=False)
    assert proof.exists()  # so it would have been


def test_names_that_lead_further_are_not_followed(tmp_path):
    """Protocol 4 can ask for an attribute of an attribute, and a number for its type's."""
    for pickled in (
        b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93.",
        b"\x80\x04\x8c\x08argparse\x8c\x12Namespace.__init__\x93.",
        b"\x80\x02c__builtin__\neval\n.",
    ):
        with pytest.raises(ValueError, match=r"os.system|Namespace.__init__|builtins.eval"):
            load_file(pickled, "a.pth")
    scalar = getattr(np, "_core", np).multiarray.scalar
    with pytest.raises(ValueError, match=r"numpy.O"):
        load_file(saved(Calls(scalar, np.dtype("O"), b"cos\nsystem\n.")), "a.pth")


def test_what_is_no_checkpoint_is_said_to_be_none():
    whole = saved({"weight": torch.arange(1000.0)})
    old = saved({"weight": torch.arange(1000.0)}, zipped=False)
    for content in (whole[: len(whole) // 2], whole[:100], b"PK", old[:-2000], old[:30]):
        with pytest.raises(ValueError, match=r"a.pth is damaged, cut off or no checkpoint"):
            load_file(content, "a.pth")
    for content in (b"", b"hello", b"\x89PNG"):
        with pytest.raises(ValueError, match=r"a.pth is not a checkpoint"):
            load_file(content, "a.pth")
    script = io.BytesIO(whole)  # by which torch knows one
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(ValueError, match="a TorchScript program"):
        load_file(script.getvalue(), "a.pth")
    with pytest.raises(ValueError, match=r"a.pth"):
        load_file(pickle.dumps({"weight": 1}), "a.pth")


def test_other_files_by_their_endings():
    assert load_file(b'{"a": 1}', "c.json") == {"a": 1}
    tensors = {"weight": torch.ones(2)}
    assert torch.equal(load_file(safetensors.torch.save(tensors), "w.safetensors")["weight"], tensors["weight"])
    for name in ("c.json", "w.safetensors"):
        with pytest.raises(ValueError, match=name):
            load_file(b"{", name)


def named(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def zipped(pickled):
    """A file of torch.save with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"weight": torch.ones(4)}))) as whole, zipfile.ZipFile(file, "w") as archive:
        for member in whole.namelist():
            archive.writestr(member, pickled if member.endswith("data.pkl") else whole.read(member))
    return file.getvalue()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_file_changes_nothing_that_other_files_are_read_with(name):
    """Its state may be attributes of its own objects only, not such as `_rebuild_tensor_v2.__defaults__`."""
    before = getattr(KNOWN[name], "__dict__", {}).keys() | {getattr(KNOWN[name], "__defaults__", None)}
    for state in (b"}X\x04\x00\x00\x00evilK\x05s", b"N}X\x0c\x00\x00\x00__defaults__K\x05\x85s\x86"):
        with pytest.raises(ValueError, match="it would change a"):
            load_file(zipped(b"\x80\x02" + named(*name) + state + b"b."), "a.pth")
    assert getattr(KNOWN[name], "__dict__", {}).keys() | {getattr(KNOWN[name], "__defaults__", None)} == before


def test_what_a_file_claims_takes_no_memory():
    """A number of a memo that has 16 GB of room before it, and zeros that a kilobyte stands for."""
    pickled = b"\x80\x02" + named("argparse", "Namespace") + b")\x81r\xff\xff\xff\x7f."
    code = (
        "import resource, sys; from bigtrain.interop.unpickle import load_file\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "print(type(load_file(sys.stdin.buffer.read(), 'a.pth')).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=zipped(pickled), capture_output=True, check=True)
    assert done.stdout.split() == [b"Namespace"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(ValueError, match=r"it would unpack to 1048576 bytes, and has \d+\)"):
        load_file(file.getvalue(), "a.pth")
