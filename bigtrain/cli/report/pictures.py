"""The report's pictures: from the grids that the training has drawn, or made with its snapshots."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from bigtrain.cli.report.run_records import Record, RunRecords
from bigtrain.sampling.generate import Sampler, cycled
from bigtrain.sampling.outputs import enlarged, grid_columns, picture
from bigtrain.sampling.sheets import class_sheet, truncation_sheet
from bigtrain.snapshots import load_snapshot

_log = logging.getLogger(__name__)
FRAMES: Final = 12  # moments of the film strip
TALL: Final = 6  # samples in each
CLASSES: Final = 20  # rows of the class sheet
ACROSS: Final = 10
LARGEST: Final = 128  # pixels of a sample; larger ones are reduced
EXACT: Final = 64  # pixels, up to which a sample is shown pixel by pixel
BATCH: Final = 20  # samples made at a time


@dataclass(frozen=True)
class Shown:
    """A picture in the page.

    Args:
        uri: its content.
        width, height: in pixels.
        said: what is on it.
        exact: whether its pixels are shown as squares.
    """

    uri: str
    width: int
    height: int
    said: str
    exact: bool


class Frame(NamedTuple):
    """The same samples at one moment."""

    kimg: float
    shown: Shown


class Row(NamedTuple):
    """Samples that belong together."""

    name: str
    shown: Shown


def shown(tiles: Sequence[Image.Image], columns: int, said: str) -> Shown:
    """One picture of tiles of one size, row by row, with gaps that show what is behind the page's picture."""
    side = tiles[0].width
    gap = max(1, side // 32)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGBA", (columns * (side + gap) - gap, rows * (side + gap) - gap))
    for i, tile in enumerate(tiles):
        sheet.paste(tile.convert("RGBA"), ((i % columns) * (side + gap), (i // columns) * (side + gap)))
    buffer = io.BytesIO()
    exact = side <= EXACT
    sheet.save(buffer, format="webp", method=4, quality=82, lossless=exact)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Shown(uri, *sheet.size, said, exact)


def _tiles(images: Tensor) -> list[Image.Image]:
    """Of images uint8 [n, c, h, w]."""
    return [_reduced(picture(image)) for image in enlarged(images)]


def _reduced(tile: Image.Image) -> Image.Image:
    return tile if tile.width <= LARGEST else tile.resize((LARGEST, LARGEST), Image.Resampling.BOX)


def spread(count: int, most: int) -> list[int]:
    """Indices of at most so many of `count` things, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def drawn(run: RunRecords, index: int = -1) -> list[Image.Image]:
    """The samples of one of the grids in samples/; none if it is not such a grid, or of another layout.

    The grid was laid out by the callback `Samples`: as many columns as classes, two pixels between.
    """
    keys = grids(run)
    num, classes = run.setting("cadences", "num_samples"), _num_classes(run)
    if not keys or not num:
        return []
    columns = min(num, grid_columns(num, classes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own large picture
            sheet = Image.open(io.BytesIO(run.samples.read(keys[index])))
        sheet.load()
    except (OSError, Image.DecompressionBombError):
        return []
    side, rest = divmod(sheet.width - 2, columns)
    if rest or side < 4 or sheet.height < side:
        return []
    corners = [(2 + (i % columns) * side, 2 + (i // columns) * side) for i in range(num)]
    return [_reduced(sheet.crop((x, y, x + side - 2, y + side - 2))) for x, y in corners]


def grids(run: RunRecords) -> list[str]:
    """The grids in samples/, the oldest first."""
    return [key for key, _ in run.samples.list() if key.endswith(".png") and key[:6].isdigit()]


def _num_classes(run: RunRecords) -> int:
    return run.setting("game", "init_args", "generator", "init_args", "network", "init_args", "num_classes") or 0


def film(run: RunRecords, sample: bool) -> list[Frame]:
    """The first few samples in the course of training: from the grids, if there are two; else from the snapshots."""
    keys = grids(run)
    frames = []
    if len(keys) > 1 or not sample:
        for i in spread(len(keys), FRAMES):
            tiles = drawn(run, i)[:TALL]
            frames += [_frame(float(keys[i].removesuffix(".png")), tiles)] if tiles else []
        return frames
    for i in spread(len(run.cards), FRAMES):
        try:
            images, _ = _sampler(run, run.cards[i])(range(TALL))
        except (ValueError, OSError) as error:
            _log.warning("a moment is left out of the report: %s", error)
            continue
        frames.append(_frame(run.cards[i]["images_seen"] / 1000, _tiles(images)))
    return frames


def _frame(kimg: float, tiles: Sequence[Image.Image]) -> Frame:
    return Frame(kimg, shown(tiles, 1, f"Samples 0 to {len(tiles) - 1} at {kimg:g} kimg"))


def newest(run: RunRecords) -> Shown | None:
    """The newest of the grids, or what of it has room."""
    tiles = drawn(run)
    if not tiles:
        return None
    columns = min(ACROSS, grid_columns(len(tiles), _num_classes(run)))
    return shown(tiles[: 6 * columns], columns, f"{min(len(tiles), 6 * columns)} samples of the averaged generator")


class Gallery:
    """Pictures made with the generator of one snapshot.

    Args:
        run: that it is of.
        card: of the snapshot.

    Raises:
        ValueError: if it cannot be loaded.
    """

    def __init__(self, run: RunRecords, card: Record) -> None:
        self.card, self.sampler = card, _sampler(run, card)
        self.classes: list[str] = card["classes"] if self.sampler.generator.num_classes else []

    def best(self) -> Shown:
        """Samples by themselves; with a few classes, a column each."""
        columns = min(ACROSS, len(self.classes)) if self.classes else ACROSS
        images, _ = self.sampler(range(6 * columns))
        return shown(_tiles(images), columns, f"{6 * columns} samples of the averaged generator")

    def by_class(self) -> list[Row]:
        """A row for each class, of the same latents; of many classes, some."""
        chosen = spread(len(self.classes), CLASSES)
        if not chosen:
            return []
        sheet = class_sheet(self.sampler, self.sampler.latents(range(ACROSS)), chosen)
        return self._rows([self.classes[i] for i in chosen], sheet.images, "class ")

    def by_truncation(self, thresholds: Sequence[float | None]) -> list[Row]:
        """A row for each threshold, of the same samples."""
        sheet = truncation_sheet(self.sampler, range(ACROSS), thresholds)
        return self._rows([threshold_name(t) for t in thresholds], sheet.images, "truncation ")

    @staticmethod
    def _rows(names: Sequence[str], images: Tensor, what: str) -> list[Row]:
        parts = images.split(ACROSS)
        return [
            Row(name, shown(_tiles(part), ACROSS, f"{ACROSS} samples, {what}{name}"))
            for name, part in zip(names, parts, strict=True)
        ]


def threshold_name(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:g}"


def _sampler(run: RunRecords, card: Record) -> Sampler:
    snapshot = load_snapshot(f"{run.snapshots.url}/{card['name']}.safetensors")
    generator = snapshot.generator.to("cuda" if torch.cuda.is_available() else "cpu")
    labels = cycled(range(max(1, generator.num_classes)))
    return Sampler(generator, snapshot.card.seed, labels, batch=BATCH, place=snapshot.card.place)
