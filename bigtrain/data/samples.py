"""The samples of a shard as WebDataset groups its members: where each image lies, and what label it has.

What WebDataset would lose or mix in silence is a problem here, named with the shard and the byte. Read without torch.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from bigtrain.data.archives import Archive, Content, archive_of
from bigtrain.data.labels import LabelRule
from bigtrain.data.manifest import ShardIndex
from bigtrain.data.tar import BLOCK, Member, fault, read_members

IMAGE_EXTENSIONS = {"png": "png", "jpg": "jpg", "jpeg": "jpg", "webp": "webp"}
#: What WebDataset's own decoders would unpickle or hand to numpy, by the last extension.
PICKLES = frozenset(("pyd", "pkl", "pickle", "pth", "pt", "joblib", "npy", "npz"))
_CHUNK = 2**20
_MOST_PROBLEMS = 100  # of one shard; of the others only their number matters


@dataclass(frozen=True)
class Scan:
    """What a shard has.

    Args:
        index: of its samples; `None` if there are problems.
        problems: a line each, naming the shard and the byte; the first of them.
        count: of all problems.
        ignored: members that are neither images nor labels, counted by extension.
    """

    index: ShardIndex | None
    problems: list[str]
    count: int
    ignored: Counter[str]


def index_shard(name: str, content: Content) -> ShardIndex:
    """Where the image of every sample lies. A sample is the adjacent members whose names are equal up to the first dot.

    Raises:
        ValueError: the first of the problems of `scan_shard`.
    """
    found = scan_shard(name, content)
    if found.index is None:
        raise ValueError(found.problems[0])
    return found.index


def scan_shard(name: str, content: Content, rule: LabelRule | None = None, checksums: bool = True) -> Scan:
    """Reads a shard once, forwards, and tells its samples, or all that is wrong with it.

    Problems are those of `read_members`; samples whose members are not adjacent, that occur twice, that have not
    exactly one image, or whose label is no class id; some samples with a label and others without; and pickles.

    Args:
        name: of the shard, for messages.
        content: all of its bytes, or a way to read them.
        rule: where the labels are; without it in `cls` members, for all samples or none.
        checksums: read the images, for their CRC-32.
    """
    scanner = _Scanner(name, archive_of(content), rule or LabelRule(), checksums)
    try:
        for member in read_members(name, scanner.archive):
            scanner.add(member)
    except ValueError as error:
        scanner.note(error)
    else:
        scanner.end()
    return scanner.result()


@dataclass
class _Sample:
    """The sample whose members are being read."""

    key: str
    start: int  # of its first header
    extensions: set[str] = field(default_factory=set)
    images: list[tuple[str, Member, int]] = field(default_factory=list)  # extension, payload, CRC-32
    label: int | None = None
    labelled: bool = False


class _Scanner:
    """Makes samples of members."""

    def __init__(self, name: str, archive: Archive, rule: LabelRule, checksums: bool) -> None:
        self.name, self.archive, self.rule, self.checksums = name, archive, rule, checksums
        self.problems: list[str] = []
        self.count = 0
        self.ignored: Counter[str] = Counter()
        self._sample: _Sample | None = None
        self._broken: str | None = None  # key of a sample that came up again, until it ends
        self._seen: dict[str, frozenset[str]] = {}
        self._shared: dict[frozenset[str], frozenset[str]] = {}  # most samples have the same extensions
        self._keys: list[str] = []
        self._images: list[tuple[str, Member, int]] = []
        self._labels: list[int | None] = []
        self._first_unlabelled: int | None = None

    def note(self, problem: ValueError) -> None:
        self.count += 1
        if self.count <= _MOST_PROBLEMS:
            self.problems.append(str(problem))

    def add(self, member: Member) -> None:
        folder, slash, base = member.name.rpartition("/")
        stem, _, extension = base.partition(".")
        key, extension = folder + slash + stem, extension.lower()
        if self._sample is None or self._sample.key != key:
            self._close()
            if key in self._seen:
                self._again(key, extension, member)
                return
            self._broken, self._sample = None, _Sample(key, member.offset - BLOCK)
        if extension in self._sample.extensions:
            self._fault(member.offset - BLOCK, f"{extension!r} of sample {key!r} occurs twice")
            return
        self._sample.extensions.add(extension)
        self._read(self._sample, extension, member)

    def _again(self, key: str, extension: str, member: Member) -> None:
        """A member of a sample that had ended; told once for all members that follow it."""
        if self._broken != key:
            twice = extension in self._seen[key]
            what = f"{extension!r} of sample {key!r} occurs twice" if twice else f"the members of sample {key!r}"
            self._fault(member.offset - BLOCK, what if twice else f"{what} are not adjacent")
        self._broken = key

    def _read(self, sample: _Sample, extension: str, member: Member) -> None:
        if (last := extension.rpartition(".")[2]) in PICKLES:
            text = f"member {member.name!r} may be a pickle (.{last}), which is never read; leave it out of the shards"
            self._fault(member.offset - BLOCK, text)
        elif extension in IMAGE_EXTENSIONS:
            crc32 = self._crc32(member) if self.checksums else 0
            sample.images.append((IMAGE_EXTENSIONS[extension], member, crc32))
        elif extension == self.rule.member:
            sample.labelled = True
            try:
                sample.label = self.rule.read(self.archive, member.offset, member.size)
            except ValueError as error:
                self._fault(member.offset, f"label of sample {sample.key!r} {error}")
        elif extension != "cls":
            self.ignored[extension] += 1

    def _crc32(self, member: Member) -> int:
        crc32, end = 0, member.offset + member.size
        for start in range(member.offset, end, _CHUNK):
            crc32 = zlib.crc32(self.archive.read(start, min(_CHUNK, end - start)), crc32)
        return crc32

    def _close(self) -> None:
        """Ends the sample that is being read."""
        sample, self._sample = self._sample, None
        if sample is None:
            return
        extensions = frozenset(sample.extensions)
        self._seen[sample.key] = self._shared.setdefault(extensions, extensions)
        if len(sample.images) != 1:
            names = [extension for extension, *_ in sample.images] or sorted(sample.extensions)
            self._fault(sample.start, f"sample {sample.key!r} must have one image (png, jpg or webp), has {names}")
            return
        if self.rule.needed and not sample.labelled:
            self._fault(sample.start, f"sample {sample.key!r} has no label: {self.rule.missing()}")
        if not sample.labelled and self._first_unlabelled is None:
            self._first_unlabelled = sample.start
        self._keys.append(sample.key)
        self._images += sample.images
        self._labels.append(sample.label)

    def end(self) -> None:
        self._close()
        labelled = len(self._labels) - self._labels.count(None)
        if not self.rule.needed and not self.problems and labelled not in (0, len(self._labels)):
            text = f"{labelled} of {len(self._labels)} samples have a label; all or none must"
            self._fault(self._first_unlabelled or 0, text)

    def _fault(self, offset: int, text: str) -> None:
        self.note(fault(self.name, offset, text))

    def result(self) -> Scan:
        if self.problems:
            return Scan(None, self.problems, self.count, self.ignored)
        labelled = bool(self._labels) and self._labels[0] is not None
        index = ShardIndex(
            keys=self._keys,
            extensions=[extension for extension, *_ in self._images],
            offsets=np.array([member.offset for _, member, _ in self._images], dtype=np.int64),
            sizes=np.array([member.size for _, member, _ in self._images], dtype=np.int64),
            crc32=np.array([crc32 for *_, crc32 in self._images], dtype=np.int64) if self.checksums else None,
            labels=np.array(self._labels, dtype=np.int64) if labelled else None,
        )
        return Scan(index, [], 0, self.ignored)
