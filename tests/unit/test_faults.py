"""Damaged data: replaced (in a reference: left out) within the budget, told and counted; beyond it the end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigtrain.callbacks.scoring import Scorer
from bigtrain.callbacks.scoring_base import Measurement
from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.faults import Faults, TooManyFaultsError
from bigtrain.data.manifest import Manifest, ShardIndex
from bigtrain.evaluation.extractors import Extractor
from bigtrain.evaluation.protocol import Protocol, Provenance
from bigtrain.evaluation.reference import content_key
from bigtrain.schedules import Constant
from bigtrain.storage import Storage
from tests.unit.made_source import Made, build_made

SIZES = [100] * 200


def test_within_the_budget_it_is_set_aside_once(caplog):
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    for _ in range(3):
        faults.add_sample((3, 7), ValueError("sample x at byte 5 is damaged"))
        faults.add_shard(8, ValueError("shard y is cut"))
    assert faults.has((3, 7))
    assert faults.has((8, 99))
    assert not faults.has((3, 8))
    assert [record.message.split(":")[1] for record in caplog.records] == [
        " sample x at byte 5 is damaged",
        " shard y is cut",
    ]


def test_beyond_the_budget_it_stops():
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    faults.add_sample((0, 0), ValueError("x"))
    faults.add_sample((0, 1), ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"3 of 20000 samples are damaged, at most 2 .*\(max_bad_samples"):
        faults.add_sample((0, 2), ValueError("x"))
    assert faults.state()["samples"] == [(0, 0), (0, 1)]  # a checkpoint must not let the third pass
    for again in (faults.is_clean, lambda: faults.has((9, 9)), lambda: faults.add_shard(1, ValueError("y"))):
        with pytest.raises(TooManyFaultsError, match="3 of 20000"):  # in other threads too
            again()
    faults = Faults(SIZES, 0, max_sample_share=1e-4, max_shards=1)
    faults.add_shard(1, ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"2 of 200 shards are damaged.*: max_bad_shards"):
        faults.add_shard(2, ValueError("x"))
    with pytest.raises(TooManyFaultsError, match=r"10.00% of the samples"):
        Faults([10] * 10, 0).add_shard(0, ValueError("x"))


@pytest.mark.parametrize("options", [{"max_sample_share": 2}, {"max_sample_share": -1}, {"max_shards": -1}])
def test_senseless_budgets_are_named(options):
    with pytest.raises(ValueError, match="max_bad"):
        Faults(SIZES, 0, **options)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=20),
    st.integers(0, 2**40),
    st.integers(0, 2**31),
    st.data(),
)
def test_a_substitute_is_sound_and_depends_on_seed_index_and_quarantine_alone(sizes, g, seed, data):
    faults = Faults(sizes, seed)
    faults.load({"shards": [data.draw(st.integers(0, len(sizes) - 1))], "samples": []})
    shard, sample = faults.substitute(g)
    assert not faults.has((shard, sample))
    assert 0 <= sample < sizes[shard]
    again = Faults(sizes, seed)
    again.load(faults.state())
    assert again.substitute(g) == (shard, sample)


def test_substitutes_come_from_everywhere():
    faults = Faults(SIZES, 0)
    assert len({faults.substitute(g)[0] for g in range(2000)}) > 190


def test_nothing_sound_left_is_told():
    faults = Faults([1, 1], 0)
    faults.load({"shards": [0, 1], "samples": []})
    with pytest.raises(TooManyFaultsError, match="nearly all"):
        faults.substitute(0)


@pytest.fixture
def damaged(tmp_path):
    """Shards of 40 images at 8², and the names of a damaged one and of its shard."""
    build_made(Made(40), tmp_path / "shards", samples_per_shard=10)
    storage = Storage(tmp_path / "shards")
    info = Manifest.load(storage).shards[8][1]
    index = ShardIndex.from_json(storage.read(info.index))
    content = bytearray(storage.read(info.key))
    content[int(index.offsets[2]) + 20] ^= 1
    storage.write(info.key, bytes(content))
    return storage.url, info.key, index.keys[2]


def scorer(url, **budget):
    """Of the shards as a training has them."""
    found = Scorer(
        ShardDataModule(url, Constant(8, 8, 1), **budget).shards, 8, Measurement("classifier", batch_size=16)
    )
    found.extractor = Pixels()
    return found


class Pixels(Extractor):
    name, weight_hash, channels, feature_dim, num_classes = "pixels", "0" * 12, 1, 64, 2
    resize, quantisation, recognises_labels, holdout_accuracy = "none", "uint8", False, None

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images.flatten(1).float(), torch.zeros(len(images), 2)


def test_the_reference_is_of_all_images_that_are_not_damaged(damaged, caplog):
    url, shard, key = damaged
    with pytest.raises(TooManyFaultsError, match=f"{shard}: sample '{key}' at byte .*1 of 40 samples are damaged"):
        scorer(url).reference(["fid"])
    training = ShardDataModule(url, Constant(8, 8, 1), max_bad_samples=0.03)
    measuring = scorer(url, max_bad_samples=0.03)
    found = measuring.reference(["fid"])
    assert (found.num_real, found.left_out) == (39, 1)
    assert found.class_counts.tolist() == [19, 20]  # the third image is an even one
    sound = np.concatenate([images for images, _ in training.reader.all(8, 7)]).reshape(39, -1)
    np.testing.assert_allclose(found.features.mean.numpy(), sound.mean(axis=0), atol=1e-3)
    told = [record.message for record in caplog.records]
    assert sum(f"{shard}: sample '{key}'" in line for line in told) == 2  # by the reader above too
    assert "damaged images are left out of the reference: 1 of 40; the protocol of its scores says so" in told
    protocol = Protocol.of(measuring.extractor, found, 100, None, Provenance())
    assert (protocol.num_real, protocol.left_out) == (39, 1)


def test_what_was_measured_without_damaged_images_is_kept_apart_and_within_the_budget(damaged, monkeypatch):
    url, *_ = damaged
    assert scorer(url, max_bad_samples=0.03).reference(["fid"]).left_out == 1
    keys = {content_key(Manifest.load(url).hash, 8, Pixels(), damaged=damaged) for damaged in (False, True)}
    stored = {path.name for path in (Path(url) / "evaluation").iterdir()}
    assert len(keys) == 2
    key = content_key(Manifest.load(url).hash, 8, Pixels(), damaged=True)
    assert stored == {f"{key}.safetensors"}
    with pytest.raises(TooManyFaultsError):  # another budget
        scorer(url).reference(["fid"])
    monkeypatch.setattr("bigtrain.callbacks.scoring.measure_reference", None)
    assert scorer(url, max_bad_samples=0.03).reference(["fid"]).left_out == 1
