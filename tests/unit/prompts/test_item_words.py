"""Words of items: whole texts, titles alone, facets, and requests made of them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.errors import ConfigError
from itemese.core.schema import Catalog
from itemese.methods.eager_llm.facets import item_facets, templated_intentions
from itemese.prompts.item_words import item_titles, item_words


def catalog() -> Catalog:
    ids = [f"i{n}" for n in range(4)]
    titles = ["red lipstick", "blue polish", None, "&nbsp;"]
    kinds = [["Beauty > Lips", "gift"], ["Beauty > Nails"], None, ["Nails"]]
    counts = np.ones(4, np.int64)
    columns = {"item_id": ids, "title": titles, "categories": kinds, "train_count": counts}
    return Catalog.from_table(pa.table(columns))


def test_a_title_is_the_title_alone_and_without_one_the_whole_text() -> None:
    words = item_words(catalog(), ["title", "categories"])
    assert words[0] == "red lipstick. Beauty > Lips, gift"
    assert words[2:] == ["i2", "Nails"]
    titles = item_titles(catalog(), words)
    assert titles == ["red lipstick", "blue polish", "i2", "Nails"]
    untitled = replace(catalog(), table=catalog().table.drop_columns(["title"]))
    assert item_titles(untitled, words) == words


def test_facets_and_templated_intentions() -> None:
    names, rows = item_facets(catalog(), ["brand", "categories"])
    assert names == ["Lips", "gift", "Nails", "i2"]
    assert rows.tolist() == [[0, 1, -1], [2, -1, -1], [3, -1, -1], [2, -1, -1]]
    asked = templated_intentions(names, rows)
    assert asked[0] == "looking for Lips, gift"
    assert asked[2] == "looking for i2"  # no column says anything: its title
    with pytest.raises(ConfigError, match=r"`method.facets` must name a column.*got \['plot'\]"):
        item_facets(catalog(), ["plot"])
