"""Finding and opening input files on any filesystem."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError

FORMS = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz"), "jsonl": (".jsonl", ".jsonl.gz")}
"""File name endings of each form."""


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        folder: Where it lies.
        name: Its name there.
        size: Bytes.
        mtime_ns: Time of its last change, nanoseconds; 0 where the store does not tell.
        member: Name inside the file if that is a zip archive.
    """

    folder: Folder
    name: str
    size: int
    mtime_ns: int = 0
    member: str | None = None

    @property
    def label(self) -> str:
        """The name that reports use."""
        return f"{self.name}/{self.member}" if self.member else self.name

    @property
    def splittable(self) -> bool:
        """Whether a task may start reading in the middle of this text file."""
        return self.member is None and not self.name.endswith(".gz")

    @contextmanager
    def open(self, start: int = 0) -> Iterator[BinaryIO]:
        """Open for reading bytes, decompressed, from byte `start`.

        Raises:
            DataError: The file cannot be read or is not whole.
        """
        filesystem, path = self.folder.filesystem()
        path = f"{path}/{self.name}"
        try:
            if self.member is not None:
                with (
                    filesystem.open_input_file(path) as raw,
                    zipfile.ZipFile(raw) as archive,
                    archive.open(self.member) as stream,
                ):
                    yield cast(BinaryIO, stream)
            elif self.splittable:
                with filesystem.open_input_file(path) as file:
                    file.seek(start)
                    yield cast(BinaryIO, file)
            else:
                with filesystem.open_input_stream(path, compression="gzip") as stream:
                    yield cast(BinaryIO, stream)
        except (OSError, EOFError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
            message = (
                f"`logs.path` must hold readable files; got {self.label!r} ({error}). "
                "Fetch or copy the file again."
            )
            raise DataError(message) from None


def locate(location: str, where: str) -> tuple[Folder, str | None]:
    """Return (folder, None) for a folder and (its folder, name) for a file.

    Raises:
        DataError: Nothing is there; the message names the nearest neighbour.
    """
    folder = Folder.at(location)
    filesystem, path = folder.filesystem()
    try:
        info = filesystem.get_file_info(path)
    except OSError as error:
        message = f"`{where}` must be reachable; got {location!r} ({error}). Check the address."
        raise DataError(message) from None
    parent, _, name = folder.uri.rpartition("/")
    if info.type == pafs.FileType.Directory:
        return folder, None
    if info.type == pafs.FileType.File:
        return Folder(parent), name
    beside = _neighbours(filesystem, path.rpartition("/")[0])
    hint = nearest(name, beside) if beside else "Check the path."
    message = f"`{where}` must be an existing file or folder; got {folder.uri!r}. {hint}"
    raise DataError(message)


def _neighbours(filesystem: pafs.FileSystem, path: str) -> list[str]:
    """Return the names beside a missing path."""
    selector = pafs.FileSelector(path or "/", allow_not_found=True)
    return [info.base_name for info in filesystem.get_file_info(selector)]


def sources_in(folder: Folder, name: str | None, endings: tuple[str, ...]) -> list[Source]:
    """Return the file `name`, or every file of the folder with one of the endings, sorted."""
    filesystem, path = folder.filesystem()
    if name is not None:
        infos = [filesystem.get_file_info(f"{path}/{name}")]
    else:
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        infos = [i for i in found if i.base_name.endswith(endings)]
    files = [i for i in infos if i.type == pafs.FileType.File and not i.base_name.startswith(".")]
    made = [Source(folder, i.base_name, i.size, i.mtime_ns or 0) for i in files]
    return sorted(made, key=lambda source: source.name)


def find_table(
    folder: Folder, stem: str, wanted: str | None = None
) -> tuple[str, list[Source]] | None:
    """Return (form, files) of the table ``stem.<form>`` or folder ``stem/`` inside `folder`.

    Args:
        folder: Where to look.
        stem: ``interactions``, ``items`` or ``users``.
        wanted: Only this form; None takes the first of parquet, csv, jsonl that is there.
    """
    for form, endings in FORMS.items():
        if wanted not in (None, form):
            continue
        for ending in endings:
            # Some writers make `interactions.parquet` a folder of part files.
            for child in (f"{stem}{ending}", stem):
                filesystem, path = folder.filesystem()
                info = filesystem.get_file_info(f"{path}/{child}")
                if info.type == pafs.FileType.File:
                    return form, sources_in(folder, child, endings)
                if info.type == pafs.FileType.Directory:
                    parts = sources_in(folder.child(child), None, endings)
                    if parts:
                        return form, parts
    return None
