"""Exact scores of given items: each is read by a beam of its own.

Shapes: B batch, C items scored for a prompt.
"""

import torch
from torch import Tensor

from itemese.decoding.code_model import Beams, CodeModel

MAX_ITEMS = 256
"""Items read together: their beams are masked from each other, so the work grows with the square of
their number, while few of them multiply thin matrices."""


@torch.no_grad()
def score_items(beams: Beams, model: CodeModel, items: Tensor) -> Tensor:
    """Return the log-probability of given items after each prompt.

    Args:
        beams: The prompts; has no beams afterwards.
        model: Codes and catalogue.
        items: ``[B, C]`` int64; those below 0 get any number.

    Returns:
        ``[B, C]`` float32.
    """
    scores = []
    for part in torch.split(items.clamp(min=0), MAX_ITEMS, dim=1):
        scores.append(_score_part(beams, model, model.codes_of(part)))
        beams.restart()
    return torch.cat(scores, dim=1)


def _score_part(beams: Beams, model: CodeModel, codes: Tensor) -> Tensor:
    """Return ``[B, C]``: scores of items that are read together, each by a beam of its own."""
    batch, count, _ = codes.shape
    tree = model.tree_on(codes.device)
    states = beams.state[:, None].expand(-1, count, -1)
    node = codes.new_zeros(batch, count)
    own_beam = torch.arange(count, device=codes.device)
    score = states.new_zeros(batch, count, dtype=torch.float32)
    for level in range(tree.num_predicted):
        logits = model.code_logits(states, level).float()
        own = codes[:, :, level, None]
        rivals = logits
        if model.code_normalisation == "legal":
            child, code = tree.children(node, level)
            rivals = logits.gather(2, code).masked_fill_(child < 0, float("-inf"))
            place = ((code == own) & (child >= 0)).int().argmax(dim=2, keepdim=True)
            node = child.gather(2, place)[..., 0]
        score = score + logits.gather(2, own)[..., 0] - rivals.logsumexp(dim=2)
        if level + 1 < tree.num_predicted:
            ancestors = own_beam[None, :, None].expand(batch, -1, level)
            states = beams.grow(model.code_vectors(own[..., 0], level), ancestors)
    return score
