"""Ask a method to choose among what users are offered, in batches.

Shapes: N users, B of them in a batch, C offered items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.ranking import Answers
from itemese.core.schema import Request
from itemese.evaluation.offers import Offers
from itemese.evaluation.ranking import judging
from itemese.evaluation.rows import Rows

BATCH_SIZE = 32
"""Users asked at once: the longest prompts of all decide the memory."""


class Chooser(Protocol):
    """The two verbs of a method that choosing needs."""

    def collate(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Turn rows into a batch."""

    def choose(
        self,
        module: nn.Module,
        batch: dict[str, Tensor],
        offered: Tensor,
        modes: Sequence[str] | None = None,
    ) -> Mapping[str, Answers]:
        """Return an answer for each way of choosing."""


@dataclass(frozen=True)
class Chosen:
    """What one way of choosing chose.

    Attributes:
        item_index [N] int64: -1 where the answer was none of the offered items.
        text: N answers word for word, None where the way does not write.
    """

    item_index: np.ndarray
    text: list[str | None]


def ask(
    method: Chooser,
    module: nn.Module,
    rows: Rows,
    offers: Offers,
    *,
    device: torch.device,
    ways: Sequence[str] | None = None,
) -> dict[str, Chosen]:
    """Let every user's next item be chosen, users with histories of similar length together.

    Args:
        method: Chooses.
        module: On `device`.
        rows: N users.
        offers: What they are offered, in the same order.
        device: Where batches go.
        ways: Ways of choosing wanted; None asks for all.

    Returns:
        The choices of each way, in the order of `rows`.
    """
    assert rows.user_id == offers.user_id, "offers and histories must name the same users"
    order = np.argsort([len(request.history) for request in rows.requests], kind="stable")
    chosen: dict[str, Chosen] = {}
    for start in range(0, len(order), BATCH_SIZE):
        places = order[start : start + BATCH_SIZE]
        requests = [rows.requests[place] for place in places]
        offered = torch.from_numpy(offers.offered[places]).to(device)
        with judging(module):
            batch = {name: t.to(device) for name, t in method.collate(requests).items()}
            found = method.choose(module, batch, offered, ways)
        for way, answers in found.items():
            nothing = Chosen(np.full(len(order), -1, dtype=np.int64), [None] * len(order))
            into = chosen.setdefault(way, nothing)
            into.item_index[places] = answers.item_index.cpu().numpy()
            for place, text in zip(places, answers.text, strict=False):
                into.text[place] = text
    return chosen
