"""Which ranges of an object are fetched together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Ranges that are nearer to each other than this are one request: bytes come faster than answers.
NEAR = 1 << 20


class Span(NamedTuple):
    """The bytes [start, stop) of an object."""

    start: int
    stop: int


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
