"""Item tokens: one tokenizer entry for each code at each position of a semantic ID.

Shapes: I items, L codes of an item that a model predicts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from itemese.core.vectors import SemanticIds


@dataclass(frozen=True)
class TokenLayout:
    """Which token ids the item tokens have.

    The opening token stands before the first item of a history; the tokens of position 0 follow
    it, then those of position 1, and so on.

    Attributes:
        code_sizes: Codes of each position, L numbers.
        opening: Id of the opening token; what lies below belongs to a text vocabulary.
    """

    code_sizes: tuple[int, ...]
    opening: int = 0

    @classmethod
    def of(cls, semantic_ids: SemanticIds, opening: int = 0) -> "TokenLayout":
        """Return the layout for the codes that a model predicts."""
        return cls(semantic_ids.predicted_sizes, opening)

    @property
    def num_tokens(self) -> int:
        """Item tokens including the opening one."""
        return 1 + sum(self.code_sizes)

    @property
    def starts(self) -> tuple[int, ...]:
        """Token id of code 0 at each position, L numbers."""
        sizes = self.code_sizes
        return tuple(self.opening + 1 + sum(sizes[:position]) for position in range(len(sizes)))

    def item_tokens(self, semantic_ids: SemanticIds) -> Tensor:
        """Return the tokens of every item, ``[I, L] int64``."""
        return torch.from_numpy(semantic_ids.predicted).long() + torch.tensor(self.starts)
