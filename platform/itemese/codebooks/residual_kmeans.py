"""Residual k-means: each codebook is k-means of what the codebooks before it leave over.

The error of the vectors that it was fitted on never rises with a further codebook.

Shapes: N vectors, D vector size, C number of codebooks, K codebook size.
"""

from typing import ClassVar

import torch
from torch import Tensor

from itemese.codebooks.base import Quantizer, fitting_sample, require_usable
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.kmeans import assign, kmeans, residual_codes
from itemese.codebooks.rows import Rows
from itemese.core.randomness import torch_generator


class ResidualKMeans(Quantizer):
    """Codes from coarse to fine; a vector is nearly the sum of its codes' centres.

    Attributes:
        centres [C, K, D] float32: the codebooks; empty before `fit`.
    """

    layout: ClassVar[str] = "residual"

    def __init__(self, config: CodebooksConfig) -> None:
        super().__init__(config)
        self.centres = torch.empty(*self._shape, 0)

    @property
    def _shape(self) -> tuple[int, int]:
        return self.config.num_codebooks, self.config.codebook_size

    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Learn the codebooks one after the other; see `Quantizer.fit`."""
        sample = fitting_sample(vectors, self.config, seed=seed)
        require_usable(sample, self.config.codebook_size)
        rest = self.prepare(sample)
        centres = []
        for level, size in enumerate(self.code_sizes):
            generator = torch_generator(seed, f"codebooks/level/{level}")
            found = kmeans(rest, size, generator=generator, rounds=self.config.max_iterations)
            rest = rest - found[assign(rest, found)[0]]
            centres.append(found)
        self.centres = torch.stack(centres)

    def encode(self, vectors: Tensor) -> Tensor:
        """Return codes ``[N, C] int64``, each the nearest centre to what is left."""
        return residual_codes(self.prepare(vectors), self.centres)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sum of the codes' centres, ``[N, D]``."""
        picked = [self.centres[level][code] for level, code in enumerate(codes.long().T)]
        return torch.stack(picked).sum(dim=0)

    def state(self) -> dict[str, Tensor]:
        """Return the codebooks."""
        return {"centres": self.centres}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the codebooks back; ValueError if they are of another size."""
        centres = state["centres"]
        if len(state) > 1 or centres.dim() != 3 or tuple(centres.shape[:2]) != self._shape:
            message = f"centres of {list(centres.shape)}"
            raise ValueError(message)
        self.centres = centres
