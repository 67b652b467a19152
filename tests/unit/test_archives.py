"""Archives that are read through a window are what they are in memory, and cost no more than they must."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.data.archives import Windowed
from bigtrain.data.samples import Scan, scan_shard
from bigtrain.data.tar import BLOCK, read_members
from tests.unit.test_tar import SHARD, make_tar


class Fetches:
    """Content that counts what is fetched of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        assert 0 <= start < start + length <= len(self.content), "outside"
        self.ranges.append((start, length))
        return self.content[start : start + length]

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.ranges)


def told(scan: Scan) -> object:
    return scan.problems if scan.index is None else scan.index.to_json()


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=8),
    window=st.integers(BLOCK, 4096),
    whole=st.booleans(),
    cut=st.integers(0, 6000),
    flip=st.none() | st.integers(0, 10**6),
)
def test_any_window_tells_what_memory_tells(
    sizes: list[int], window: int, whole: bool, cut: int, flip: int | None
) -> None:
    members = [(name, bytes([i]) * size) for i, size in enumerate(sizes) for name in (f"{i}.png", f"{i}.json")]
    content = bytearray(make_tar(members))
    content = content[: max(0, len(content) - cut)]
    if flip is not None and content:
        content[flip % len(content)] ^= 4
    fetches = Fetches(bytes(content))
    archive = Windowed(fetches, len(content), window, whole)
    found = told(scan_shard("s", archive, checksums=whole))
    assert found == told(scan_shard("s", bytes(content), checksums=whole))
    if whole:
        assert archive.sha256() == hashlib.sha256(content).hexdigest()
        assert fetches.bytes == len(content), "everything once"


def test_large_payloads_are_jumped_over() -> None:
    content = make_tar([(f"{i}.png", bytes(100_000)) for i in range(10)])
    fetches = Fetches(content)
    members = list(read_members("s", Windowed(fetches, len(content), 4096)))
    assert members == list(read_members("s", content))
    assert len(fetches.ranges) <= 13
    assert fetches.bytes < len(content) / 10


def test_small_payloads_are_fetched_many_at_a_time() -> None:
    content = make_tar([(f"{i}.png", bytes(600)) for i in range(100)])
    fetches = Fetches(content)
    list(read_members("s", Windowed(fetches, len(content), 16 * 2**10)))
    assert len(fetches.ranges) <= len(content) // (16 * 2**10) + 1
    assert len(content) * 0.9 < fetches.bytes <= len(content)


def test_a_header_that_claims_a_huge_name_is_damaged() -> None:
    header = bytearray(make_tar([("a.x", b"")])[:BLOCK])
    header[124:136], header[156:157] = b"%011o\0" % 2**24, b"L"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(ValueError, match="byte 0: damaged header: 16777216 bytes for a long name"):
        list(read_members("s", bytes(header) + bytes(2**24) + SHARD))
