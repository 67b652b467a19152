"""Reads tar archives by their headers: ustar, pax and GNU long names. Nothing is skipped in silence.

Python's `tarfile` takes a damaged header for the end of the archive, and it is slower than decoding small images; here
everything that is not a whole archive of regular files is an error that names the shard and the byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bigtrain.data.manifest import ShardIndex

BLOCK = 512
IMAGE_EXTENSIONS = {"png": "png", "jpg": "jpg", "jpeg": "jpg"}
LABEL_EXTENSION = "cls"
_ZEROS = bytes(BLOCK)
_REGULAR = b"0\0"


class Member(NamedTuple):
    """A regular file in an archive; its payload is the bytes [offset, offset + size)."""

    name: str
    offset: int
    size: int


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def read_members(shard: str, content: bytes | memoryview) -> Iterator[Member]:
    """The members of a whole archive, in its order.

    Args:
        shard: name of the archive, for errors.
        content: all of its bytes.

    Raises:
        ValueError: naming the shard and the byte, if a header is damaged, the archive is truncated or does not end as
            archives do, a member is no regular file, or its path leads outside.
    """
    view, start = memoryview(content), 0
    overrides: dict[str, str] = {}  # what pax and GNU headers say about the member that follows them
    while (header := _header(shard, view, start)) is not None:
        name, size = overrides.get("path", header.name), header.size
        if header.kind in _REGULAR:
            size = _pax_size(shard, start, overrides, size)
        payload = start + BLOCK
        if payload + size > len(view):
            raise _fault(shard, start, f"truncated: member {name!r} ends at byte {payload + size} of {len(view)}")
        if header.kind in _REGULAR:
            _check_path(shard, start, name)
            yield Member(name, payload, size)
            overrides = {}
        else:
            overrides |= _override(shard, start, header, bytes(view[payload : payload + size]))
        start = payload + -(-size // BLOCK) * BLOCK
    if overrides:
        raise _fault(shard, start, "the archive ends between a long name's header and its member")


def index_shard(name: str, content: bytes | memoryview) -> ShardIndex:
    """Where the image of every sample lies. A sample is the adjacent members whose names are equal up to the first dot.

    Raises:
        ValueError: as `read_members`; or if a key occurs twice, a sample's members are not adjacent, it has not exactly
            one image, its label is no class id, or some samples have a label and others have none.
    """
    view = memoryview(content)
    samples = _group(name, view)
    images = [_image(name, key, fields) for key, fields in samples.items()]
    payloads = [view[member.offset : member.offset + member.size] for _, member in images]
    return ShardIndex(
        keys=list(samples),
        extensions=[extension for extension, _ in images],
        offsets=np.array([member.offset for _, member in images], dtype=np.int64),
        sizes=np.array([member.size for _, member in images], dtype=np.int64),
        crc32=np.array([zlib.crc32(payload) for payload in payloads], dtype=np.int64),
        labels=_labels(name, view, samples),
    )


def _fault(shard: str, offset: int, text: str) -> ValueError:
    return ValueError(f"{shard}: byte {offset}: {text}")


def _header(shard: str, view: memoryview, start: int) -> _Header | None:
    """The header at that byte; `None` at the end of the archive."""
    block = bytes(view[start : start + BLOCK])
    if len(block) < BLOCK:
        raise _fault(shard, start, "truncated: the archive ends without its two blocks of zeros")
    if block == _ZEROS:
        _check_end(shard, view, start)
        return None
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != _number(shard, start, block[148:156]):
        raise _fault(shard, start, "damaged header: its checksum is wrong")
    name = _text(block[:100])
    if block[257:265] == b"ustar\x0000" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(shard, start, block[124:136]), block[156:157])


def _check_end(shard: str, view: memoryview, start: int) -> None:
    """Two blocks of zeros, and nothing but zeros after them."""
    rest = bytes(view[start:])
    if len(rest) < 2 * BLOCK:
        raise _fault(shard, start, "truncated: the archive ends with one block of zeros, not two")
    if rest.strip(b"\0"):
        raise _fault(shard, start, "there is content after the end of the archive")


def _number(shard: str, start: int, field: bytes) -> int:
    """An octal number, ended or padded by spaces and NULs; or base 256 if the first bit is set (GNU, above 8 GiB)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise _fault(shard, start, f"damaged header: {field!r} is no number")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _override(shard: str, start: int, header: _Header, payload: bytes) -> dict[str, str]:
    """What a header that is no member says about the next member."""
    if header.kind == b"L":
        return {"path": _text(payload)}
    if header.kind not in (b"x", b"g"):
        raise _fault(shard, start, f"member {header.name!r} is no regular file (type {header.kind!r})")
    records = _pax_records(shard, start, payload)
    sparse = any(key.startswith("GNU.sparse") for key in records)
    if sparse or (header.kind == b"g" and records.keys() & {"path", "size"}):
        raise _fault(shard, start, f"pax header {sorted(records)} is not supported; write plain files")
    return {} if header.kind == b"g" else records


def _pax_records(shard: str, start: int, payload: bytes) -> dict[str, str]:
    """Records of the form `LENGTH KEY=VALUE\\n`, whose length counts all of it."""
    records, position = {}, 0
    while position < len(payload):
        digits = payload[position : position + 20].split(b" ", 1)[0]
        end = position + (int(digits) if digits.isdigit() else 0)
        key, equals, value = payload[position + len(digits) + 1 : max(position, end - 1)].partition(b"=")
        if not equals or payload[end - 1 : end] != b"\n":
            raise _fault(shard, start, "damaged pax header")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    return records


def _pax_size(shard: str, start: int, overrides: dict[str, str], size: int) -> int:
    text = overrides.get("size", str(size))
    if not (text.isascii() and text.isdigit()):
        raise _fault(shard, start, f"damaged pax header: size {text!r} is no number")
    return int(text)


def _check_path(shard: str, start: int, name: str) -> None:
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise _fault(shard, start, f"member {name!r} has a path that leads outside")
    if "." not in name.rpartition("/")[2][1:]:
        raise _fault(shard, start, f"member {name!r} must be named KEY.EXTENSION")


def _group(shard: str, view: memoryview) -> dict[str, dict[str, Member]]:
    """The members of every sample by extension, in the archive's order."""
    samples: dict[str, dict[str, Member]] = {}
    last = None
    for member in read_members(shard, view):
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        key, extension = folder + slash + stem, extension.lower()
        fields = samples.setdefault(key, {})
        if extension in fields:
            raise _fault(shard, member.offset - BLOCK, f"{extension!r} of sample {key!r} occurs twice")
        if fields and key != last:
            raise _fault(shard, member.offset - BLOCK, f"the members of sample {key!r} are not adjacent")
        fields[extension], last = member, key
    return samples


def _image(shard: str, key: str, fields: dict[str, Member]) -> tuple[str, Member]:
    found = [extension for extension in fields if extension in IMAGE_EXTENSIONS]
    if len(found) != 1:
        first = min(member.offset for member in fields.values()) - BLOCK
        raise _fault(shard, first, f"sample {key!r} must have one image (png or jpg), has {found or sorted(fields)}")
    return IMAGE_EXTENSIONS[found[0]], fields[found[0]]


def _labels(shard: str, view: memoryview, samples: dict[str, dict[str, Member]]) -> np.ndarray | None:
    labels = np.zeros(len(samples), dtype=np.int64)
    labelled = 0
    for position, (key, fields) in enumerate(samples.items()):
        if member := fields.get(LABEL_EXTENSION):
            text = bytes(view[member.offset : member.offset + min(member.size, 20)])
            if not text.strip().isdigit() or member.size > 18:
                raise _fault(shard, member.offset, f"label of sample {key!r} ({text!r}) must be a class id")
            labels[position] = int(text)
            labelled += 1
    if labelled not in (0, len(samples)):
        raise ValueError(f"{shard}: byte 0: {labelled} of {len(samples)} samples have a label; all or none must")
    return labels if labelled else None
