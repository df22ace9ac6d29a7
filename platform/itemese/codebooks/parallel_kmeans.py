"""Parallel codes by principal components: every code is predicted at once, none before another.

Components are dealt out to the codes like cards, back and forth, so that each code carries about
the same share of the variance. In a plain cut the first code would hold nearly all of it.

Shapes: N vectors, D vector size, C number of codebooks, S size of a part.
"""

import torch
from torch import Tensor

from itemese.codebooks.subspaces import SubspaceQuantizer, principal_directions


class ParallelKMeans(SubspaceQuantizer):
    """Principal components, dealt out to C codes, k-means for each."""

    def find_rotation(self, vectors: Tensor, *, seed: int) -> Tensor:
        """Return the principal directions in the order of their codes; see `SubspaceQuantizer`."""
        directions = principal_directions(vectors)
        number, dim = self.config.num_codebooks, len(directions)
        rounds = -(-dim // number)
        rotation = torch.zeros(number, rounds, dim)
        for component, direction in enumerate(directions):
            turn, place = divmod(component, number)
            rotation[place if turn % 2 == 0 else number - 1 - place, turn] = direction
        return rotation.view(number * rounds, dim)
