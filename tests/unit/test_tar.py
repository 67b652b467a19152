"""Our tar reader against Python's, against webdataset's conventions, and against every kind of damage."""

from __future__ import annotations

import io
import tarfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from bigtrain.data.manifest import ShardIndex
from bigtrain.data.samples import index_shard
from bigtrain.data.tar import BLOCK, Member, read_members
from tests.unit.made_shards import make_tar

_LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters="/\\.")
NAMES = st.text(_LETTERS, min_size=1, max_size=40)
PATHS = st.builds(
    lambda folders, stem, extension: "/".join([*folders, f"{stem}.{extension}"]),
    st.lists(NAMES, max_size=6),
    NAMES,
    NAMES,
)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def with_checksum(block: bytes) -> bytes:
    """The header with the checksum that it should have."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


SHARD = make_tar([("0.png", b"p" * 700), ("0.cls", b"3"), ("1.png", b"q" * 512), ("1.cls", b"12")])


@settings(deadline=None)
@given(
    members=st.lists(st.tuples(PATHS, st.binary(max_size=1500)), max_size=6),
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_agrees_with_tarfile(members: list[tuple[str, bytes]], tar_format: int) -> None:
    content = make_tar(members, tar_format)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        expected = [Member(info.name, info.offset_data, info.size) for info in archive]
    found = list(read_members("shard", content))
    assert found == expected
    assert [content[offset : offset + size] for _, offset, size in found] == [payload for _, payload in members]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["a.png", "f" * 95 + ".png", "d" * 90 + "/" + "f" * 90 + ".png", "ä/ö.png"])
def test_names_of_every_format(name: str, tar_format: int) -> None:
    assert [member.name for member in read_members("shard", make_tar([(name, b"x")], tar_format))] == [name]


def test_an_archive_without_members_has_none() -> None:
    assert list(read_members("shard", make_tar([]))) == []


def test_a_size_in_base_256() -> None:
    block = with_checksum(SHARD[:124] + b"\x80" + (700).to_bytes(11, "big") + SHARD[136:BLOCK])
    assert list(read_members("shard", block + SHARD[BLOCK:])) == list(read_members("shard", SHARD))


@settings(max_examples=300, deadline=None)
@given(header=st.integers(0, 3), position=st.integers(0, BLOCK - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header_never_changes_the_members_in_silence(header: int, position: int, bit: int) -> None:
    start = [member.offset - BLOCK for member in read_members("shard", SHARD)][header]
    damaged = bytearray(SHARD)
    damaged[start + position] ^= 1 << bit
    try:
        found = list(read_members("r8/shard-000001.tar", damaged))
    except ValueError as error:
        assert str(error).startswith(f"r8/shard-000001.tar: byte {start}: damaged header")  # noqa: PT017
    else:
        assert 148 <= position < 156, "only what surrounds the digits of the checksum may differ"
        assert found == list(read_members("shard", SHARD))


@pytest.mark.parametrize("length", range(0, len(SHARD.rstrip(b"\0")) + BLOCK, 61))
def test_truncation_anywhere_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=r"^shard: byte \d+: truncated"):
        list(read_members("shard", SHARD[:length]))


def test_one_block_of_zeros_is_no_end() -> None:
    last = list(read_members("shard", SHARD))[-1]
    end = last.offset + BLOCK
    assert len(list(read_members("shard", SHARD[: end + 2 * BLOCK]))) == 4
    with pytest.raises(ValueError, match=f"byte {end}: truncated: the archive ends with one block of zeros"):
        list(read_members("shard", SHARD[: end + BLOCK]))


def test_a_second_archive_behind_the_first_is_an_error() -> None:
    with pytest.raises(ValueError, match="content after the end"):
        list(read_members("shard", SHARD + SHARD))


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_regular_files(kind: bytes) -> None:
    content = make_tar([("good.png", b"")])[:BLOCK] + make_tar([("bad.png", b"")], type=kind, linkname="good.png")
    with pytest.raises(ValueError, match=f"shard: byte {BLOCK}: member 'bad.png/?' is no regular file"):
        list(read_members("shard", content))


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../a.png", "a/../../b.png", "a\\b.png"])
def test_paths_that_lead_outside(name: str) -> None:
    with pytest.raises(ValueError, match="leads outside"):
        list(read_members("shard", make_tar([(name, b"x")])))


@pytest.mark.parametrize("payload", [b"9 path", b"x", b"99 path=a\n", b"7 pathX\n", b"0 a=b\n", b"16 size=12 bytes\n"])
def test_damaged_pax_headers(payload: bytes) -> None:
    member = make_tar([("a.png", b"x")])
    header = with_checksum(make_tar([("h.x", payload)])[:156] + b"x" + member[157:BLOCK])
    with pytest.raises(ValueError, match=r"shard: byte \d+: damaged pax header"):
        list(read_members("shard", header + payload.ljust(BLOCK, b"\0") + member))


def test_index_says_where_every_image_lies() -> None:
    index = index_shard("shard", SHARD)
    assert (index.keys, index.extensions) == (["0", "1"], ["png", "png"])
    payloads = [SHARD[offset : offset + size] for offset, size in zip(index.offsets, index.sizes, strict=True)]
    assert payloads == [b"p" * 700, b"q" * 512]
    assert index.crc32.tolist() == [zlib.crc32(payload) for payload in payloads]
    assert index.labels is not None
    assert index.labels.tolist() == [3, 12]


def test_index_survives_json() -> None:
    for content in (SHARD, make_tar([("a.png", b"1"), ("b.jpg", b"2")]), make_tar([])):
        index = index_shard("shard", content)
        again = ShardIndex.from_json(index.to_json())
        assert again.to_json() == index.to_json()
        assert again.extensions == index.extensions
        np.testing.assert_array_equal(again.offsets, index.offsets)


@settings(deadline=None)
@given(PATHS)
def test_keys_are_those_of_webdataset(path: str) -> None:
    path = path.rpartition(".")[0] + ".seg.JPEG"
    content = make_tar([(path, b""), (path.removesuffix("seg.JPEG") + "png", b"")], tarfile.PAX_FORMAT)
    assert index_shard("shard", content).keys == [base_plus_ext(path)[0]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.png", "b.png", "a.cls"], f"byte {BLOCK * 2}: the members of sample 'a' are not adjacent"),
        (["a.png", "b.png", "a.png"], f"byte {BLOCK * 2}: 'png' of sample 'a' occurs twice"),
        (["a.png", "a.PNG"], f"byte {BLOCK}: 'png' of sample 'a' occurs twice"),
        (["a.png", "a.jpg"], "byte 0: sample 'a' must have one image"),
        (["a.png", "b.txt", "c.png"], f"byte {BLOCK}: sample 'b' must have one image"),
        (["a"], "byte 0: member 'a' must be named KEY.EXTENSION"),
        ([".png"], "byte 0: member '.png' must be named KEY.EXTENSION"),
    ],
)
def test_samples_that_webdataset_would_lose_or_mix(members: list[str], message: str) -> None:
    content = make_tar([(name, b"") for name in members])
    with pytest.raises(ValueError, match=f"^r4/s.tar: {message}"):
        index_shard("r4/s.tar", content)


@pytest.mark.parametrize("label", [b"", b"-1", b"cat", b"1.5", b"9" * 30, "²".encode()])
def test_a_label_must_be_a_class_id(label: bytes) -> None:
    with pytest.raises(ValueError, match=f"^s: byte {BLOCK * 2}: label of sample 'a'"):
        index_shard("s", make_tar([("a.png", b""), ("a.cls", label)]))


def test_either_all_samples_have_a_label_or_none() -> None:
    with pytest.raises(ValueError, match="1 of 2 samples have a label"):
        index_shard("s", make_tar([("a.png", b""), ("a.cls", b"1"), ("b.png", b"")]))
