"""Download public data sets from their official addresses, verified, never half-written."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.fs as pafs

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import ConfigError, DataError

_LOG = logging.getLogger(__name__)

RECORD = "checksums.json"
"""Beside the files: the SHA-256 that each had when it was first fetched."""

_MAGIC = {".zip": b"PK\x03\x04", ".gz": b"\x1f\x8b"}
_TIMEOUT_SECONDS = 30.0
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Remote:
    """One file to download.

    Attributes:
        url: Its official address.
        name: Its name here.
        md5: The checksum that its publisher gives, or None if there is none; then the SHA-256 of
            the first download is recorded and later copies are held to it.
    """

    url: str
    name: str
    md5: str | None = None


_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"


def _amazon(category: str) -> tuple[Remote, ...]:
    """Return the two files of a category of 2014."""
    names = (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz")
    return tuple(Remote(f"{_AMAZON}/{name}", name) for name in names)


DATA_SETS: Mapping[str, tuple[Remote, ...]] = {
    "movielens_1m": (
        Remote(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            "ml-1m.zip",
            "c4d9eecfca2ab87c1945afe126590906",
        ),
    ),
    "amazon_beauty": _amazon("Beauty"),
    "amazon_sports": _amazon("Sports_and_Outdoors"),
    "amazon_toys": _amazon("Toys_and_Games"),
}
"""By name: what `fetch` downloads."""


def fetch(
    name: str, root: str | Path, *, data_sets: Mapping[str, tuple[Remote, ...]] = DATA_SETS
) -> str:
    """Make the files of a public data set exist in ``root/name``; those there are verified.

    Args:
        name: For example ``"movielens_1m"``.
        root: The folder of all data sets, local or a URI; usually ``$ITEMESE_DATA``.
        data_sets: What can be fetched.

    Returns:
        The folder of the data set, to be used as ``logs.path``.

    Raises:
        ConfigError: The name is not known.
        DataError: An address cannot be reached, or a file is not what its checksum says.
    """
    if name not in data_sets:
        message = f"`data set` must be a known name; got {name!r}. {nearest(name, data_sets)}"
        raise ConfigError(message)
    folder = Folder.at(root).child(name)
    for remote in data_sets[name]:
        if folder.exists(remote.name):
            _verify(remote, folder)
        else:
            download(remote, folder)
    return folder.uri


def download(remote: Remote, folder: Folder) -> None:
    """Download one file under a temporary name, verify it, then give it its own.

    Raises:
        DataError: The address cannot be reached, the disk is full, or the content is wrong;
            nothing stays behind.
    """
    filesystem, path = folder.create().filesystem()
    temporary, target = f"{path}/.{remote.name}.part", f"{path}/{remote.name}"
    digests = _Digests()
    try:
        _stream(remote, filesystem, temporary, digests)
        digests.check(remote, f"a download from {remote.url}", "Try again later")
        filesystem.move(temporary, target)
    except httpx.HTTPError as error:
        detail = str(error) or type(error).__name__
        message = (
            f"`{remote.url}` must be reachable; got: {detail}. Place the file by hand at "
            f"{folder.uri}/{remote.name}, or set `logs.source: simulated`."
        )
        raise DataError(message) from None
    except (OSError, pa.ArrowException) as error:
        message = f"`{target}` must be writable; got: {error}. Free space or choose another folder."
        raise DataError(message) from None
    finally:
        _remove(filesystem, temporary)
    _record(remote, folder, digests)
    _LOG.info("fetched %s (%.1f MB)", remote.name, digests.num_bytes / 1e6)


class _Digests:
    """The checksums of a file, fed block by block."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._head = b""

    def update(self, block: bytes) -> None:
        """Take the next bytes."""
        if self.num_bytes == 0:
            self._head = block[:4]
        self._md5.update(block)
        self._sha256.update(block)
        self.num_bytes += len(block)

    @property
    def sha256(self) -> str:
        """The SHA-256 in hexadecimal."""
        return self._sha256.hexdigest()

    def check(self, remote: Remote, what: str, remedy: str) -> None:
        """Raise DataError unless the content is what its name and publisher promise."""
        if remote.md5 is not None and self._md5.hexdigest() != remote.md5:
            message = (
                f"`{remote.name}` must have the published md5 {remote.md5}; got "
                f"{self._md5.hexdigest()} in {what}. {remedy}."
            )
            raise DataError(message)
        for ending, magic in _MAGIC.items():
            # Many networks answer an unknown address with a page of their own and status 200.
            if remote.name.endswith(ending) and not self._head.startswith(magic):
                message = (
                    f"`{remote.name}` must be a {ending} file; got {self._head!r}... in {what}. "
                    f"{remedy}."
                )
                raise DataError(message)


def _stream(remote: Remote, filesystem: pafs.FileSystem, target: str, digests: _Digests) -> None:
    """Copy the body of the answer to a file."""
    with (
        httpx.stream(
            "GET", remote.url, follow_redirects=True, timeout=_TIMEOUT_SECONDS
        ) as response,
        filesystem.open_output_stream(target, compression=None) as file,
    ):
        response.raise_for_status()
        # The bytes as they are: a `.gz` that is sent with an encoding must not be unpacked.
        for block in response.iter_raw(_READ_BYTES):
            digests.update(block)
            file.write(block)


def _verify(remote: Remote, folder: Folder) -> None:
    """Raise DataError unless a file that is there is whole; record a first one's checksum."""
    filesystem, path = folder.filesystem()
    digests = _Digests()
    with filesystem.open_input_stream(f"{path}/{remote.name}", compression=None) as file:
        while block := file.read(_READ_BYTES):
            digests.update(block)
    what, remedy = f"{folder.uri}/{remote.name}", "Delete it and fetch again"
    digests.check(remote, what, remedy)
    known = _records(folder).get(remote.name, {}).get("sha256")
    if known is not None and known != digests.sha256:
        message = (
            f"`{remote.name}` must have the recorded sha256 {known}; got {digests.sha256} in "
            f"{what}. {remedy}, or delete {RECORD} if the change was meant."
        )
        raise DataError(message)
    if known is None:
        _record(remote, folder, digests)


def _records(folder: Folder) -> dict[str, Any]:
    """Return what was recorded of the folder's files."""
    return dict(folder.read_json(RECORD)) if folder.exists(RECORD) else {}


def _record(remote: Remote, folder: Folder, digests: _Digests) -> None:
    """Note a file's checksum, size and origin beside it."""
    facts = {
        "sha256": digests.sha256,
        "bytes": digests.num_bytes,
        "url": remote.url,
        "seen": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    folder.write_json(RECORD, _records(folder) | {remote.name: facts})


def _remove(filesystem: pafs.FileSystem, path: str) -> None:
    """Remove a file if it is there."""
    if filesystem.get_file_info(path).type == pafs.FileType.File:
        filesystem.delete_file(path)
