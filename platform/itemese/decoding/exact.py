"""Exact scores of given items: each is read by a beam of its own.

Shapes: B batch, C items scored for a prompt.
"""

from collections.abc import Sequence

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
        own = codes[:, :, level, None]
        found, node = _own_log_prob(model, model.code_logits(states, level), node, own, level)
        score = score + found
        if level + 1 < tree.num_predicted:
            ancestors = own_beam[None, :, None].expand(batch, -1, level)
            states = beams.grow(model.code_vectors(own[..., 0], level), ancestors)
    return score


def target_log_probs(model: CodeModel, logits: Sequence[Tensor], codes: Tensor) -> Tensor:
    """Return the log-probability of items whose codes were predicted from the true codes before.

    Args:
        model: Codes and catalogue.
        logits: ``[N, K_l]`` of each predicted level.
        codes: ``[N, P]`` int64.

    Returns:
        ``[N]`` float32, with a gradient; normalised as `score_items` does.
    """
    node = codes.new_zeros(len(codes), 1)
    score = torch.zeros(len(codes), 1, device=codes.device)
    for level, given in enumerate(logits):
        found, node = _own_log_prob(model, given[:, None], node, codes[:, None, level, None], level)
        score = score + found
    return score[:, 0]


def _own_log_prob(
    model: CodeModel, logits: Tensor, node: Tensor, own: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of a next code and the node that it leads to, ``[B, C]`` each.

    Args:
        model: Codes and catalogue.
        logits: ``[B, C, K_l]``, or ``[B, C', K_l]`` that expands to it.
        node: ``[B, C]`` where each item's codes so far lead.
        own: ``[B, C, 1]`` the next code.
        level: Its level.
    """
    logits = rivals = logits.float()
    if model.code_normalisation == "legal":
        child, code = model.tree_on(own.device).children(node, level)
        rivals = logits.gather(2, code).masked_fill(child < 0, float("-inf"))
        place = ((code == own) & (child >= 0)).int().argmax(dim=2, keepdim=True)
        node = child.gather(2, place)[..., 0]
    return logits.gather(2, own)[..., 0] - rivals.logsumexp(dim=2), node
