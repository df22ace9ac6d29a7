"""Beams over all codes, legal or not: what a trie is there to prevent, for the ablation.

Shapes: B batch, W beams, L code length, K_l codes of level l, I items, K list length.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.code_model import Beams, CodeModel
from itemese.decoding.decoding import as_stored


@dataclass
class InvalidBeams:
    """How many unconstrained beams ended as no item since they were first counted.

    Attributes:
        ended: Beams that reached their last code.
        invalid: Those of them whose codes are no item's.
    """

    ended: int = 0
    invalid: int = 0

    @property
    def share(self) -> float:
        """Share of ended beams that were invalid; 0 if none ended."""
        return self.invalid / max(1, self.ended)


def free_beam_search(
    model: CodeModel,
    item_index: Tensor,
    k: int,
    *,
    beam_width: int,
    candidates: Candidates,
    counts: InvalidBeams,
) -> Ranking:
    """Return what `free_search` finds after histories.

    Args:
        model: In evaluation mode.
        item_index: ``[B, T]`` int64, right-padded with -1, each row with at least one item.
        k: Items to return.
        beam_width: Tuples kept at each level.
        candidates: What may be returned.
        counts: Counts this search too.

    Raises:
        ConfigError: Items share the codes that the model predicts.
    """
    if model.tree.num_predicted < model.tree.code_length:
        message = (
            "`codebooks.disambiguation` must give each item codes of its own where beams are not "
            "constrained; got none. Set it to suffix or reassign."
        )
        raise ConfigError(message)
    with as_stored(item_index.device):
        extra_tokens = max(beam_width, k) * model.code_length
        prompt = model.read(item_index, extra_tokens=extra_tokens)
        ranking = free_search(
            prompt, model, k=k, beam_width=beam_width, candidates=candidates, counts=counts
        )
    return Ranking(ranking.item_index.clone(), ranking.score.clone())


@torch.no_grad()
def free_search(
    beams: Beams,
    model: CodeModel,
    *,
    k: int,
    beam_width: int,
    candidates: Candidates,
    counts: InvalidBeams,
) -> Ranking:
    """Return the items among the W most probable tuples of codes after each prompt.

    A score is a sum of log-probabilities over all codes of each level. Tuples that are no item's,
    and items that `candidates` hides, are dropped at the end, so lists may be short.

    Args:
        beams: The prompts.
        model: Its codes, and those of the catalogue.
        k: Items to return.
        beam_width: Tuples kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.
        counts: Counts this search too.

    Returns:
        Ranking of ``[B, K]``; -1 and -inf in places that no legal beam reached.
    """
    states = beams.state[:, None]
    batch, codes = len(states), model.item_tokens - model.item_tokens.new_tensor(model.starts)
    score = torch.zeros(batch, 1, device=states.device)
    chosen = codes.new_zeros(batch, 1, 0)
    ancestors = codes.new_zeros(batch, 1, 0)
    code_sizes = model.code_sizes
    for level, size in enumerate(code_sizes):
        log_prob = F.log_softmax(model.code_logits(states, level).float(), dim=2)
        total = (score[..., None] + log_prob).flatten(1)
        score, picked = total.topk(min(max(beam_width, k), total.shape[1]), dim=1)
        parent, code = picked // size, picked % size
        rows = parent[..., None].expand(-1, -1, level)
        chosen = torch.cat([chosen.gather(1, rows), code[..., None]], dim=2)
        if level + 1 < len(code_sizes):
            kept = parent[..., None].expand(-1, -1, ancestors.shape[2])
            ancestors = ancestors.gather(1, kept)
            if level > 0:
                ancestors = torch.cat([ancestors, parent[..., None]], dim=2)
            states = beams.grow(model.code_vectors(code, level), ancestors)
    items = _items_of(chosen, codes, code_sizes)
    counts.ended += items.numel()
    counts.invalid += int((items < 0).sum())
    scores = score.new_full((batch, len(codes) + 1), float("-inf"))
    scores.scatter_(1, items.where(items >= 0, len(codes)), score)
    return Ranking.from_scores(scores[:, :-1], k, candidates)


def _items_of(chosen: Tensor, codes: Tensor, code_sizes: tuple[int, ...]) -> Tensor:
    """Return whose codes ``chosen [B, W, L]`` are, ``[B, W] int64``; -1 for those of no item."""
    own = codes.new_zeros(len(codes))
    asked = chosen.new_zeros(chosen.shape[:2])
    for level, size in enumerate(code_sizes):  # prefixes are numbered level by level: no overflow
        known, own = torch.unique(own * size + codes[:, level], return_inverse=True)
        wanted = asked * size + chosen[..., level]
        place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        asked = place.where((known[place] == wanted) & (asked >= 0), -1)
    item = codes.new_zeros(len(codes))
    item[own] = torch.arange(len(codes), device=codes.device)
    return item[asked.clamp(min=0)].where(asked >= 0, -1)
