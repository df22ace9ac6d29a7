"""What items are described by in a word or two, and requests that are made of it by a template.

No language model writes here: a templated intention says what an item is, never why a user would
want it. Texts of a language model are better and cost a pass over the catalogue (`knowledge`).

Shapes: I items, J facets, K facets of an item.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from itemese.core.schema import Catalog
from itemese.prompts.item_words import cells_of, item_words
from itemese.prompts.titles import clean_title

MOST = 3
"""Facets read of an item, K."""


def item_facets(
    catalog: Catalog,
    columns: Sequence[str],
    *,
    phrases: bool = False,
    setting: str = "method.facets",
) -> tuple[list[str], Tensor]:
    """Return the facets of a catalogue and which each item has.

    A facet is an element of a list or a whole cell; of a path such as ``Beauty > Make-up > Face``
    it is the last step. Columns that the items do not have are passed over. An item without any
    has its title for a facet, so no item is without.

    Args:
        catalog: I items.
        columns: Read in this order.
        phrases: Whether a text is parted at its commas, as where a language model wrote it.
        setting: The recipe's path that names the columns, for the error.

    Returns:
        J names, and their numbers ``[I, K] int64``, -1 for none.

    Raises:
        ConfigError: The items have none of the columns.
    """
    cells = cells_of(catalog, columns, setting)
    number: dict[str, int] = {}
    rows = torch.full((catalog.num_items, MOST), -1)
    pairs = zip(cells, catalog.titles, catalog.item_ids, strict=True)
    for item, (row, title, item_id) in enumerate(pairs):
        parted = [_phrases(cell) if phrases and isinstance(cell, str) else cell for cell in row]
        words = [word for cell in parted for word in _words(cell)]
        words = list(dict.fromkeys(words)) or [clean_title(title, item_id)]
        for place, word in enumerate(words[:MOST]):
            rows[item, place] = number.setdefault(word, len(number))
    return list(number), rows


def templated_intentions(facets: Sequence[str], facets_of: Tensor) -> list[str]:
    """Return I requests, each naming the item's facets.

    >>> templated_intentions(["lipstick", "gift"], torch.tensor([[0, 1, -1], [1, -1, -1]]))
    ['looking for lipstick, gift', 'looking for gift']
    """
    rows = facets_of.tolist()
    return [f"looking for {', '.join(facets[n] for n in row if n >= 0)}" for row in rows]


def intention_lines(catalog: Catalog, facets: Sequence[str], column: str | None) -> list[str]:
    """Return what a user who wants each item asks for: of a column, or a template over facets.

    Raises:
        ConfigError: The items have not the column, or none of `facets`.
    """
    if column is not None:
        return item_words(catalog, [column], "method.intentions")
    return templated_intentions(*item_facets(catalog, facets))


def preference_facets(
    catalog: Catalog, facets: Sequence[str], column: str | None
) -> tuple[list[str], Tensor]:
    """Return what items are liked for, as `item_facets` does: phrases of a column, or facets.

    Raises:
        ConfigError: The items have not the column, or none of `facets`.
    """
    if column is not None:
        return item_facets(catalog, [column], phrases=True, setting="method.preferences")
    return item_facets(catalog, facets)


def _phrases(text: str) -> list[str]:
    """Return the phrases of what a model wrote, without the full stops it may end them with."""
    return [phrase.strip(" .") for phrase in text.split(",")]


def _words(cell: Any) -> list[str]:
    """Return the facets of a cell; null and NaN have none."""
    if cell is None or cell != cell:
        return []
    if isinstance(cell, list):
        return [word for part in cell for word in _words(part)]
    word = clean_title(str(cell).rpartition(" > ")[2], "")
    return [] if word == "item " else [word]
