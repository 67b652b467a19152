"""Reads tar archives by their headers: ustar, pax and GNU long names. Nothing is skipped in silence.

Python's `tarfile` takes a damaged header for the end of the archive, and it is slower than decoding small images; here
everything that is not a whole archive of regular files is an error that names the shard and the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bigtrain.data.archives import Archive, Content, archive_of

BLOCK = 512
_ZEROS = bytes(BLOCK)
_REGULAR = b"0\0"
_LARGEST_EXTENSION = 2**20  # bytes of a pax or GNU header
_CHUNK = 2**20


class Member(NamedTuple):
    """A regular file in an archive; its payload is the bytes [offset, offset + size)."""

    name: str
    offset: int
    size: int


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def read_members(shard: str, content: Content) -> Iterator[Member]:
    """The members of a whole archive, in its order.

    Args:
        shard: name of the archive, for errors.
        content: all of its bytes, or a way to read them.

    Raises:
        ValueError: naming the shard and the byte, if a header is damaged, the archive is truncated or does not end as
            archives do, a member is no regular file, or its path leads outside.
    """
    archive, start = archive_of(content), 0
    overrides: dict[str, str] = {}  # what pax and GNU headers say about the member that follows them
    while (header := _header(shard, archive, start)) is not None:
        name, size = overrides.get("path", header.name), header.size
        if header.kind in _REGULAR:
            size = _pax_size(shard, start, overrides, size)
        payload = start + BLOCK
        if payload + size > archive.size:
            raise fault(shard, start, f"truncated: member {name!r} ends at byte {payload + size} of {archive.size}")
        if header.kind in _REGULAR:
            _check_path(shard, start, name)
            yield Member(name, payload, size)
            overrides = {}
        else:
            if size > _LARGEST_EXTENSION:
                raise fault(shard, start, f"damaged header: {size} bytes for a long name or for pax records")
            overrides |= _override(shard, start, header, bytes(archive.read(payload, size)))
        start = payload + -(-size // BLOCK) * BLOCK
    if overrides:
        raise fault(shard, start, "the archive ends between a long name's header and its member")


def fault(shard: str, offset: int, text: str) -> ValueError:
    return ValueError(f"{shard}: byte {offset}: {text}")


def _header(shard: str, archive: Archive, start: int) -> _Header | None:
    """The header at that byte; `None` at the end of the archive."""
    block = bytes(archive.read(start, BLOCK))
    if len(block) < BLOCK:
        raise fault(shard, start, "truncated: the archive ends without its two blocks of zeros")
    if block == _ZEROS:
        _check_end(shard, archive, start)
        return None
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != _number(shard, start, block[148:156]):
        raise fault(shard, start, "damaged header: its checksum is wrong")
    name = _text(block[:100])
    if block[257:265] == b"ustar\x0000" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(shard, start, block[124:136]), block[156:157])


def _check_end(shard: str, archive: Archive, start: int) -> None:
    """Two blocks of zeros, and nothing but zeros after them."""
    if archive.size - start < 2 * BLOCK:
        raise fault(shard, start, "truncated: the archive ends with one block of zeros, not two")
    for position in range(start, archive.size, _CHUNK):
        if bytes(archive.read(position, _CHUNK)).strip(b"\0"):
            raise fault(shard, start, "there is content after the end of the archive")


def _number(shard: str, start: int, field: bytes) -> int:
    """An octal number, ended or padded by spaces and NULs; or base 256 if the first bit is set (GNU, above 8 GiB)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise fault(shard, start, f"damaged header: {field!r} is no number")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _override(shard: str, start: int, header: _Header, payload: bytes) -> dict[str, str]:
    """What a header that is no member says about the next member."""
    if header.kind == b"L":
        return {"path": _text(payload)}
    if header.kind not in (b"x", b"g"):
        raise fault(shard, start, f"member {header.name!r} is no regular file (type {header.kind!r})")
    records = _pax_records(shard, start, payload)
    sparse = any(key.startswith("GNU.sparse") for key in records)
    if sparse or (header.kind == b"g" and records.keys() & {"path", "size"}):
        raise fault(shard, start, f"pax header {sorted(records)} is not supported; write plain files")
    return {} if header.kind == b"g" else records


def _pax_records(shard: str, start: int, payload: bytes) -> dict[str, str]:
    """Records of the form `LENGTH KEY=VALUE\\n`, whose length counts all of it."""
    records, position = {}, 0
    while position < len(payload):
        digits = payload[position : position + 20].split(b" ", 1)[0]
        end = position + (int(digits) if digits.isdigit() else 0)
        key, equals, value = payload[position + len(digits) + 1 : max(position, end - 1)].partition(b"=")
        if not equals or payload[end - 1 : end] != b"\n":
            raise fault(shard, start, "damaged pax header")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position = end
    return records


def _pax_size(shard: str, start: int, overrides: dict[str, str], size: int) -> int:
    text = overrides.get("size", str(size))
    if not (text.isascii() and text.isdigit()):
        raise fault(shard, start, f"damaged pax header: size {text!r} is no number")
    return int(text)


def _check_path(shard: str, start: int, name: str) -> None:
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise fault(shard, start, f"member {name!r} has a path that leads outside")
    if "." not in name.rpartition("/")[2][1:]:
        raise fault(shard, start, f"member {name!r} must be named KEY.EXTENSION")
