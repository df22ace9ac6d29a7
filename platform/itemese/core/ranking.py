"""What a method returns: rankings and scores, and the candidates it may choose from.

Shape letters: B batch, I items, K list length, C items scored for a row, X hidden items of a row.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from itemese.core.errors import ConfigError


@dataclass(frozen=True)
class Candidates:
    """Which items may be recommended.

    Attributes:
        exclude [B, X] int64: item_index never to return for that row, padded with -1; or None.
        allowed [I] bool: items in stock, of a category, ...; None allows all.
    """

    exclude: torch.Tensor | None = None
    allowed: torch.Tensor | None = None

    def permit(self, items: torch.Tensor) -> torch.Tensor:
        """Return which of ``items [B, C]`` may be returned, ``[B, C] bool``; -1 may not."""
        found = items >= 0
        if self.allowed is not None:
            found = found & self.allowed.to(items.device)[items.clamp(min=0)]
        if self.exclude is not None:
            exclude = self.exclude.to(items.device)
            found = found & ~(items[:, :, None] == exclude[:, None, :]).any(dim=2)
        return found

    def mask(self, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores [B, I]`` with every item that may not be returned at -inf."""
        if self.allowed is not None:
            scores = scores.masked_fill(~self.allowed.to(scores.device), float("-inf"))
        if self.exclude is not None:
            exclude = self.exclude.to(scores.device)
            hidden = torch.zeros_like(scores, dtype=torch.bool)
            hidden = torch.cat([hidden, hidden[:, :1]], dim=1)  # a spare column takes the padding
            hidden.scatter_(1, exclude.where(exclude >= 0, scores.shape[1]), True)
            scores = scores.masked_fill(hidden[:, :-1], float("-inf"))
        return scores


@dataclass(frozen=True)
class Ranking:
    """Recommended items of B users.

    Attributes:
        item_index [B, K] int64: best first; -1 where fewer than K items may be returned.
        score [B, K] float32: falling; -inf where item_index is -1.
    """

    item_index: torch.Tensor
    score: torch.Tensor

    @classmethod
    def from_scores(cls, scores: torch.Tensor, k: int, candidates: Candidates) -> "Ranking":
        """Rank every item by ``scores [B, I]``; equal scores go to the lower item_index.

        That is the order of a hash of the item id; see `schema.Catalog`.
        """
        masked = candidates.mask(scores.float()) + 0.0  # -0.0 becomes 0.0, its equal
        kept = min(k, masked.shape[1])
        # One more than asked for shows whether a tie crosses the border of the list.
        best, index = masked.topk(min(kept + 1, masked.shape[1]), dim=1)
        values, index = best[:, :kept], index[:, :kept]
        if (best[:, 1:] == best[:, :-1]).any():
            index = _tied_top(masked, kept)
            values = masked.gather(1, index)
        index = index.masked_fill(values == float("-inf"), -1)
        if kept < k:
            values = torch.nn.functional.pad(values, (0, k - kept), value=float("-inf"))
            index = torch.nn.functional.pad(index, (0, k - kept), value=-1)
        return cls(index, values)


ScoreKind = Literal["log_prob", "prob", "logit", "score"]
"""What scores are: ``log_prob`` the log-probability that an item is the next one, ``prob`` the
probability of a click, ``logit`` its log-odds, ``score`` a number that only orders the items."""


@dataclass(frozen=True)
class Scores:
    """Scores of given items for B histories.

    Attributes:
        values [B, C] float32: -inf where no item was given.
        kind: What the values are.
    """

    values: torch.Tensor
    kind: ScoreKind

    @classmethod
    def of(cls, values: torch.Tensor, item_index: torch.Tensor, kind: ScoreKind) -> "Scores":
        """Take ``values [B, C]`` of ``item_index [B, C]``, whose places at -1 become -inf."""
        return cls(values.float().masked_fill(item_index < 0, float("-inf")), kind)

    def best_of(self, item_index: torch.Tensor) -> "Answers":
        """Return which of ``item_index [B, C]`` scores highest; of equal ones the lowest item.

        Items without a score (-inf or NaN) are never chosen.
        """
        values = self.values.masked_fill(self.values.isnan(), float("-inf"))
        best = (values == values.amax(dim=1, keepdim=True)) & (values > float("-inf"))
        nothing = torch.iinfo(item_index.dtype).max
        chosen = item_index.where(best, nothing).amin(dim=1)
        return Answers(chosen.where(chosen < nothing, -1))

    def click_probabilities(self) -> torch.Tensor:
        """Return the probability ``[B, C] float32`` that each item is clicked; 0 at padding.

        Raises:
            ConfigError: The scores are of no click.
        """
        if self.kind == "prob":
            return self.values.clamp(min=0)
        if self.kind == "logit":
            return self.values.sigmoid()
        message = (
            "`method.task` must be click for probabilities of a click; got scores of kind "
            f"{self.kind}. Set it to click, or name a method that predicts clicks."
        )
        raise ConfigError(message)


def _tied_top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Return the places ``[B, K]`` of the best ``scores [B, I] float32``, lower places first.

    One whole number holds score and place, so that a plain top-k settles every tie; flipping the
    lower bits of negative floats makes their bit patterns rise with them.
    """
    bits = scores.view(torch.int32)
    rising = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    places = torch.arange(scores.shape[1], device=scores.device)
    keys = (rising << 32) | (0x7FFFFFFF - places)
    return 0x7FFFFFFF - (keys.topk(k, dim=1).values & 0xFFFFFFFF)


@dataclass(frozen=True)
class Answers:
    """Which of the offered items a method chose, for B users.

    Attributes:
        item_index [B] int64: the choice; -1 where the answer was none of the offered items.
        text: What was written, word for word, for methods that write.
    """

    item_index: torch.Tensor
    text: tuple[str, ...] = ()

    @classmethod
    def at(
        cls, place: torch.Tensor, offered: torch.Tensor, text: tuple[str, ...] = ()
    ) -> "Answers":
        """Name the item at ``place [B]`` of ``offered [B, C]``; place -1 is no item."""
        chosen = offered.gather(1, place.clamp(min=0)[:, None])[:, 0]
        return cls(chosen.where(place >= 0, -1), text)
