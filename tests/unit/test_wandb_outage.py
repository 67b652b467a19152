"""Whatever Weights & Biases does, the training neither waits nor stops, and its numbers are kept."""

from __future__ import annotations

import logging
import threading
import time

import pytest
import wandb
from PIL import Image

from bigtrain.callbacks import wandb_run
from bigtrain.callbacks.wandb_run import Account, WandbRun
from tests.unit.wandb_file import records, rows

CALLS = 200
KEY = "0123456789" * 4


def show(logger: WandbRun) -> float:
    """Shows numbers, a picture and an alert; the seconds that it took."""
    begun = time.perf_counter()
    for moment in range(1, CALLS + 1):
        logger.log_metrics({"kimg": moment / 1000, "loss": float(moment)}, moment)
    logger.log_image("samples", [Image.new("RGB", (4, 4))], CALLS)
    logger.tell({"seed": 3})
    logger.alert("title", f"text {KEY}")
    return time.perf_counter() - begun


def make(folder, **options) -> WandbRun:
    return WandbRun(folder, Account("tests", "name", **{"online": True, "timeout_seconds": 20, **options}), {})


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("bigtrain") and r.levelno >= logging.WARNING]


@pytest.mark.parametrize("key", [KEY, None])
def test_where_nobody_answers_the_run_is_kept_offline(tmp_path, monkeypatch, caplog, key):
    """By a server that is not there, or with no login."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB__GRAPHQL_RETRY_MAX", "1")  # so that it gives up at once
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    logger = make(tmp_path, timeout_seconds=120)  # of a machine that has much else to do
    assert show(logger) < 5
    logger.close()
    said, *more = warnings(caplog)
    assert more == []
    assert "cannot be reached" in said
    assert f"wandb sync {tmp_path}/wandb/*run-*{logger.id}" in said
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    kept = records(file)
    assert [row["loss"] for row in rows(kept)] == [float(moment) for moment in range(1, CALLS + 1)]
    assert (KEY.encode() in file.read_bytes()) == (key is None)  # where it is no secret, it is only text
    assert [r.alert.title for r in kept if r.WhichOneof("record_type") == "alert"] == ["title"]


def test_what_hangs_is_not_waited_for(tmp_path, monkeypatch, caplog):
    never = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **_: never.wait())
    logger = make(tmp_path, timeout_seconds=0.2)
    assert show(logger) < 5
    begun = time.perf_counter()
    logger.close()
    assert time.perf_counter() - begun < 5
    assert "was not waited for" in warnings(caplog)[-1]
    assert logger._mark.read_text() == "-1"  # so that it is shown when the run is resumed
    never.set()
    logger._thread.join()


class Broken:
    """A run that takes some things, and says what is true of the others."""

    def __init__(self):
        self.shown, self.ended = [], None

    def log(self, row, step):
        if step % 2:
            raise OSError("disk full")
        self.shown.append(step)

    def define_metric(self, *_, **__):
        pass

    def alert(self, **_):
        raise wandb.errors.CommError("no service")

    config = property(lambda self: self)

    def update(self, *_, **__):
        raise TypeError

    def mark_preempting(self):
        raise OSError("gone")

    def finish(self, exit_code):
        self.ended = exit_code


def test_no_error_reaches_the_training(tmp_path, monkeypatch, caplog):
    broken = Broken()
    monkeypatch.setattr(wandb, "init", lambda **_: broken)
    monkeypatch.setattr(wandb, "Image", lambda picture, caption: caption)
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    logger = make(tmp_path)
    show(logger)
    logger.close(143, preempted=True)
    assert broken.shown == list(range(2, CALLS + 1, 2))
    assert any("disk full" in said for said in warnings(caplog))
    monkeypatch.setattr(wandb, "init", lambda **_: 1 / 0)
    logger = make(tmp_path)
    show(logger)
    logger.close()
    assert "is not available (ZeroDivisionError" in warnings(caplog)[-1]


def test_what_was_recorded_and_not_shown_is_shown_first(tmp_path, monkeypatch):
    broken = Broken()
    monkeypatch.setattr(wandb, "init", lambda **_: broken)
    (tmp_path / "wandb-logged").write_text("4")
    recorded = [(moment, {"kimg": moment / 1000}) for moment in (2, 4, 6, 6, 8)]
    logger = WandbRun(tmp_path, Account("tests", "name"), {}, recorded)
    logger.log_metrics({"kimg": 0.006}, 6)  # played again
    logger.log_metrics({"kimg": 0.01}, 10)
    logger.close()
    assert broken.shown == [6, 8, 10]
    assert (tmp_path / "wandb-logged").read_text() == "10"


@pytest.mark.parametrize("left", ["", "12 \0\0", "x"])
def test_marks_that_were_cut_short_do_not_end_a_run(left, tmp_path, monkeypatch):
    broken = Broken()
    monkeypatch.setattr(wandb, "init", lambda **_: broken)
    for name in ("wandb-id", "wandb-logged"):
        (tmp_path / name).write_text("" if name == "wandb-id" else left)
    logger = WandbRun(tmp_path, Account("tests", "name"), {}, [(2, {"kimg": 0.002})])
    logger.close()
    assert len(logger.id) == 8
    assert broken.shown == [2]


def test_a_training_that_goes_on_later_waits_only_shortly(tmp_path, monkeypatch, caplog):
    """More important things are to be done before a scheduler ends it."""
    answer = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **_: answer.wait(600))
    monkeypatch.setattr(wandb_run, "MOST_SECONDS", 0.1)
    logger = make(tmp_path, timeout_seconds=600)
    logger.close(138, preempted=True)
    assert not answer.is_set()
    assert "does not answer" in warnings(caplog)[-1]
    answer.set()
