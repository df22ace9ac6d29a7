"""Codes that do not depend on each other: one k-means for each part of a rotated vector.

Shapes: N vectors, D vector size, P components kept, C number of codebooks, K codebook size, S size
of a part.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.codebooks.base import Quantizer, fitting_sample, require_usable
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.kmeans import assign, kmeans
from itemese.codebooks.rows import Rows
from itemese.core.errors import DataError
from itemese.core.randomness import torch_generator


class SubspaceQuantizer(Quantizer):
    """Centre, keep P components, rotate, cut into C parts, and code each by its nearest centre.

    Attributes:
        mean [D] float32: what is taken off first.
        rotation [C * S, D] float32: onto the components kept, P at most C * S; orthonormal columns
            where that is all of them, P = D.
        centres [C, K, S] float32: the codebooks.
    """

    layout: ClassVar[str] = "parallel"

    def __init__(self, config: CodebooksConfig) -> None:
        super().__init__(config)
        self.mean = torch.empty(0)
        self.rotation = torch.empty(0, 0)
        self.centres = torch.empty(*self._shape, 0)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.config.num_codebooks, self.config.codebook_size

    @abstractmethod
    def find_rotation(self, vectors: Tensor, *, seed: int) -> Tensor:
        """Return the rotation ``[C * S, P]`` for ``vectors [N, P]`` of mean 0."""

    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Find components and rotation, then each part's codebook; see `Quantizer.fit`.

        Raises:
            DataError: Also if vectors have fewer numbers than are to be kept, or those kept are
                fewer than the codebooks.
        """
        sample = fitting_sample(vectors, self.config, seed=seed)
        require_usable(sample, self.config.codebook_size)
        dim, kept = sample.shape[1], self.config.principal
        for name, value, most in (
            ("principal", kept or 1, dim),
            ("num_codebooks", self.config.num_codebooks, kept or dim),
        ):
            if value > most:
                message = (
                    f"`codebooks.{name}` must be at most the numbers that a vector has, {most}, "
                    f"for a {self.config.kind}; got {value}. Set a smaller one."
                )
                raise DataError(message)
        points = self.prepare(sample)
        self.mean = points.mean(dim=0)
        centred = points - self.mean
        if kept is None:
            self.rotation = self.find_rotation(centred, seed=seed)
        else:
            directions = principal_directions(centred)[:kept]
            self.rotation = self.find_rotation(centred @ directions.T, seed=seed) @ directions
        centres = []
        for slot, part in enumerate(self._parts(points)):
            generator = torch_generator(seed, f"codebooks/slot/{slot}")
            rounds = self.config.max_iterations
            size = self.config.codebook_size
            centres.append(kmeans(part, size, generator=generator, rounds=rounds))
        self.centres = torch.stack(centres)

    def encode(self, vectors: Tensor) -> Tensor:
        """Return codes ``[N, C] int64``, each the nearest centre to its part."""
        parts = self._parts(self.prepare(vectors))
        pairs = zip(parts, self.centres, strict=True)
        return torch.stack([assign(part, centres)[0] for part, centres in pairs], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors ``[N, D]`` of these codes, the mean in the parts without one."""
        picked = [self.centres[slot][code] for slot, code in enumerate(codes.long().T)]
        known = torch.cat(picked, dim=1)
        rotated = F.pad(known, (0, len(self.rotation) - known.shape[1]))
        return rotated @ self.rotation + self.mean

    def state(self) -> dict[str, Tensor]:
        """Return mean, rotation and codebooks."""
        return {"mean": self.mean, "rotation": self.rotation, "centres": self.centres}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take them back; ValueError if they are of another size."""
        centres = state["centres"]
        if centres.dim() != 3 or tuple(centres.shape[:2]) != self._shape:
            message = f"centres of {list(centres.shape)}"
            raise ValueError(message)
        self.mean, self.rotation, self.centres = state["mean"], state["rotation"], centres

    def _parts(self, points: Tensor) -> tuple[Tensor, ...]:
        """Return the C parts ``[N, S]`` of rotated ``points [N, D]``."""
        rotated = (points - self.mean) @ self.rotation.T
        return tuple(p.contiguous() for p in rotated.chunk(self.config.num_codebooks, dim=1))


def principal_directions(vectors: Tensor) -> Tensor:
    """Return the orthonormal directions ``[D, D]`` of ``vectors [N, D]``, by falling variance.

    A direction's sign is free: the largest entry is made positive.
    """
    spread = vectors.double().T @ vectors.double()
    _, directions = torch.linalg.eigh(spread)
    directions = directions.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    signed: Tensor = directions * torch.where(largest < 0, -1.0, 1.0)
    return signed.float()
