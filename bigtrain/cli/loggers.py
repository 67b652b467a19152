"""Where a run is shown beside its folder, by its configuration."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from PIL import Image

from bigtrain.callbacks.loggers import RunLogger, numbers_of
from bigtrain.callbacks.tensorboard import TensorBoard
from bigtrain.callbacks.wandb_run import Account, WandbRun
from bigtrain.cli.run_folder import RunFolder
from bigtrain.cli.settings import WandB
from bigtrain.data.shard_set import ShardSet
from bigtrain.runtime.environment import versions

#: Of a run: the curves over the truncation that were shown.
TRUNCATION = "truncation.png"


def recorded(folder: RunFolder) -> list[tuple[int, dict[str, float]]]:
    """The moments of which a run has records, the oldest first, and what each of these shows."""
    files = (folder.metrics, folder.throughput, folder.evaluation, folder.guard)
    records = [record for file in files for record in file.read()]
    found = [(record["images_seen"], numbers_of(record)) for record in records]
    return sorted(((moment, numbers) for moment, numbers in found if numbers), key=lambda row: row[0])


def make_loggers(
    folder: RunFolder, wandb: WandB | None, tensorboard: bool, images_seen: int, data: Mapping[str, Any] | None = None
) -> list[RunLogger]:
    """The loggers that a configuration asks for.

    Args:
        folder: of the run.
        wandb: its account; None for none.
        tensorboard: whether there are event files.
        images_seen: from where the run goes on.
        data: what is told of the training data; None shows no artifacts.
    """
    found: list[RunLogger] = []
    if tensorboard:
        found.append(TensorBoard(folder.path / "tensorboard", images_seen))
    if wandb is not None:
        name = wandb.name or folder.path.resolve().name
        account = Account(wandb.project, name, wandb.entity, wandb.mode == "online", wandb.timeout_seconds)
        most = wandb.snapshots_mib * 2**20 if data else 0
        found.append(WandbRun(folder.path, account, data or {}, recorded(folder), most))
    return found


def facts_of(shards: ShardSet) -> dict[str, Any]:
    """What is told of the training data: it stands for them as an artifact."""
    return {
        "manifest": shards.hash,
        "url": shards.url,
        "classes": shards.num_classes,
        "images": sum(shards.class_counts),
        "channels": shards.channels,
    }


def environment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, and on what and with what it is run."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {**config, "versions": versions(), "device": device}


def show_curves(run: str, curves: bytes) -> None:
    """Shows curves over the truncation where a run is shown, after all that it has shown.

    Args:
        run: its folder, in which nobody trains now.
        curves: a PNG.

    Raises:
        ValueError: if it is no run, is shown nowhere, or is training.
    """
    folder = RunFolder(run)
    config = yaml.safe_load(folder.config_path.read_text("utf-8")) if folder.config_path.exists() else {}
    wandb, tensorboard = config.get("wandb"), config.get("tensorboard", False)
    if not (wandb or tensorboard):
        raise ValueError(f"--show: {run!r} is no run that is shown by `wandb` or `tensorboard` of its configuration")
    with folder:
        rows = recorded(folder)
        last = rows[-1][0] if rows else 0
        loggers = make_loggers(folder, WandB(**wandb) if wandb else None, tensorboard, last)
        (folder.path / TRUNCATION).write_bytes(curves)
        _show(loggers, last, Image.open(io.BytesIO(curves)))


def _show(loggers: Sequence[RunLogger], last: int, picture: Image.Image) -> None:
    for logger in loggers:
        shown = logger.shown if isinstance(logger, WandbRun) else last
        logger.log_image("truncation", [picture], max(shown, last) + 1)
        logger.close()
