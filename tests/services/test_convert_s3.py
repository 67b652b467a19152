"""`bigtrain convert` from a bucket to a bucket, and back."""

from __future__ import annotations

import io

import pytest
import torch

from bigtrain.cli.main import main
from bigtrain.snapshots import load_opponent, load_snapshot
from bigtrain.storage import Storage
from tests.services.s3 import S3Server
from tests.unit.foreign import SEEN, recorded

pytestmark = pytest.mark.usefixtures("s3_environment")


def test_weights_go_from_a_bucket_to_a_bucket_and_back(s3: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    case, bucket = recorded("biggan-pytorch")["shared_hier"], f"s3://{s3.bucket()}"
    theirs, ours, back = f"{bucket}/run", f"{bucket}/made/b.safetensors", f"{bucket}/back"
    for name, state in (("G_ema", case["states"]["G"]), ("D", case["states"]["D"])):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        Storage(theirs).write(f"{name}.pth", buffer.getvalue())
    assert main(["convert", theirs, ours, "--from", "biggan-pytorch"]) == 0
    with torch.no_grad():
        torch.testing.assert_close(load_snapshot(ours).generator(case["latent"], case["label"])[SEEN], case["images"])
    assert load_opponent(ours) is not None
    assert main(["convert", ours, f"{bucket}/made/copy.safetensors", "--to", "safetensors"]) == 0
    assert main(["convert", ours, back, "--to", "biggan-pytorch"]) == 0
    assert {name for name, _ in Storage(back).list()} == {"G.pth", "G_ema.pth", "D.pth", "state_dict.pth"}
    written = torch.load(io.BytesIO(Storage(back).read("D.pth")))
    assert all(torch.equal(written[key], value) for key, value in case["states"]["D"].items() if key[-3:] != "sv0")
    capsys.readouterr()
    assert main(["convert", f"{bucket}/nowhere", f"{bucket}/never.safetensors", "--from", "biggan-pytorch"]) == 2
    assert "has none of G_ema.pth" in capsys.readouterr().err
    assert not Storage(bucket).exists("never.safetensors")
