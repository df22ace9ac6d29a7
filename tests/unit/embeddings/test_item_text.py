"""Item text by hand."""

import pyarrow as pa
import pytest

from itemese.core.errors import ConfigError
from itemese.embeddings.text import item_texts, text_columns

COLUMNS = ["title", "tags", "year"]


def texts(rows: list[dict], columns: list[str] = COLUMNS, max_tokens: int = 64) -> list[str]:
    schema = {"title": pa.string(), "tags": pa.list_(pa.string()), "year": pa.float64()}
    table = pa.Table.from_pylist(rows, schema=pa.schema(schema.items()))
    return item_texts(table, columns, max_tokens)


def test_joins_columns_and_lists_in_order() -> None:
    row = {"title": "Toy Story", "tags": ["Animation", "Comedy"], "year": 1995}
    assert texts([row]) == ["Toy Story. Animation, Comedy. 1995.0"]
    assert texts([row], ["tags", "title"]) == ["Animation, Comedy. Toy Story"]


def test_empty_cells_leave_no_trace() -> None:
    rows = [
        {"title": None, "tags": ["a", None, ""], "year": float("nan")},
        {"title": " \t", "tags": [], "year": None},
        {"title": "x", "tags": None, "year": 2.0},
    ]
    assert texts(rows) == ["a", "", "x. 2.0"]


def test_unescapes_and_cleans() -> None:
    title = "Salt &amp;\x00 Pepper\r\n  &lt;big&gt; caf\u00e9\u2028 \U0001f600"
    assert texts([{"title": title}]) == ["Salt & Pepper <big> caf\u00e9 \U0001f600"]


def test_text_far_beyond_the_model_is_cut() -> None:
    long = "word " * 100_000
    assert len(texts([{"title": long}], max_tokens=8)[0]) <= 8 * 32


def test_whole_numbers_stay_whole() -> None:
    assert item_texts(pa.table({"year": [1995]}), ["year"], 8) == ["1995"]


def test_absent_columns_are_passed_over_in_the_order_wanted() -> None:
    schema = pa.schema([("title", pa.string()), ("brand", pa.string())])
    assert text_columns(schema, ["brand", "genres", "title"]) == ["brand", "title"]


def test_no_column_at_all_lists_those_there_are() -> None:
    schema = pa.schema([("item_id", pa.string()), ("name", pa.string()), ("pic", pa.binary())])
    with pytest.raises(ConfigError, match=r"got \['title'\]. The items have: name\.$"):
        text_columns(schema, ["title"])


@pytest.mark.parametrize("kind", [pa.binary(), pa.struct([("a", pa.string())]), pa.bool_()])
def test_columns_that_are_no_text_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(ConfigError, match="must name text, numbers or lists"):
        text_columns(pa.schema([("title", kind)]), ["title"])


def test_nested_lists_are_flattened() -> None:
    kind = pa.list_(pa.list_(pa.string()))
    table = pa.table({"categories": pa.array([[["Beauty", "Hair"], ["Gifts"]]], kind)})
    assert text_columns(table.schema, ["categories"]) == ["categories"]
    assert item_texts(table, ["categories"], 64) == ["Beauty, Hair, Gifts"]
