"""Finding input files and cutting them into chunks that tasks read independently."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from itemese.artifacts import Folder
from itemese.config import nearest
from itemese.errors import DataError

FORMS = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz"), "jsonl": (".jsonl", ".jsonl.gz")}
"""File name endings of each form."""

FILE_BITS = 40
"""A row's place is ``file ordinal << 40 | place in the file``: files up to 1 TiB, 8 million."""

TEXT_CHUNK_BYTES = 64 << 20
PARQUET_CHUNK_ROWS = 4_000_000


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


@dataclass(frozen=True)
class Chunk:
    """A part of the input that one task turns into one output shard.

    Attributes:
        index: Place among all chunks; names the shard.
        ordinal: Place of the file among all files.
        form: ``parquet``, ``csv``, ``jsonl``, ``dat`` or ``simulated``.
        start: First row group, byte or user.
        stop: Row group, byte or user that the next chunk starts with.
        first_row: Rows of the file before this chunk (Parquet).
        source: The file; None for simulated users.
        header: Column names of a text file without names in its lines.
    """

    index: int
    ordinal: int
    form: str
    start: int
    stop: int
    first_row: int = 0
    source: Source | None = None
    header: tuple[str, ...] = field(default=())

    @property
    def shard(self) -> str:
        """Name of the output file."""
        return f"part-{self.index:05d}.parquet"


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


def plan_parquet(sources: list[Source], num_blocks: int | None) -> list[Chunk]:
    """Cut Parquet files into chunks of whole row groups."""
    footers = [_row_group_sizes(source) for source in sources]
    total = sum(sum(sizes) for sizes in footers)
    target = max(1, -(-total // num_blocks)) if num_blocks else PARQUET_CHUNK_ROWS
    chunks: list[Chunk] = []
    for ordinal, (source, sizes) in enumerate(zip(sources, footers, strict=True)):
        start, first, rows = 0, 0, 0
        for group, size in enumerate(sizes):
            rows += size
            if rows >= target or group == len(sizes) - 1:
                place = (start, group + 1, first)
                chunks.append(Chunk(len(chunks), ordinal, "parquet", *place, source))
                start, first, rows = group + 1, first + rows, 0
    return chunks


def _row_group_sizes(source: Source) -> list[int]:
    """Return the rows of each row group, or raise DataError for a file that is no Parquet."""
    with source.open() as stream:
        metadata = pq.ParquetFile(stream).metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def plan_text(
    sources: list[Source],
    form: str,
    num_blocks: int | None,
    headers: list[tuple[tuple[str, ...], int]],
) -> list[Chunk]:
    """Cut text files into byte ranges; compressed files stay whole.

    Args:
        sources: Files in input order.
        form: ``csv``, ``jsonl`` or ``dat``.
        num_blocks: Wanted number of chunks, or None for `TEXT_CHUNK_BYTES` each.
        headers: For each file its column names and the byte at which its rows start.
    """
    total = sum(source.size for source in sources)
    size = max(1, -(-total // num_blocks)) if num_blocks else TEXT_CHUNK_BYTES
    chunks: list[Chunk] = []
    for ordinal, source in enumerate(sources):
        header, start = headers[ordinal]
        ends = range(start + size, source.size, size) if source.splittable else ()
        stop_last = source.size if source.splittable else 1 << FILE_BITS
        for stop in [*ends, stop_last]:
            chunks.append(Chunk(len(chunks), ordinal, form, start, stop, 0, source, header))
            start = stop
    return chunks


def read_header(source: Source, delimiter: str) -> tuple[tuple[str, ...], int]:
    """Return a CSV file's column names and the byte at which its rows start.

    Raises:
        DataError: The first line is missing, no UTF-8, or names a column twice.
    """
    import csv

    with source.open() as stream:
        line = _first_line(stream)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        message = (
            f"`{source.label}` must start with a header line in UTF-8; got {line[:60]!r}. "
            "Convert the file to UTF-8."
        )
        raise DataError(message) from None
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    names = tuple(name.strip() for name in rows[0]) if rows else ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if not any(names) or twice:
        what = f"the columns {twice} twice" if twice else "no column names"
        message = (
            f"`{source.label}` must start with a header line of distinct names; got {what}. "
            "Write the names in its first line."
        )
        raise DataError(message)
    return names, len(line)


def _first_line(stream: BinaryIO, limit: int = 1 << 20) -> bytes:
    """Return the first line with its newline, read in small steps."""
    line = b""
    while b"\n" not in line and len(line) < limit:
        more = stream.read(1 << 16)
        if not more:
            break
        line += more
    return line[: line.index(b"\n") + 1] if b"\n" in line else line
