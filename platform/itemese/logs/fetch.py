"""Download public data sets from their official addresses, with checksums, whole or not at all."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

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

    Missing files are downloaded into a hidden folder of `root` and moved when all of them are
    whole, so that a failed or killed download leaves no file and no folder of that name.

    Args:
        name: For example ``"movielens_1m"``.
        root: The local folder of all data sets; usually ``$ITEMESE_DATA``.
        data_sets: What can be fetched.

    Returns:
        The folder of the data set, to be used as ``logs.path``.

    Raises:
        ConfigError: The name is not known, or `root` is not local.
        DataError: An address cannot be reached, or a file is not what its checksum says.
    """
    if name not in data_sets:
        message = f"`data set` must be a known name; got {name!r}. {nearest(name, data_sets)}"
        raise ConfigError(message)
    if "://" in str(root):
        message = f"`--folder` must be a local folder; got {str(root)!r}. Copy the files there."
        raise ConfigError(message)
    folder = Path(root).expanduser().resolve() / name
    known = json.loads((folder / RECORD).read_text()) if (folder / RECORD).exists() else {}
    present = [remote for remote in data_sets[name] if (folder / remote.name).is_file()]
    missing = [remote for remote in data_sets[name] if remote not in present]
    found = {remote.name: _verify(remote, folder, known) for remote in present}
    try:
        if missing or known | found != known:
            _complete(folder, missing, known | found)
    except OSError as error:
        message = f"`{folder}` must be writable; got: {error}. Free space or choose another folder."
        raise DataError(message) from None
    return str(folder)


def _complete(folder: Path, missing: list[Remote], records: dict[str, Any]) -> None:
    """Download the missing files aside, then move them and their record into `folder`."""
    is_new = not folder.parent.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
            new = {r.name: _download(r, Path(aside) / r.name, folder) for r in missing}
            (Path(aside) / RECORD).write_text(json.dumps(records | new, indent=1))
            folder.mkdir(exist_ok=True)
            for name in (*new, RECORD):
                (Path(aside) / name).replace(folder / name)
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.parent.rmdir()
        raise


def _download(remote: Remote, target: Path, folder: Path) -> dict[str, Any]:
    """Stream one file to `target`, check it and return its record."""
    try:
        with (
            httpx.stream(
                "GET", remote.url, follow_redirects=True, timeout=_TIMEOUT_SECONDS
            ) as response,
            target.open("wb") as file,
        ):
            response.raise_for_status()
            # The bytes as they are: a `.gz` that is sent with an encoding must not be unpacked.
            for block in response.iter_raw(_READ_BYTES):
                file.write(block)
    except httpx.HTTPError as error:
        detail = str(error) or type(error).__name__
        message = (
            f"`{remote.url}` must be reachable; got: {detail}. Place the file by hand at "
            f"{folder / remote.name}, or set `logs.source: simulated`."
        )
        raise DataError(message) from None
    record = _checked(remote, target, f"a download from {remote.url}", "Try again later")
    _LOG.info("fetched %s (%.1f MB)", remote.name, record["bytes"] / 1e6)
    return record


def _verify(remote: Remote, folder: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a file that is there.

    Raises:
        DataError: It is not whole, or not the file that was recorded.
    """
    what, remedy = str(folder / remote.name), "Delete it and fetch again"
    found = _checked(remote, folder / remote.name, what, remedy)
    recorded = known.get(remote.name, found)
    if recorded["sha256"] != found["sha256"]:
        message = (
            f"`{remote.name}` must have the recorded sha256 {recorded['sha256']}; got "
            f"{found['sha256']} in {what}. {remedy}, or delete {RECORD} if the change was meant."
        )
        raise DataError(message)
    return dict(recorded)


def _checked(remote: Remote, file: Path, what: str, remedy: str) -> dict[str, Any]:
    """Return the record of a file: checksum, size, origin and when it was first seen.

    Raises:
        DataError: The content is not what its name and publisher promise.
    """
    with file.open("rb") as content:
        head = content.read(4)
        content.seek(0)
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        content.seek(0)
        md5 = hashlib.file_digest(content, _md5).hexdigest()
    if remote.md5 not in (None, md5):
        message = (
            f"`{remote.name}` must have the published md5 {remote.md5}; got {md5} in {what}. "
            f"{remedy}."
        )
        raise DataError(message)
    for ending, magic in _MAGIC.items():
        # Many networks answer an unknown address with a page of their own and status 200.
        if remote.name.endswith(ending) and not head.startswith(magic):
            message = (
                f"`{remote.name}` must be a {ending} file; got {head!r}... in {what}. {remedy}."
            )
            raise DataError(message)
    return {
        "sha256": sha256,
        "bytes": file.stat().st_size,
        "url": remote.url,
        "seen": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _md5() -> Any:
    """Return an MD5 that works where MD5 is forbidden for security."""
    return hashlib.md5(usedforsecurity=False)
