"""Shards as others write them: webdataset's own writer, and the layout of img2dataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image
from webdataset import ShardWriter

Member = tuple[str, bytes]


def image(value: int = 0, extension: str = "jpg", size: tuple[int, int] = (24, 16)) -> bytes:
    """A file of one colour."""
    buffer = io.BytesIO()
    formats = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
    Image.new("RGB", size, (value, value, value)).save(buffer, formats[extension])
    return buffer.getvalue()


def make_tar(members: list[Member], tar_format: int = tarfile.USTAR_FORMAT, **fields: Any) -> bytes:
    """A tar of these members; `fields` are attributes of every header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, payload in members:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(payload))
    return buffer.getvalue()


def write_tar(path: Path, members: list[Member], **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_tar(members, **fields))
    return path


def by_webdataset(folder: Path, count: int = 10, per_shard: int = 4, extension: str = "png") -> Path:
    """Images and classes 0 to 2 by webdataset's ShardWriter."""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(str(folder / "train-%04d.tar"), maxcount=per_shard, verbose=0) as writer:
        for number in range(count):
            content = image(number * 20, extension)
            writer.write({"__key__": f"{number:05d}", extension: content, "cls": str(number % 3).encode()})
    return folder


def img2dataset_members(shard: int, count: int = 3) -> list[Member]:
    """KEY.jpg KEY.json KEY.txt, the key of five digits of the shard and four of the sample."""
    found: list[Member] = []
    for number in range(count):
        key = f"{shard:05d}{number:04d}"
        data = {"url": f"https://example.org/{key}.jpg", "caption": "a cat", "key": key, "label": number, "kind": "cat"}
        found += [(f"{key}.jpg", image(number * 20, "jpg")), (f"{key}.json", json.dumps(data).encode())]
        found += [(f"{key}.txt", b"a cat")]
    return found


def by_img2dataset(folder: Path, shards: int = 2, count: int = 3) -> Path:
    for shard in range(shards):
        write_tar(folder / f"{shard:05d}.tar", img2dataset_members(shard, count))
    return folder
