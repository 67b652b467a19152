"""Checkpoints: the full state of a training, by which it goes on as if nothing had happened.

A checkpoint is a folder named by its moment. Its tensors are safetensors files, everything else is json, so nothing is
ever unpickled. The format does not depend on the strategy:

    rank-00000.safetensors   the pieces of tensors that this rank wrote, whole rows of each
    rank-00000.json          which rows of which tensors these are, the file's checksum, and the attempt's token
    state.json               the format, images_seen, the number of ranks, the score, and facts
    COMPLETE                 written last: the checksums of all others; a folder without it does not count
"""

from bigtrain.checkpoints.checkpoints import Checkpoint, Checkpoints
from bigtrain.checkpoints.layout import FACTS, FORMAT, MARKER, pieces_file, tensors_file
from bigtrain.checkpoints.whole import WholeTensors

__all__ = [
    "FACTS",
    "FORMAT",
    "MARKER",
    "Checkpoint",
    "Checkpoints",
    "WholeTensors",
    "pieces_file",
    "tensors_file",
]
