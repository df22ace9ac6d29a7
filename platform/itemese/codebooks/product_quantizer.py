"""Product quantizer with a fitted rotation (OPQ).

T. Ge et al., "Optimized Product Quantization", CVPR 2013: rotation and codebooks are fitted in
turn so that parts are coded with the least error. The rotation is faiss's.

Shapes: N vectors, D vector size, C number of codebooks, K codebook size, S size of a part.
"""

import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.codebooks.subspaces import SubspaceQuantizer
from itemese.core.randomness import derive_seed

_MOST_BITS = 8
"""faiss fits the rotation with codebooks of a power of two, here at most 256 codes."""

_ROUNDS = 20
"""Rounds of rotation and codebooks in turn, and of k-means in each of them 4."""

_SAMPLE_SHARE = 64
"""The rotation is fitted on at most so many vectors a code."""


def load_faiss() -> Any:
    """Import faiss without its log of which processor features it looked for."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    import faiss

    return faiss


class ProductQuantizer(SubspaceQuantizer):
    """OPQ's rotation, then k-means of each of C parts."""

    def find_rotation(self, vectors: Tensor, *, seed: int) -> Tensor:
        """Return OPQ's rotation ``[C * S, D]``; see `SubspaceQuantizer`.

        Vectors are padded with zeros until C parts of one size fit.
        """
        faiss = load_faiss()
        number, dim = self.config.num_codebooks, vectors.shape[1]
        width = -(-dim // number) * number
        bits = min(_MOST_BITS, self.config.codebook_size.bit_length() - 1)
        sample = vectors[_drawn(len(vectors), _SAMPLE_SHARE * 2**bits, seed=seed)]
        quantizer = faiss.ProductQuantizer(width, number, bits)
        rotation = faiss.OPQMatrix(width, number)
        rotation.pq = quantizer
        rotation.niter, rotation.niter_pq, rotation.niter_pq_0 = _ROUNDS, 4, 10
        rotation.max_train_points = len(sample)
        rotation.train(np.ascontiguousarray(F.pad(sample, (0, width - dim)).numpy()))
        matrix = faiss.vector_to_array(rotation.A).reshape(width, width)
        return torch.from_numpy(matrix.copy())[:, :dim]


def _drawn(count: int, most: int, *, seed: int) -> Tensor:
    """Return at most `most` of `count` row numbers, drawn without replacement."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "codebooks/opq"))
    return torch.randperm(count, generator=generator)[:most]
