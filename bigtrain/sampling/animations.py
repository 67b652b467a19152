"""Animations that repeat for ever: GIF and WebP by Pillow, mp4 by PyAV where it is installed."""

from __future__ import annotations

import importlib.util
import io
from typing import Final

from torch import Tensor

from bigtrain.sampling.outputs import enlarged, picture

#: Ending of a file: Pillow's options for it; None for what PyAV writes. WebP is as exact as GIF is small.
ENDINGS: Final[dict[str, dict[str, bool] | None]] = {".gif": {}, ".webp": {"lossless": True}, ".mp4": None}


def check_animation(name: str, fps: int) -> str:
    """The ending of a file's name that can be written at that rate.

    Raises:
        ValueError: if it cannot.
    """
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"an animation's name (={name}) must end in one of {', '.join(ENDINGS)}")
    if ENDINGS[ending] is None and importlib.util.find_spec("av") is None:
        raise ValueError(
            f"{name}: mp4 needs the package `av`: run `pip install 'bigtrain[video]'`, or choose .gif or .webp"
        )
    if not 1 <= fps <= 50:
        raise ValueError(f"fps (={fps}) must be from 1 to 50, the fastest that viewers show a GIF")
    return ending


def animation(frames: Tensor, ending: str, fps: int) -> bytes:
    """The file of frames uint8 [n, c, h, w].

    GIF tells 1/100 s, so that its rate is the nearest to `fps` which that allows, and has 256 colours a frame.
    """
    options = ENDINGS[ending]
    if options is None:
        return _mp4(enlarged(frames), fps)
    first, *rest = [picture(frame) for frame in enlarged(frames)]
    buffer = io.BytesIO()
    kind, duration = ending.removeprefix("."), 10 * round(100 / fps) if ending == ".gif" else round(1000 / fps)
    first.save(buffer, format=kind, save_all=True, append_images=rest, duration=duration, loop=0, **options)
    return buffer.getvalue()


def _mp4(frames: Tensor, fps: int) -> bytes:
    """H.264 as every player takes it: 4:2:0, so that sides must be even, which powers of two are."""
    import av  # noqa: PLC0415 (an extra)

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.height, stream.width = frames.shape[2:]
        stream.pix_fmt = "yuv420p"
        for frame in frames.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
