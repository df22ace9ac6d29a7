"""Vectors that need not fit in memory: read by slices and by row numbers, block by block.

Shapes: N vectors, D vector size.
"""

import json
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError

ROWS_AT_ONCE = 65_536
"""Rows of a block: 96 MiB at 384 numbers a row."""


class Rows(Protocol):
    """What a quantizer reads vectors from; a ``[N, D]`` tensor is one, so is `VectorFile`."""

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Return the vectors of a slice or of row numbers ``[n] int64``, as ``[n, D]``."""
        ...


def blocks(vectors: Rows, size: int = ROWS_AT_ONCE) -> Iterator[tuple[slice, Tensor]]:
    """Yield which rows a block holds and the block ``[n, D] float32``, in order."""
    for start in range(0, len(vectors), size):
        rows = slice(start, min(start + size, len(vectors)))
        yield rows, vectors[rows].float()


class VectorFile:
    """The vectors of an embeddings artifact, read from its file by ranges.

    The safetensors file is a header and then the rows one after the other, so a slice is one
    range of bytes: on an object store too, nothing is held but what was asked for.

    Attributes:
        shape: ``(N, D)``.
    """

    def __init__(self, folder: Folder) -> None:
        filesystem, path = folder.filesystem()
        self._place = f"{folder.uri}/embeddings.safetensors"
        try:
            self._file = filesystem.open_input_file(f"{path}/embeddings.safetensors")
            length = int.from_bytes(self._file.read(8), "little")
            header = json.loads(self._file.read(length))
            entry = header["vectors"]
            rows, dim = entry["shape"]
            if entry["dtype"] != "F32":
                raise ValueError(entry["dtype"])
        except (OSError, ValueError, KeyError) as error:
            message = (
                f"`{self._place}` must be a whole safetensors file of [num_items, dim] float32; "
                f"got {error}. Run `prepare` with this recipe."
            )
            raise ArtifactError(message) from None
        self.shape = (int(rows), int(dim))
        self._start = 8 + length + int(entry["data_offsets"][0])

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Return ``[n, D] float32``; row numbers may come in any order."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self._read(start, max(start, stop))[::step]
        wanted = rows.long()
        found = torch.empty(len(wanted), self.shape[1])
        block = wanted // ROWS_AT_ONCE
        for number in torch.unique(block).tolist():
            here = (block == number).nonzero().flatten()
            part = self[number * ROWS_AT_ONCE : (number + 1) * ROWS_AT_ONCE]
            found[here] = part[wanted[here] - number * ROWS_AT_ONCE]
        return found

    def _read(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start..stop - 1``."""
        width = 4 * self.shape[1]
        try:
            content = self._file.read_at((stop - start) * width, self._start + start * width)
        except OSError as error:
            message = f"`{self._place}` could not be read: {error}. Run `prepare` again."
            raise ArtifactError(message) from None
        if len(content) != (stop - start) * width:
            message = f"`{self._place}` must be a whole file; got a torn one. Delete its folder."
            raise ArtifactError(message)
        values = np.frombuffer(content, dtype="<f4").reshape(stop - start, self.shape[1])
        return torch.from_numpy(values.astype(np.float32))

    def validate(self, num_items: int) -> None:
        """Raise DataError unless there is one finite row for each item."""
        if len(self) != num_items:
            message = (
                f"`embeddings.vectors` must be [{num_items}, dim]; got {list(self.shape)}. Embed "
                "this catalogue."
            )
            raise DataError(message)
        bad, first = 0, 0
        for rows, block in blocks(self):
            faulty = (~torch.isfinite(block)).any(dim=1)
            if not bad and faulty.any():
                first = rows.start + int(faulty.long().argmax())
            bad += int(faulty.sum())
        if bad:
            message = (
                f"`embeddings.vectors` must be finite; got NaN or infinity in {bad} rows, first "
                f"{first}. Check the text of that item."
            )
            raise DataError(message)
