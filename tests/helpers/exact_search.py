"""What beams approximate: every item of the catalogue, scored exactly."""

import torch
from torch import Tensor

from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.code_model import CodeModel
from itemese.decoding.decoding import item_scores


def exact_scores(model: CodeModel, item_index: Tensor) -> Tensor:
    """Return the log-probability of every item, ``[B, I] float32``."""
    items = torch.arange(model.tree_on(item_index.device).num_items, device=item_index.device)
    return item_scores(model, item_index, items.expand(len(item_index), -1))


def exact_search(
    model: CodeModel, item_index: Tensor, k: int, *, candidates: Candidates
) -> Ranking:
    """Return the K most probable items; among equal ones those whose codes come first."""
    scores = exact_scores(model, item_index)
    tree = model.tree_on(item_index.device)
    ranking = Ranking.from_scores(candidates.mask(scores)[:, tree.items_of], k, Candidates())
    items = tree.items_of[ranking.item_index.clamp(min=0)]
    return Ranking(items.where(ranking.item_index >= 0, -1), ranking.score)
