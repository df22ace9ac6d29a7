"""Offered items: which of a few items comes next? The same items are offered to every method."""

from dataclasses import replace

import numpy as np

from itemese.core.errors import DataError
from itemese.core.requests import Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import (
    Asked,
    draw_generator,
    draw_unseen,
    seen_before,
    target_events,
)


def build(block: Histories, split: Split, asked: Asked) -> Requests:
    """Return a request for each event of `split`: its item among drawn ones, in drawn order.

    The others are drawn uniformly, none from the user's history. A draw depends on the user's id,
    the seed and the events before alone.

    Raises:
        DataError: The catalogue is too small for some history.
    """
    requests, events = target_events(block, split, asked.config.targets)
    target, size = block.item_index[events], asked.config.num_drawn
    candidates = np.empty((len(requests), 1 + size), dtype=np.int32)
    for row, seen in enumerate(seen_before(block, requests)):
        user, place = requests.user_id[row], int(requests.place[row])
        generator = draw_generator(asked, "choice", user, place)
        others = draw_unseen(generator, np.append(seen, target[row]), asked.num_items, size)
        if len(others) < size:
            message = (
                f"`evaluation.num_offered` must leave {size} unseen items for each user; got "
                f"{len(others)} for user {user!r}. Lower it."
            )
            raise DataError(message)
        candidates[row] = generator.permutation(np.append(others, target[row]))
    labels = candidates == target[:, None]
    return replace(requests, candidates=candidates, labels=labels)
