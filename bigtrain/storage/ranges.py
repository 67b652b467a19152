"""Which ranges of an object are fetched together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

#: Ranges that are farther from each other than this are never one request, however large they are.
NEAR = 1 << 20
#: Bytes that are read for one that is needed, at most; but so many are always worth a request that they save.
MOST_PER_BYTE, FEW = 4, 64 << 10


class Span(NamedTuple):
    """The bytes [start, stop) of an object."""

    start: int
    stop: int


def near_enough(ranges: Sequence[Span]) -> int:
    """The widest gap to read over, as `merged` takes it: an answer costs more than a few bytes too many.

    The smallest gaps are read, as many as leave the bytes below 4 times those that are needed, or 64 KiB in all.
    """
    spans, _ = merged(ranges, 0)
    needed = sum(stop - start for start, stop in spans)
    left = max(MOST_PER_BYTE * needed, FEW) - needed
    gaps = sorted(after.start - before.stop for before, after in pairwise(spans))
    near = 0
    for number, gap in enumerate(gaps):
        left -= gap
        if left < 0 or gap > NEAR:
            break
        if number + 1 == len(gaps) or gaps[number + 1] > gap:  # of equal gaps all are read, or none
            near = gap
    return near


def merged(ranges: Sequence[Span], near: int = NEAR) -> tuple[list[Span], list[int]]:
    """The spans to fetch, in order and more than `near` apart, and the number of the span that each range is in.

    obstore would merge them too, but aborts with a dump where an answer is shorter than it should be. Empty ranges
    are in no span: their number is 0 and means nothing.
    """
    spans: list[Span] = []
    span_of = [0] * len(ranges)
    for number in sorted((i for i, one in enumerate(ranges) if one.start < one.stop), key=ranges.__getitem__):
        start, stop = ranges[number]
        if spans and start - spans[-1].stop <= near:
            spans[-1] = Span(spans[-1].start, max(stop, spans[-1].stop))
        else:
            spans.append(Span(start, stop))
        span_of[number] = len(spans) - 1
    return spans, span_of
