"""Raw fields of requests reach the model as those of the evaluation; others are refused."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.fields import Field, FieldEncoder, Fields
from itemese.core.schema import Histories
from itemese.core.stages import READERS, Reader
from itemese.core.users import Users
from itemese.layers.histories import pad_histories
from itemese.methods import lookup
from itemese.methods.base import MethodConfig
from itemese.methods.families import CatalogueMethod
from itemese.serving.engine import Recommender
from itemese.serving.query import Query, QueryError

ENCODER = FieldEncoder(
    (
        Field("age", "user", "number", 2, mean=30.0, deviation=10.0),
        Field("gender", "user", "categorical", 3),
        Field("tags", "user", "list", 3, length=2),
        Field("device", "context", "categorical", 3),
        Field("dwell", "event", "number", 2),
    ),
    {
        "user.gender": pa.array(["F", "M"]),
        "user.tags": pa.array(["x", "y"]),
        "context.device": pa.array(["tv", "phone"]),
    },
)
USERS = Users(pa.table({"user_id": ["ada"], "train_count": [3], "gender": ["F"], "age": [50]}))


class Spy(CatalogueMethod):
    """Keeps the requests that it collates."""

    seen: list = []  # noqa: RUF012

    def build(self, inputs):
        module = torch.nn.Module()
        module.register_buffer("size", torch.tensor(inputs.catalog.num_items))
        return module

    def collate(self, requests):
        Spy.seen += requests
        return pad_histories(requests)

    def score_catalogue(self, module, batch):
        return torch.zeros(len(batch["item_index"]), int(module.size))


@pytest.fixture
def engine(tmp_path, catalog, monkeypatch):
    monkeypatch.setattr(lookup, "method_class", lambda name: Spy)
    monkeypatch.setitem(READERS, "features", Reader(Fields.read, answers=True))
    monkeypatch.setitem(READERS, "users", Reader(Users.read, answers=True))
    write_bundle(
        Folder.at(tmp_path / "bundle"),
        experiment={"name": "fields"},
        method_config=MethodConfig(name="spy").model_dump(mode="json"),
        state={"size": torch.tensor(5)},
        catalog=catalog,
        artifacts={"features": Fields(ENCODER, {}), "users": USERS},
        metrics={},
        ancestry={},
    )
    engine = Recommender.load(tmp_path / "bundle")
    Spy.seen.clear()
    return engine


def plain(fields):
    return {key: np.asarray(rows).tolist() for key, rows in fields.items()}


def test_raw_values_are_encoded_as_in_training(engine):
    raw = {"user": {"age": 40, "gender": "M", "tags": ["y"]}, "context": {"device": "tv"}}
    engine.recommend(["a", "b"], fields=raw)
    (request,) = Spy.seen
    assert plain(request.fields) == {
        "user.age": [1.0, 0.0],
        "user.gender": 2,
        "user.tags": [2, -1],
        "context.device": [0, 0, 1],
        "event.dwell": [[0.0, 1.0], [0.0, 1.0]],
    }
    block = Histories(
        ["u"],
        np.array([0, 2]),
        np.array([0, 1], np.int32),
        np.zeros(2, np.int64),
        np.zeros(2, np.int8),
        user_fields={
            field.key: ENCODER.encode_column(field, pa.array([raw["user"][field.name]]))
            for field in ENCODER.owned_by("user")
        },
    )
    evaluated = block.request(0)
    for key, row in evaluated.fields.items():
        np.testing.assert_array_equal(row, request.fields[key])


def test_what_a_request_leaves_out_is_of_the_named_user_or_unknown(engine):
    engine.score(["a"], ["b"], user_id="ada")
    engine.score(["a"], ["b"], user_id="ada", fields={"user": {"age": 20}})
    engine.score(["a"], ["b"], user_id="bob")
    engine.score(["a"], ["b"])
    known, partly, unknown, none_given = (plain(request.fields) for request in Spy.seen)
    assert (known["user.gender"], known["user.age"]) == (1, [2.0, 0.0])
    assert (partly["user.gender"], partly["user.age"]) == (1, [-1.0, 0.0])
    assert unknown == none_given
    assert (none_given["user.gender"], none_given["user.age"]) == (0, [0.0, 1.0])
    assert none_given["context.device"] == [0, 0]


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        ({"user": {"gendre": "F"}}, "fields.user.gendre", "Did you mean 'gender'?"),
        ({"user": {"device": "tv"}}, "fields.user.device", "must be a field"),
        ({"context": {"dwell": 1}}, "fields.context.dwell", "must be a field"),
    ],
)
def test_a_name_that_is_no_field_is_refused(engine, direct, world, fault, raw, field, says):
    with pytest.raises(QueryError, match=r"^`fields\.") as error:
        engine.check(Query(("a",), fields=raw))
    assert error.value.field == field
    world.service.engine = engine
    for path, more in (("recommend", {}), ("score", {"item_ids": ["a"]})):
        body = {"history": ["a"], "fields": raw, **more}
        assert says in fault(world.client().post(f"/v1/{path}", json=body), 422, field)


def test_fields_come_over_http(engine, world):
    world.service.engine = engine
    client = world.client()
    fields = {"user": {"gender": "F", "tags": ["x", "y"]}, "context": {"device": "phone"}}
    for path, more in (("recommend", {}), ("score", {"item_ids": ["a"]})):
        body = {"history": ["a"], "fields": fields, **more}
        assert client.post(f"/v1/{path}", json=body).status_code == 200
        found = plain(Spy.seen[-1].fields)
        assert (found["user.gender"], found["context.device"]) == (1, [0, 2])
        assert found["user.tags"] == [1, 2]
    batch = {"requests": [{"history": ["a"], "fields": {"user": {"gender": "M"}}}]}
    assert client.post("/v1/recommend/batch", json=batch).status_code == 200
    assert plain(Spy.seen[-1].fields)["user.gender"] == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"item": {"x": 1}}, "fields.item"),
        ({"user": []}, "fields.user"),
        ({"user": {"gender": {"deep": 1}}}, "fields.user.gender"),
        ({"user": {f"f{n}": n for n in range(257)}}, "fields.user"),
        ([], "fields"),
    ],
)
def test_fields_of_another_form_are_refused(client, fault, fields, field):
    fault(client.post("/v1/recommend", json={"history": ["a"], "fields": fields}), 422, field)


def test_a_model_without_fields_refuses_them(client, fault, tiny_engine):
    body = {"history": ["a"], "fields": {"user": {"age": 3}}}
    reported = fault(client.post("/v1/recommend", json=body), 422, "fields")
    assert "a model without fields; got user.age" in reported
    for nothing in ({}, {"user": {}}, None):
        body = {"history": ["a"], "fields": nothing}
        assert client.post("/v1/recommend", json=body).status_code == 200
    with pytest.raises(QueryError, match="without fields"):
        tiny_engine.recommend(["a"], fields={"user": {"age": 3}})
