"""What can go wrong with shards in an object store, done to a real server; every image of an epoch is accounted for."""

from __future__ import annotations

import io
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from bigtrain.data.datamodule import ShardDataModule
from bigtrain.data.sources import open_source
from bigtrain.data.writer import build as write_shards
from bigtrain.schedules import Constant
from bigtrain.storage import Storage, StorageOptions
from tests.services import proxy as faults
from tests.services.proxy import ALWAYS, FaultProxy
from tests.services.s3 import S3Server

IMAGES, SHARDS, SIZE = 96, 3, 16
PATIENT = StorageOptions(timeout_seconds=1.5, connect_seconds=1.0, retries=5, retry_seconds=60.0)
TAR = r"\.tar"


def identity(image: np.ndarray) -> int:
    """The number that was written into an image's first pixels; -1 if it is none of ours, whole and unchanged."""
    number = int(image[0, 0, 0]) * 16 + int(image[0, 1, 0]) // 16
    return number if number < IMAGES and np.array_equal(image, picture(number)) else -1


def picture(number: int) -> np.ndarray:
    """An image that tells its number."""
    image = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = number // 16, number % 16 * 16
    return image


def build(folder: Path, url: str) -> None:
    """Shards of all pictures at a URL."""
    folder.mkdir()
    for number in range(IMAGES):
        Image.fromarray(picture(number)).save(folder / f"{number:04d}.png")
    per_shard = IMAGES // SHARDS
    write_shards(
        open_source(str(folder), 3, unlabelled=True),
        Storage(url),
        resolutions=[SIZE],
        samples_per_shard=per_shard,
        workers=1,
    )


@dataclass
class World:
    """A server, the proxy before it, and the shards of one scenario."""

    server: S3Server
    proxy: FaultProxy
    url: str
    storage: Storage  # past the proxy
    key: str  # of the shard to which things are done
    restarting: threading.Thread | None = None

    def restart(self) -> None:
        """Kills the server, and starts it again while the reading goes on."""
        self.server.kill()
        self.restarting = threading.Thread(target=self.server.start)
        self.restarting.start()

    def wait(self) -> None:
        """Until the server is there."""
        if self.restarting is not None:
            self.restarting.join()

    def rewrite(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces the shard."""
        self.storage.write(self.key, change(self.storage.read(self.key)))


@dataclass
class Scenario:
    """A fault: what is done, what may come of it, and what is done after so many images."""

    name: str
    do: Callable[[World], None]
    outcomes: tuple[str, ...] = ("healed",)
    later: Callable[[World], None] | None = None


def payload(content: bytes) -> int:
    """Where a pixel of the shard's second image lies."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.getmembers()[1]
        return member.offset_data + member.size // 2


def header(content: bytes) -> int:
    """A byte of the header in the middle of the shard."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        return members[len(members) // 2].offset + 20


def flipped(at: Callable[[bytes], int]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        where = at(content)
        return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]

    return change


def cut(extra: int) -> Callable[[bytes], bytes]:
    """Up to some bytes after the beginning of a member."""
    return lambda content: content[: header(content) - 20 + extra]


def another(content: bytes) -> bytes:
    """A shard of the same length with other images."""
    changed = bytearray(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
    for member in members:
        rest = member.offset_data
        changed[rest : rest + member.size] = bytes(reversed(content[rest : rest + member.size]))
    return bytes(changed)


def inject(fault: faults.Fault, nth: object = (0, 1)) -> Callable[[World], None]:
    return lambda world: world.proxy.inject(fault, TAR, nth=nth)  # type: ignore[arg-type]


NAMED = ("named",)
SCENARIOS = [
    Scenario("nothing", lambda world: None),
    Scenario("connection cut mid-body", inject(faults.cut(500))),
    Scenario("connection reset", inject(faults.reset())),
    Scenario("stall mid-body", inject(faults.stall(500))),
    Scenario("503 three times", inject(faults.status(503), range(3))),
    Scenario("slow start", inject(faults.slow(0.8))),
    Scenario("another ETag midway", inject(faults.etag('"another"'), range(2, 10**6))),
    Scenario("truncated on the way", inject(faults.truncate(20_000))),
    Scenario("empty answer", inject(faults.empty())),
    Scenario("byte flipped on the way", inject(faults.flip())),
    Scenario("byte flipped in a header", lambda world: world.rewrite(flipped(header))),
    Scenario("byte flipped in a payload", lambda world: world.rewrite(flipped(payload)), NAMED),
    Scenario("shard truncated at a boundary", lambda world: world.rewrite(cut(0)), NAMED),
    Scenario("shard truncated in a header", lambda world: world.rewrite(cut(100)), NAMED),
    Scenario("shard truncated anywhere", lambda world: world.rewrite(cut(700)), NAMED),
    Scenario("shard empty", lambda world: world.rewrite(lambda content: bytes(10240)), NAMED),
    Scenario("shard replaced", lambda world: world.rewrite(another), NAMED),
    Scenario("shard removed", lambda world: world.storage.delete([world.key]), NAMED),
    Scenario("wrong credentials", inject(faults.status(403), ALWAYS), NAMED),
    Scenario("server killed and restarted", lambda world: None, later=World.restart),
]


def outcome(images: Callable[[], Iterator[np.ndarray]], seconds: float = 60.0) -> str:
    """What comes of one epoch: `healed`, `named: …` (an error), `SILENT …` (lost, doubled, wrong images), `HANGS`."""
    found: list[str] = []

    def consume() -> None:
        seen: Counter[int] = Counter()
        try:
            for image in images():
                seen[identity(image)] += 1
        except Exception as error:
            found.append(f"named: {type(error).__name__}: {error}")
            return
        wrong, missing = seen.pop(-1, 0), IMAGES - len(seen)
        doubled = sum(seen.values()) - len(seen)
        bad = f"SILENT: {missing} lost, {doubled} doubled, {wrong} wrong"
        found.append(bad if missing or doubled or wrong else "healed")

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else "HANGS"


def by_bigtrain(world: World, scenario: Scenario, cache: Path | None) -> Callable[[], Iterator[np.ndarray]]:
    """One epoch by bigtrain, with a cache or by ranges."""

    def images() -> Iterator[np.ndarray]:
        data = ShardDataModule(
            world.url,
            Constant(SIZE, 8, IMAGES / 1000),
            storage=StorageOptions(**{**vars(PATIENT), "endpoint": world.proxy.endpoint}),
            cache_gib=0.01 if cache else 0,
            cache_folder=str(cache),
            decoded_mib=0,
        )
        for step, batch in enumerate(data.batches(0)):
            if step == 2 and scenario.later is not None:
                scenario.later(world)
            yield from batch["images"].permute(0, 2, 3, 1).numpy()

    return images


def by_webdataset(urls: list[str], world: World, scenario: Scenario) -> Callable[[], Iterator[np.ndarray]]:
    """One epoch by webdataset with its defaults, from signed URLs."""

    def images() -> Iterator[np.ndarray]:
        data = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        for number, sample in enumerate(data):
            if number == 16 and scenario.later is not None:
                scenario.later(world)
            yield sample["png"]

    return images
