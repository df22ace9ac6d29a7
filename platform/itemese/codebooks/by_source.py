"""Codes source by source: an item has the codes of one source, then of the next.

Each source of the embeddings has codebooks of its own, of the section's kind and sizes. An item
without information in a source has that source's stand-in (the mean vector of the others, or zeros)
and the codes of that stand-in.

Shapes: N vectors, D vector size, S sources, C number of codebooks of each, K codebook size.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor

from itemese.codebooks.base import EncodeAll, Quantizer
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.rows import Rows, blocks
from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.randomness import derive_seed
from itemese.core.vectors import Codes, part_of


class BySource(Quantizer):
    """S quantizers of one kind, each for some columns of the vectors.

    Attributes:
        columns: Which columns each source fills, S slices.
        parts: The S quantizers.
        means [D] float32: mean of each column, what a source without any code decodes to.
    """

    layout: ClassVar[str] = "by source"

    def __init__(self, config: CodebooksConfig) -> None:
        super().__init__(config)
        self.columns: list[slice] = []
        self.parts = [QUANTIZERS[config.kind](config) for _ in config.sources]
        self.means = torch.empty(0)

    @classmethod
    def of(cls, config: CodebooksConfig, embeddings: Folder) -> Self:
        """Return it unfitted, for the sources of an embeddings artifact.

        Raises:
            DataError: The artifact lacks a source.
        """
        made = cls(config)
        parts = embeddings.read_json("embeddings.json")["parts"]
        made.columns = [part_of(parts, name) for name in config.sources]
        return made

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """S x C sizes, source by source."""
        return tuple(size for part in self.parts for size in part.code_sizes)

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return the sources' columns side by side, each source scaled to length 1 if asked."""
        pairs = zip(self.parts, self.columns, strict=True)
        return torch.cat([part.prepare(vectors[:, columns]) for part, columns in pairs], dim=1)

    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Fit each source's codebooks on its columns; see `Quantizer.fit`.

        Raises:
            DataError: Also if one source's vectors are all equal; the source is named.
        """
        for name, part, columns in zip(self.config.sources, self.parts, self.columns, strict=True):
            part.id_rank = self.id_rank
            try:
                part.fit(_Columns(vectors, columns), seed=derive_seed(seed, f"codebooks/{name}"))
            except DataError as error:
                message = f"`codebooks.sources` cannot name items by {name!r}: {error}"
                raise DataError(message) from None
        total = torch.zeros(0, dtype=torch.float64)
        for _, block in blocks(vectors):
            sums = self.prepare(block).double().sum(dim=0)
            total = total + sums if len(total) else sums
        self.means = (total / len(vectors)).float()

    def encode(self, vectors: Tensor) -> Tensor:
        """Return codes ``[N, S * C] int64``; see `Quantizer.encode`."""
        pairs = zip(self.parts, self.columns, strict=True)
        return torch.cat([part.encode(vectors[:, columns]) for part, columns in pairs], dim=1)

    def codes(self, vectors: Rows, encode_all: EncodeAll | None = None) -> Codes:
        """Code a whole catalogue, each source by its own quantizer's way of doing so.

        `encode_all` encodes whole vectors, so it is used where the kind looks at rows alone.
        """
        if encode_all is not None and type(self.parts[0]).codes is Quantizer.codes:
            return super().codes(vectors, encode_all)
        pairs = zip(self.parts, self.columns, strict=True)
        found = [part.codes(_Columns(vectors, columns)).codes for part, columns in pairs]
        return self._counted(torch.cat([torch.from_numpy(part) for part in found], dim=1).numpy())

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sources side by side, ``[N, D]``; one without a code yet is at its mean."""
        decoded, start, column = [], 0, 0
        for part, columns in zip(self.parts, self.columns, strict=True):
            own = codes[:, start : start + len(part.code_sizes)]
            width = columns.stop - columns.start
            mean = self.means[column : column + width].expand(len(codes), -1)
            decoded.append(part.decode(own) if own.shape[1] else mean)
            start, column = start + len(part.code_sizes), column + width
        return torch.cat(decoded, dim=1)

    def state(self) -> dict[str, Tensor]:
        """Return every source's state by its name, its columns and the means."""
        found = {"means": self.means}
        for name, part, columns in zip(self.config.sources, self.parts, self.columns, strict=True):
            found[f"{name}.columns"] = torch.tensor([columns.start, columns.stop])
            found |= {f"{name}.{key}": tensor for key, tensor in part.state().items()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take it back; ValueError or KeyError if it is of other sources or sizes."""
        self.means, self.columns = state["means"], []
        for name, part in zip(self.config.sources, self.parts, strict=True):
            own = {k[len(name) + 1 :]: t for k, t in state.items() if k.startswith(f"{name}.")}
            self.columns.append(slice(*own.pop("columns").tolist()))
            part.restore(own)


class _Columns:
    """Some columns of rows that may lie in a file."""

    def __init__(self, rows: Rows, columns: slice) -> None:
        self._rows = rows
        self._columns = columns

    def __len__(self) -> int:
        """Return N."""
        return len(self._rows)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Return ``[n, width]``."""
        return self._rows[rows][:, self._columns]
