"""Filters against hand-written masks."""

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.schema import Catalog
from itemese.serving.filters import (
    CACHED_MASKS,
    SHOWN_VALUES,
    ItemFilters,
    ItemSearch,
    column_values,
)
from itemese.serving.query import QueryError


def test_the_item_of_an_id_is_found_before_more_popular_ones_whose_titles_hold_it(catalog):
    popular = np.arange(catalog.num_items)[::-1].copy()
    search = ItemSearch(catalog, popular)
    first, *others = search.find("a", 10)
    assert first[0] == "a"
    assert len({item for item, _ in [first, *others]}) == 1 + len(others)
    assert search.find("a", 1) == [first]


@pytest.fixture
def passed(catalog):
    filters = ItemFilters(catalog)

    def run(wanted):
        mask = filters.mask(wanted)
        return "".join(i for i, ok in zip(catalog.item_ids, mask.tolist(), strict=True) if ok)

    return run


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"genres": "Drama"}, "ab"),
        ({"genres": ["Drama", "Comedy"]}, "abc"),
        ({"item_id": ["e", "a", "nobody"]}, "ae"),
        ({"year": 1991}, "bc"),
        ({"year": [1990, 1999]}, "ae"),
        ({"free": True}, "ac"),
        ({"genres": "Comedy", "year": 1991, "free": False}, "b"),
        ({"genres": []}, ""),
        ({"title": "Alpha"}, "a"),
        ({"title": "alpha"}, ""),
    ],
)
def test_masks(passed, wanted, expected):
    assert passed(wanted) == expected
    assert passed(wanted) == expected, "from the cache"


def test_no_filter_allows_all(catalog):
    assert ItemFilters(catalog).mask(None) is None
    assert ItemFilters(catalog).mask({}) is None


def test_an_unknown_column_is_named_with_the_nearest(catalog):
    with pytest.raises(QueryError, match=r"Did you mean 'genres'\?") as error:
        ItemFilters(catalog).mask({"genre": "Drama"})
    assert error.value.field == "filter.genre"


@pytest.mark.parametrize(
    "wanted",
    [{"year": "1991"}, {"genres": 1}, {"free": 1}, {"year": True}, {"year": 2**70}, {"year": 1.5}],
)
def test_a_value_of_another_kind_is_refused(catalog, wanted):
    with pytest.raises(QueryError, match="must hold values of type"):
        ItemFilters(catalog).mask(wanted)


def test_memory_is_bounded(catalog):
    filters = ItemFilters(catalog)
    for year in range(3 * CACHED_MASKS):
        filters.mask({"year": year})
    assert len(filters._cache) == CACHED_MASKS


def test_columns_have_their_most_frequent_values(catalog):
    found = {column.name: column for column in column_values(catalog)}
    assert list(found) == ["genres", "year", "free"], "no ids, no titles, no counts"
    assert found["genres"].values == (("Comedy", 2), ("Drama", 2))
    assert found["year"].values == ((1991, 2), (1990, 1), (1999, 1))
    assert found["free"].values == ((False, 2), (True, 2))
    assert [column.num_values for column in found.values()] == [2, 3, 2]


def test_columns_without_a_choice_are_left_out():
    size = 3 * SHOWN_VALUES
    table = pa.table(
        {
            "item_id": [str(n) for n in range(size)],
            "title": pa.nulls(size, pa.string()),
            "train_count": pa.array([0] * size, pa.int64()),
            "summary": [f"text {n}" for n in range(size)],
            "brand": [f"brand {n // 2:03}" for n in range(size)],
            "price": [float(n) for n in range(size)],
            "empty": pa.nulls(size, pa.string()),
            "tags": pa.array([["new", "new"], *[["old"]] * (size - 1)], pa.large_list(pa.string())),
        }
    )
    brand, tags = column_values(Catalog.from_table(table))
    assert (brand.name, brand.num_values) == ("brand", size // 2)
    assert [value for value, _ in brand.values] == [f"brand {n:03}" for n in range(SHOWN_VALUES)]
    assert tags.values == (("old", size - 1), ("new", 1)), "an item counts once"
