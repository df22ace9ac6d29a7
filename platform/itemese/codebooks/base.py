"""What a quantizer is: vectors in, a tuple of codes out, and back to vectors.

Shapes: N vectors, D vector size, C number of codebooks, K codebook size.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.artifacts import Folder
from itemese.codebooks.config import CodebooksConfig
from itemese.errors import ArtifactError, DataError
from itemese.schema import Codes

CODEBOOK_FILE = "codebook.safetensors"


class Quantizer(ABC):
    """Base of every quantizer; its fitted state is a dict of tensors and nothing else.

    Attributes:
        layout: How the codes of an item relate: ``residual``, ``tree`` or ``parallel``.
    """

    layout: ClassVar[str]

    def __init__(self, config: CodebooksConfig) -> None:
        self.config = config

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """C sizes."""
        return (self.config.codebook_size,) * self.config.num_codebooks

    def prepare(self, vectors: Tensor) -> Tensor:
        """Return the vectors ``[N, D]`` that codes stand for: scaled to length 1 if asked."""
        vectors = vectors.float()
        return F.normalize(vectors, dim=1) if self.config.normalize else vectors

    @abstractmethod
    def fit(self, vectors: Tensor, *, seed: int) -> None:
        """Learn the codebooks from ``vectors [N, D] float32``; equal inputs give equal codebooks.

        Raises:
            DataError: Vectors that are not finite, are all equal, or are fewer than K.
        """

    @abstractmethod
    def encode(self, vectors: Tensor) -> Tensor:
        """Return the codes ``[N, C] int64`` of ``vectors [N, D]``, each row by itself."""

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

    def codes(self, vectors: Tensor) -> Codes:
        """Encode a whole catalogue, row = item_index, and count its collisions."""
        codes = self.encode(vectors).numpy().astype(np.int32)
        return Codes(codes, self.code_sizes, self.layout, collision_rate(codes))

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
            "Choose `embeddings.columns` whose text tells the items apart."
        )
        raise DataError(message)
