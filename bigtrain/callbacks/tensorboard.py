"""TensorBoard: a run's numbers and pictures in its folder, by images seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Image

from bigtrain.callbacks.loggers import RunLogger
from bigtrain.storage.secrets import redacted

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(RunLogger):
    """Writes event files; those of moments after the one from which the run goes on are hidden from then on.

    Args:
        folder: of the event files.
        images_seen: from where the run goes on.

    Raises:
        ValueError: if tensorboard is not installed.
    """

    def __init__(self, folder: Path, images_seen: int) -> None:
        super().__init__()
        self.folder, self._writer = folder, _open(folder, images_seen)

    @property
    def name(self) -> str:
        return "tensorboard"

    def go_back(self, images_seen: int) -> None:
        self._writer.close()
        self._writer = _open(self.folder, images_seen)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def log_image(self, key: str, images: Sequence[Image], step: int) -> None:
        for picture in images:
            self._writer.add_image(key, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def tell(self, facts: Mapping[str, Any]) -> None:
        for name, value in redacted(dict(facts)).items():
            self._writer.add_text(name, f"```\n{json.dumps(value, indent=1)}\n```", 0)

    def alert(self, title: str, text: str) -> None:
        self._writer.add_text("alerts", f"{title}: {redacted(text)}")

    def close(self, code: int = 0, preempted: bool = False) -> None:
        self._writer.close()


def _open(folder: Path, images_seen: int) -> SummaryWriter:
    """Event files of which those after that moment are hidden."""
    try:
        import tensorboard  # noqa: F401, PLC0415 (an extra)
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError:
        raise ValueError("tensorboard (=true) needs `pip install 'bigtrain[tensorboard]'`") from None
    return SummaryWriter(folder, purge_step=images_seen + 1)
