"""A straggler is named; ranks alike are not."""

import pytest

from bigtrain.callbacks.watching import stragglers


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ([[1.0, 0.5, 0.0]] * 4, []),
        ([[1.0, 0.5, 0.0]] * 3 + [[1.0, 0.9, 0.0]], ["rank 3 works"]),
        ([[1.0, 0.5, 0.6]] + [[1.0, 0.5, 0.01]] * 3, ["rank 0 waits for its data"]),
        ([[1.0, 0.0, 0.02]] + [[1.0, 0.0, 0.01]] * 3, []),  # twice as long, but nothing beside a step
        ([[1.0, 0.5, 0.0], [1.0, 1.8, 0.0]], ["rank 1 works"]),
    ],
)
def test_stragglers_are_named(told, named):
    lines = stragglers(told, 1.5)
    assert len(lines) == len(named)
    assert all(line.startswith(name) for line, name in zip(lines, named, strict=True))
