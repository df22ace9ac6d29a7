"""The words of an item, as a language model reads them: its title and whatever columns are named.

Shapes: I items, N tokens of a text.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.core.schema import PADDING, Catalog
from itemese.prompts.titles import clean_title
from itemese.prompts.tokenizer import TextTokenizer


def item_words(
    catalog: Catalog, columns: Sequence[str], setting: str = "method.columns"
) -> list[str]:
    """Return one line of text for each item; `setting` names the columns in an error.

    Columns are joined by ``". "`` in the order given, elements of a list by ``", "``; columns that
    the items do not have are passed over. An item without a word in any of them is called by its
    title, and without a title by its id: no text is empty.

    Raises:
        ConfigError: The items have none of the columns.
    """
    cells = cells_of(catalog, columns, setting)
    lines = []
    for row, title, item_id in zip(cells, catalog.titles, catalog.item_ids, strict=True):
        parts = (clean_title(_as_text(cell), "") for cell in row)
        line = ". ".join(part for part in parts if part != "item ")
        lines.append(line or clean_title(title, item_id))
    return lines


def item_titles(catalog: Catalog, otherwise: Sequence[str]) -> list[str]:
    """Return the title of each item; one without takes its line of `otherwise`."""
    if "title" not in catalog.table.column_names:
        return list(otherwise)
    titles = (clean_title(_as_text(cell), "") for cell in catalog.table["title"].to_pylist())
    return [
        line if title == "item " else title for title, line in zip(titles, otherwise, strict=True)
    ]


def cells_of(catalog: Catalog, columns: Sequence[str], setting: str) -> Iterator[tuple[Any, ...]]:
    """Return the cells of each item in those of the columns that the items have.

    Args:
        catalog: I items.
        columns: Names; absent ones are passed over.
        setting: The recipe's path that names them, for the error.

    Raises:
        ConfigError: The items have none of the columns.
    """
    names = catalog.table.column_names
    found = [name for name in columns if name in names]
    if not found:
        message = (
            f"`{setting}` must name a column of the items; got {list(columns)}. "
            f"{nearest(columns[0], [name for name in names if name != 'item_id'])}"
        )
        raise ConfigError(message)
    return zip(*(catalog.table[name].to_pylist() for name in found), strict=True)


def tokenised(texts: Sequence[str], tokenizer: TextTokenizer, longest: int) -> tuple[Tensor, int]:
    """Tokenise texts for a window of fixed size.

    Each text ends in the tokenizer's end token; one that does not fit loses its last words, the
    end token never.

    Args:
        texts: I texts.
        tokenizer: Turns them into tokens.
        longest: N, the end token included.

    Returns:
        ``[I, N] int64``, right-padded with -1, and how many texts were cut.
    """
    words = [tokenizer.encode(text) for text in texts]
    cut = sum(len(row) >= longest for row in words)
    tokens = torch.full((len(words), longest), PADDING)
    for place, row in enumerate(words):
        kept = [*row[: longest - 1], tokenizer.end]
        tokens[place, : len(kept)] = torch.tensor(kept)
    return tokens, cut


def _as_text(value: Any) -> str:
    """Return a cell as text; null and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return ", ".join(text for text in map(_as_text, value) if text)
    return str(value)
