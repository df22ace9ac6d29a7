"""Clicks: was this item clicked after this history?

Where events have labels (``sequences.clicked_at``) each held-out event is one candidate with its
label. Where they have none every event counts as a click, and beside it stand drawn non-clicks.
"""

from dataclasses import replace

import numpy as np

from itemese.core.requests import NO_ITEM, Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import (
    Asked,
    draw_generator,
    draw_unseen,
    seen_before,
    target_events,
)


def build(block: Histories, split: Split, asked: Asked) -> Requests:
    """Return a request for each event of `split`: the event's item first, then drawn ones.

    Non-clicks are drawn uniformly without replacement from what the user had not up to and with
    the event. A draw depends on the user's id, the seed and these events alone.
    """
    requests, events = target_events(block, split, asked.config.targets)
    target = block.item_index[events]
    if block.clicked is not None:
        labels = block.clicked[events][:, None]
        return replace(requests, candidates=target[:, None], labels=labels)
    shape = (len(requests), 1 + asked.config.num_drawn)
    candidates = np.full(shape, NO_ITEM, dtype=np.int32)
    candidates[:, 0] = target
    for row, seen in enumerate(seen_before(block, requests)):
        user, place = requests.user_id[row], int(requests.place[row])
        generator = draw_generator(asked, "click", user, place)
        taken = np.append(seen, target[row])
        drawn = draw_unseen(generator, taken, asked.num_items, asked.config.num_drawn)
        candidates[row, 1 : 1 + len(drawn)] = drawn
    labels = np.zeros(shape, dtype=bool)
    labels[:, 0] = True
    return replace(requests, candidates=candidates, labels=labels)
