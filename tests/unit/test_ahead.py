"""What is made ahead: in order, while what was made before is used, and never more of it than said."""

from __future__ import annotations

import threading

import pytest
import torch

from bigtrain.evaluation.ahead import made_ahead

CPU = torch.device("cpu")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("samples")]


def test_batches_come_in_order_and_the_next_one_is_made_meanwhile() -> None:
    begun = [threading.Event() for _ in range(6)]

    def make(number: int) -> int:
        begun[number].set()
        return number**2

    for number, squared in made_ahead(make, range(6), CPU):
        assert squared == number**2
        if number < 5:
            assert begun[number + 1].wait(30)  # while this one is used
        assert not any(event.is_set() for event in begun[number + 2 :])
    assert not threads()


def test_it_is_made_exactly_whatever_the_caller_does() -> None:
    def make(_: int) -> tuple[bool, bool, str]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision()

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu"):
            assert [made for _, made in made_ahead(make, range(1), CPU)] == [(False, False, "highest")]
    finally:
        torch.set_float32_matmul_precision(before)


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("there is no sample 2")
        return number

    found = []
    with pytest.raises(ValueError, match="no sample 2"):  # noqa: PT012 (what came before it counts)
        for number, _ in made_ahead(make, range(9), CPU):
            found.append(number)
    assert found == [0, 1]
    assert not threads()


def test_who_stops_early_leaves_no_thread() -> None:
    ahead = made_ahead(lambda number: number, range(9), CPU)
    next(ahead)
    ahead.close()
    assert not threads()
    assert list(made_ahead(lambda number: number, range(0), CPU)) == []
