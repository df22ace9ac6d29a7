"""Raw values become the same numbers, whether a table or a request holds them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.fields import Field, FieldEncoder, Fields, unknown_rows, value_text

FIELDS = (
    Field("city", "user", "categorical", 4),
    Field("age", "user", "number", 2, mean=30.0, deviation=10.0),
    Field("likes", "user", "list", 4, length=3),
    Field("about", "user", "text"),
    Field("device", "context", "categorical", 3),
    Field("brand", "item", "categorical", 2),
)
VALUES = {
    "user.city": pa.array(["rome", "3", "true"]),
    "user.likes": pa.array(["a", "b", "c"]),
    "context.device": pa.array(["phone", "tv"]),
    "item.brand": pa.array(["x"]),
}
ENCODER = FieldEncoder(FIELDS, VALUES)


def test_a_request_by_hand() -> None:
    raw = {"user": {"city": " rome ", "age": 45, "likes": ["c", "z", "a", "b"]}, "context": {}}
    found = ENCODER.encode({**raw, "user": {**raw["user"], "about": "Likes  films"}})
    assert set(found) == {f.key for f in FIELDS if f.owner != "item"}
    assert found["user.city"] == 1
    assert found["user.age"].tolist() == [1.5, 0.0]
    assert found["user.likes"].tolist() == [3, 0, 1], "the first three; z is unknown"
    assert found["user.about"] == "Likes films"
    assert found["context.device"] == 0
    nothing = ENCODER.encode({})
    assert nothing["user.age"].tolist() == [0.0, 1.0]
    assert nothing["user.likes"].tolist() == [-1, -1, -1]
    assert nothing["user.about"] is None


def test_names_that_are_no_field_are_refused() -> None:
    with pytest.raises(DataError, match=r"`user\.citty` must be a field .* Did you mean 'city'"):
        ENCODER.encode({"user": {"citty": "rome"}})
    with pytest.raises(DataError, match="of its user or context; got 'item'"):
        ENCODER.encode({"item": {"brand": "x"}})


@pytest.mark.parametrize("value", [3, 3.0, "3", " 3\n"])
def test_one_value_has_one_spelling(value: object) -> None:
    assert ENCODER.encode({"user": {"city": value}})["user.city"] == 2


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_missing_values_have_none(value: object) -> None:
    assert value_text(value) is None


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1),
        st.lists(st.one_of(st.none(), st.floats(-5, 5), st.just(float("nan"))), min_size=1),
        st.lists(st.one_of(st.none(), st.booleans()), min_size=1),
        st.lists(st.one_of(st.none(), st.sampled_from(["rome", " 3", "x", ""])), min_size=1),
    )
)
def test_columns_and_single_values_agree(values: list[object]) -> None:
    column = pa.array(values)
    for field in (FIELDS[0], FIELDS[1]):
        rows = ENCODER.encode_column(field, column)
        alone = [ENCODER.encode({"user": {field.name: v}})[field.key] for v in column.to_pylist()]
        np.testing.assert_array_equal(rows, np.stack(alone))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "z", None]))), min_size=1))
def test_columns_and_single_lists_agree(values: list[list[str | None] | None]) -> None:
    column = pa.array(values, pa.list_(pa.string()))
    rows = ENCODER.encode_column(FIELDS[2], pa.chunked_array([column, column.slice(0, 1)]))
    alone = [ENCODER.encode({"user": {"likes": v}})["user.likes"] for v in [*values, values[0]]]
    np.testing.assert_array_equal(rows, np.stack(alone))


def test_fields_survive_the_disk(tmp_path: Path) -> None:
    items = {
        "item.brand": np.array([1, 0], np.int32),
        "item.price": np.array([[0.5, 0.0], [0.0, 1.0]], np.float32),
        "item.tags": np.array([[1, -1], [2, 3]], np.int32),
        "item.plot": np.array(["a b", None], dtype=object),
    }
    fields = Fields(ENCODER, items)
    fields.write(Folder.at(tmp_path))
    again = Fields.read(Folder.at(tmp_path))
    again.validate(2)
    assert again.encoder.fields == FIELDS
    assert {k: v.to_pylist() for k, v in again.encoder.values.items()} == {
        k: v.to_pylist() for k, v in VALUES.items()
    }
    for key, rows in items.items():
        np.testing.assert_array_equal(again.items[key], rows)
        assert again.items[key].dtype == rows.dtype
    with pytest.raises(DataError, match=r"3 rows of item\.brand; got 2"):
        again.validate(3)


def test_unknown_rows_are_those_of_missing_values() -> None:
    missing = ENCODER.encode({})
    for key, rows in missing.items():
        rows = np.asarray(rows)
        np.testing.assert_array_equal(unknown_rows(rows[None], 1)[0], rows, err_msg=key)
