"""Objects by key below any URL: a local path, `s3://`, `gs://`, `az://`, `https://`. The ground floor of all files."""

from bigtrain.storage.access import Counts
from bigtrain.storage.errors import ChangedError, ForkedError, TransportError, TruncatedError
from bigtrain.storage.options import REMOTE_SCHEMES, StorageOptions, is_remote
from bigtrain.storage.storage import Stat, Storage

__all__ = [
    "REMOTE_SCHEMES",
    "ChangedError",
    "Counts",
    "ForkedError",
    "Stat",
    "Storage",
    "StorageOptions",
    "TransportError",
    "TruncatedError",
    "is_remote",
]
