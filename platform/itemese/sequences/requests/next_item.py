"""Next items: each held-out event is to be found in the whole catalogue."""

from itemese.core.requests import Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import Asked, target_events


def build(block: Histories, split: Split, asked: Asked) -> Requests:
    """Return a request for each event of `split`; the item at its place is the target."""
    return target_events(block, split, asked.config.targets)[0]
