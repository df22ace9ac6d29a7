"""Finding and opening input files on any filesystem."""

import csv
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import unquote

import polars.exceptions as plx
import pyarrow as pa
import pyarrow.fs as pafs

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import ArtifactError, DataError
from itemese.logs.kinds import COMPRESSED, DATA, FORMS

_BARE = re.compile(r"[^.]*\d[^.]*")
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

UNREADABLE = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
    plx.PolarsError,
    csv.Error,
    UnicodeError,
    plx.PanicException,  # a type of Arrow that polars does not know
    NotImplementedError,  # a compression of zip archives or Parquet files
)
"""What readers and parsers raise on files that are torn, or are not what they are called."""


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        folder: Where it lies.
        name: Its name there, or its path below it.
        size: Bytes.
        mtime_ns: Time of its last change, nanoseconds; 0 where the store does not say.
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

    @property
    def partition(self) -> dict[str, str | None]:
        """Columns that the folders of the path hold, as ``key=value``."""
        pairs = [part.split("=", 1) for part in self.name.split("/")[:-1] if "=" in part]
        return {
            unquote(key): None if value == _NULL_PARTITION else unquote(value)
            for key, value in pairs
        }

    @contextmanager
    def open(self, start: int = 0) -> Iterator[BinaryIO]:
        """Open for reading bytes, decompressed, from byte `start`.

        Raises:
            DataError: The file cannot be read or is not whole, or what runs in the context fails
                to parse it.
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
        except UNREADABLE as error:
            detail = " ".join(str(error).split())[:300]
            message = (
                f"`logs.path` must hold readable files; got {self.label!r} ({detail}). "
                "Correct the file, or fetch or copy it again."
            )
            raise DataError(message) from None


def locate(location: str, where: str) -> tuple[Folder, str | None]:
    """Return (folder, None) for a folder and (its folder, name) for a file.

    Raises:
        DataError: Nothing is there, or no filesystem knows the address.
    """
    folder = Folder.at(location)
    try:
        filesystem, path = folder.filesystem()
        info = filesystem.get_file_info(path)
    except (ArtifactError, OSError) as error:
        scheme = location.partition("://")[0].lower()
        if scheme in ("http", "https", "ftp", "sftp"):
            remedy = f"Files are not read over {scheme}: download it first"
        else:
            remedy = f"{error} Check the address".replace("`storage`", f"`{where}`")
        message = (
            f"`{where}` must be a local path or an address of a store (s3://, gs://, hdfs://); got "
            f"{location!r}. {remedy}."
        )
        raise DataError(message) from None
    parent, _, name = folder.uri.rpartition("/")
    if info.type == pafs.FileType.Directory:
        return folder, None
    if info.type == pafs.FileType.File:
        return Folder(parent), name
    beside = _neighbours(filesystem, path.rpartition("/")[0])
    hint = nearest(name, beside) if beside else "Check the path."
    if re.search(r"[*?\[]", name):
        hint = "Patterns are not read: name a folder, whose parts are read at any depth."
    message = f"`{where}` must be an existing file or folder; got {folder.uri!r}. {hint}"
    raise DataError(message)


def _neighbours(filesystem: pafs.FileSystem, path: str) -> list[str]:
    """Return the names beside a missing path."""
    selector = pafs.FileSelector(path or "/", allow_not_found=True)
    return [info.base_name for info in filesystem.get_file_info(selector)]


def file_in(folder: Folder, name: str) -> Source:
    """Return the file `name` of a folder."""
    filesystem, path = folder.filesystem()
    return _source(folder, name, filesystem.get_file_info(f"{path}/{name}"))


def _source(folder: Folder, name: str, info: pafs.FileInfo) -> Source:
    return Source(folder, name, info.size, info.mtime_ns or 0)


def parts_in(folder: Folder, form: str, *, bare: bool = False) -> list[Source]:
    """Return the files of one form at any depth of a folder, sorted by path.

    Files and folders whose names begin with a dot or an underscore are passed over, as other
    readers of partitioned tables do.

    Args:
        folder: Where to look.
        form: Whose endings count.
        bare: Whether files such as ``part-0``, with a number and without an ending, count too.

    Raises:
        DataError: There are parts, and beside them data files of another form.
    """
    filesystem, path = folder.filesystem()
    found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
    parts, others = [], []
    for info in found:
        name = info.path[len(path) :].lstrip("/")
        if info.type != pafs.FileType.File or _is_hidden(name):
            continue
        if name.endswith(FORMS[form]) or (bare and _BARE.fullmatch(info.base_name)):
            parts.append(_source(folder, name, info))
        elif DATA.search(name) or COMPRESSED.search(name):
            others.append(name)
    if parts and others:
        message = (
            f"`{folder.uri}` must hold parts of one form; got {min(others)!r} beside "
            f"{min(part.name for part in parts)!r}. Convert it, or move it out of the folder."
        )
        raise DataError(message)
    return sorted(parts, key=lambda part: part.name)


def _is_hidden(name: str) -> bool:
    """Return whether a part of a path begins with a dot, or with an underscore and is no column."""
    return any(
        part.startswith(".") or (part.startswith("_") and "=" not in part)
        for part in name.split("/")
    )


def find_table(
    folder: Folder, stem: str, wanted: str | None = None, bare: str | None = None
) -> tuple[str, list[Source]] | None:
    """Return (form, files) of the table ``stem.<form>`` or folder ``stem/`` inside `folder`.

    Args:
        folder: Where to look.
        stem: ``interactions``, ``items`` or ``users``.
        wanted: Only this form; None takes the first of parquet, csv, jsonl that is there.
        bare: The form of parts whose names have no ending.

    Raises:
        DataError: There are several of one form.
    """
    filesystem, path = folder.filesystem()
    for form, endings in FORMS.items():
        if wanted not in (None, form):
            continue
        tables = {}
        for name in (stem, *(f"{stem}{ending}" for ending in endings)):
            info = filesystem.get_file_info(f"{path}/{name}")
            if info.type == pafs.FileType.File and name != stem:
                tables[name] = [_source(folder, name, info)]
            elif info.type == pafs.FileType.Directory:
                # Some writers make `interactions.parquet` a folder of part files.
                tables[f"{name}/"] = parts_in(folder.child(name), form, bare=form == bare)
        tables = {name: parts for name, parts in tables.items() if parts}
        if len(tables) > 1:
            message = (
                f"`{folder.uri}` must hold one table of {stem}; got {' and '.join(tables)}. Move "
                "all but one of them away."
            )
            raise DataError(message)
        if tables:
            return form, next(iter(tables.values()))
    return None
