"""What a quantizer is: vectors in, a tuple of codes out, and back to vectors.

Shapes: N vectors, D vector size, C number of codebooks, K codebook size.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.rows import Rows, blocks
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError
from itemese.core.randomness import numpy_generator
from itemese.core.vectors import Codes

CODEBOOK_FILE = "codebook.safetensors"

_DECODED_AT_ONCE = 65_536
"""Vectors that `Quantizer.code_distances` decodes at once."""


class Quantizer(ABC):
    """Base of every quantizer; its fitted state is a dict of tensors and nothing else.

    Attributes:
        layout: How the codes of an item relate; see `vectors.Codes`.
        id_rank [N] int64: place of each vector's item id among the sorted ids, which codes that
            number items ``by_id`` follow; None where rows are in that order. Set before `fit`.
    """

    layout: ClassVar[str]

    def __init__(self, config: CodebooksConfig) -> None:
        self.config = config
        self.id_rank: Tensor | None = None

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """C sizes."""
        return (self.config.codebook_size,) * self.config.num_codebooks

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return the vectors ``[N, D]`` that codes stand for: scaled to length 1 if asked."""
        vectors = vectors.float()
        return F.normalize(vectors, dim=1) if self.config.normalize else vectors

    @abstractmethod
    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Learn the codebooks from ``vectors [N, D] float32``; equal inputs give equal codebooks.

        Raises:
            DataError: Vectors that are not finite, are all equal, or are fewer than K.
        """

    @abstractmethod
    def encode(self, vectors: Tensor) -> Tensor:
        """Return the codes ``[N, C] int64`` of ``vectors [N, D]``, each row by itself.

        So blocks of a catalogue may be encoded anywhere, in any order.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors ``[N, D]`` that ``codes [N, c] int64`` stand for.

        Fewer than C codes decode to the coarser vector of that prefix.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return every fitted tensor."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""

    def codes(self, vectors: Rows, encode_all: "EncodeAll | None" = None) -> Codes:
        """Code a whole catalogue, row = item_index, and count its collisions.

        Args:
            vectors: ``[I, D]``.
            encode_all: Encodes them all; None does it here, block by block.

        A quantizer that assigns all items together, for example evenly, does so here:
        then the codes of an item may differ from what `encode` gives it alone.
        """
        return self._counted((encode_all or encode_here)(self, vectors))

    def _counted(self, codes: np.ndarray) -> Codes:
        """Return ``codes [N, C]`` with what a reader must know of them."""
        codes = codes.astype(np.int32)
        return Codes(codes, self.code_sizes, self.layout, collision_rate(codes))

    def code_distances(self, vectors: Tensor, prefixes: Tensor) -> Tensor:
        """Measure how well each next code would serve a vector whose first codes are given.

        Args:
            vectors: ``[N, D]``, before preparation.
            prefixes: ``[N, c]`` int64 with c < C.

        Returns:
            ``[N, K] float32``: squared distance of the vector to what the prefix and the code
            decode to, K the size of the codebook at position c.
        """
        targets = self.prepare(vectors)
        size = self.code_sizes[prefixes.shape[1]]
        found = torch.empty(len(targets), size)
        for rows, part in blocks(targets, max(1, _DECODED_AT_ONCE // size)):
            prefix = prefixes[rows].repeat_interleave(size, dim=0)
            last = torch.arange(size).repeat(len(part))
            decoded = self.decode(torch.cat([prefix, last[:, None]], dim=1))
            apart = decoded.view(len(part), size, -1) - part[:, None]
            found[rows] = apart.square().sum(dim=2)
        return found

    def save(self, folder: Folder) -> None:
        """Write the state as ``codebook.safetensors``."""
        folder.write_tensors(CODEBOOK_FILE, self.state())

    @classmethod
    def load(cls, folder: Folder, config: CodebooksConfig) -> Self:
        """Read what `save` wrote with the same config.

        Raises:
            ArtifactError: The file is missing, torn, or of another quantizer or size.
        """
        quantizer = cls(config)
        state = folder.read_tensors(CODEBOOK_FILE)
        try:
            quantizer.restore(state)
        except (KeyError, ValueError) as error:
            shapes = {name: list(tensor.shape) for name, tensor in state.items()}
            message = (
                f"`{folder.uri}/{CODEBOOK_FILE}` must be a {config.kind} of code sizes "
                f"{quantizer.code_sizes}; got {shapes} ({error}). Run `prepare` with this recipe."
            )
            raise ArtifactError(message) from None
        return quantizer


EncodeAll = Callable[[Quantizer, Rows], np.ndarray]
"""Returns the codes ``[N, C]`` integers of ``vectors [N, D]``, each row by itself."""


def encode_here(quantizer: Quantizer, vectors: Rows) -> np.ndarray:
    """Encode block by block in this process."""
    return np.concatenate([quantizer.encode(block).numpy() for _, block in blocks(vectors)])


def group_sizes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal rows.

    Args:
        codes: ``[I, C]`` integers.

    Returns:
        ``group [I]``: the number of each row's group; ``size [groups]``: rows of each group.
    """
    _, group, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return group.reshape(-1), size


def collision_rate(codes: np.ndarray) -> float:
    """Return the share of items (rows of ``codes [I, C]``) whose codes another item has too."""
    group, size = group_sizes(codes)
    return float((size[group] > 1).mean())


def fitting_sample(vectors: Rows, config: CodebooksConfig, *, seed: int) -> Tensor:
    """Return the vectors to fit on: all, or ``fit_sample`` of them drawn without replacement."""
    sample = max(config.fit_sample, config.codebook_size)
    if len(vectors) <= sample:
        return vectors[:]
    rng = numpy_generator(seed, "codebooks/sample")
    return vectors[torch.from_numpy(rng.choice(len(vectors), sample, replace=False))]


def require_usable(vectors: Tensor, codebook_size: int) -> None:
    """Raise DataError unless a codebook of that size can be fitted on ``vectors [N, D]``."""
    if vectors.dim() != 2 or not vectors.shape[1]:
        message = f"`embeddings.vectors` must be [num_items, dim]; got {list(vectors.shape)}."
        raise DataError(message)
    if len(vectors) < codebook_size:
        remedy = "Set a smaller one." if len(vectors) > 1 else "Semantic IDs need 2 items or more."
        message = (
            f"`codebooks.codebook_size` must be at most the number of items, {len(vectors)}; got "
            f"{codebook_size}. {remedy}"
        )
        raise DataError(message)
    highest, lowest = vectors.amax(dim=0), vectors.amin(dim=0)  # NaN and infinity show in both
    if not torch.isfinite(highest - lowest).all():
        bad = (~torch.isfinite(vectors)).any(dim=1)
        message = (
            f"`embeddings.vectors` must be finite; got NaN or infinity in {int(bad.sum())} rows, "
            f"first {int(bad.long().argmax())}. Embed the items again."
        )
        raise DataError(message)
    if torch.equal(highest, lowest):
        message = (
            f"`embeddings.vectors` must differ between items; got {len(vectors)} equal ones. "
            "Choose `embeddings.columns` whose text differs between items."
        )
        raise DataError(message)
